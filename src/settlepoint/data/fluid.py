"""A fluid on the torus, by the spectrum of its vorticity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.data.integrators import SCHEMES, Scheme


@dataclass(frozen=True, kw_only=True)
class Flow:
    """w_t + u . grad w = nu lap w + g,  w = curl u,  div u = 0,  on the unit torus                    (Li et al. 2021)

    g = strength (sin 2 pi (x + y) + cos 2 pi (x + y)). x runs along the first axis of a field, y along the second.
    viscosity: nu. size: points a side, even. dt: time step. mean: velocity of the whole fluid. scheme: "etdrk4" and
    "ifrk4" of order 4, "cn-heun" 2, "cn-euler" 1, see data.integrators.

    Pseudo-spectral, real transforms in float64, all products dealiased by the 2/3 rule; two transforms back and two
    forth a stage, by u . grad w = (d_xx - d_yy)(u v) + d_xy (v^2 - u^2) (Basdevant 1983).

    Raises ValueError, naming the field, for what is no flow.
    """

    viscosity: float = 1e-3
    size: int = 64
    dt: float = 0.05
    strength: float = 0.1
    mean: tuple[float, float] = (0.0, 0.0)
    scheme: Scheme = "etdrk4"

    def __post_init__(self):
        if not 0 <= self.viscosity < math.inf:
            raise ValueError(f"viscosity must be at least 0, got {self.viscosity}")
        if self.size < 4 or self.size % 2:
            raise ValueError(f"size must be an even number of points from 4 on, got {self.size}")
        if not 0 < self.dt < math.inf:
            raise ValueError(f"dt must be above 0, got {self.dt}")
        if not all(math.isfinite(number) for number in (self.strength, *self.mean)):
            raise ValueError(f"strength and mean must be finite, got {self.strength} and {self.mean}")
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {self.scheme!r}")

    @property
    def kept(self) -> int:
        """The largest wavenumber that is followed, in units of 2 pi: 3 kept < size."""
        return (self.size - 1) // 3


class Fluid:
    """Spectra of `batch` vorticities, (batch, size, kept + 1), wavenumbers along y from 0 to the largest kept

    All wavenumbers along x are there, those that are not kept as zeros. Transforms are written into tensors that the
    fluid holds, so that a stage allocates little.
    """

    def __init__(self, flow: Flow, batch: int, device: torch.device):
        self.flow, n, m = flow, flow.size, flow.kept
        real = {"dtype": torch.float64, "device": device}
        kx = 2 * torch.pi * n * torch.fft.fftfreq(n, **real)[:, None]
        ky = 2 * torch.pi * torch.arange(m + 1, **real)[None, :]
        self._kept = (kx.abs() < 2 * torch.pi * (m + 0.5)).expand(n, m + 1).double()
        square = (kx**2 + ky**2) * self._kept
        inverse = self._kept * torch.where(square > 0, 1 / square, 0.0)
        self.diffusion = -flow.viscosity * square
        self._curl = 1j * torch.stack((ky * inverse, -kx * inverse))[:, None]
        self._transport = (self._kept * torch.stack((kx**2 - ky**2, kx * ky))[:, None]).to(torch.complex128)
        self._wide = torch.zeros(2, batch, n, n // 2 + 1, dtype=torch.complex128, device=device)
        self._products = torch.empty(2, batch, n, n, **real)
        at = torch.arange(n, **real) * (2 * torch.pi / n)
        phase = at[:, None] + at[None, :]
        self._forcing = self.spectrum(flow.strength * (phase.sin() + phase.cos()))

    def spectrum(self, field: Tensor) -> Tensor:  # (..., n, n) -> (..., n, kept + 1)
        """The wavenumbers of a field that are kept."""
        return self._forth(field) * self._kept

    def _forth(self, field: Tensor) -> Tensor:
        return torch.fft.fft(torch.fft.rfft(field)[..., : self.flow.kept + 1], dim=-2)

    def field(self, spectrum: Tensor) -> Tensor:  # (..., n, kept + 1) -> (..., n, n)
        """The field on the grid."""
        return torch.fft.irfft(torch.fft.ifft(spectrum, dim=-2), n=self.flow.size)

    def velocities(self, w: Tensor) -> Tensor:  # (batch, n, kept + 1) -> (2, batch, n, n)
        """u = psi_y and v = -psi_x, lap psi = -w, and the mean."""
        self._wide[..., : self.flow.kept + 1] = torch.fft.ifft(w * self._curl, dim=-2)
        both = torch.fft.irfft(self._wide, n=self.flow.size)
        for part, mean in zip(both, self.flow.mean, strict=True):
            if mean:
                part += mean
        return both

    def rate(self, w: Tensor) -> Tensor:
        """g - u . grad w."""
        u, v = self.velocities(w)
        across, along = self._products
        torch.mul(u, v, out=across)
        torch.mul(v, v, out=along).addcmul_(u, u, value=-1)
        moved = self._forth(self._products).mul_(self._transport)
        return moved[0].add_(moved[1]).add_(self._forcing)
