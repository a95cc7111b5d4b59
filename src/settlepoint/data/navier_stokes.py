"""The Navier-Stokes equations on the torus, by vorticity: fields to learn operators from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from settlepoint.data.fluid import Flow, Fluid
from settlepoint.data.integrators import SCHEMES
from settlepoint.data.registry import DataError

WARN, REFUSE, WATCHED = 2.8, 4.0, 10
DRAWN = 256
TAU, ALPHA = 7.0, 2.5


class FlowError(DataError):
    """A flow left what its step can follow; the message says when, and which step would do."""


@torch.no_grad()
def trajectories(
    start: Tensor, times: Sequence[float], flow: Flow, *, progress: Callable[[float], object] = lambda time: None
) -> Tensor:
    """The vorticity at the times: (B, size, size) at time 0 -> (B, len(times), size, size), float64

    Wavenumbers of start that flow does not follow are dropped. progress is told each time reached.

    Raises ValueError for a start of another shape or that is not finite, and for times that do not rise in whole
    steps; FlowError where the Courant number C = dt max(|u| + |v|) 2 pi kept passes 4 or a field is no longer finite.
    From C = 2.8 on, where Runge-Kutta's order 4 would be unstable without viscosity, it warns, once. Both are looked at
    every 10 steps.
    """
    _check(start, flow)
    counts = _steps(times, flow.dt)
    fluid, guard = Fluid(flow, len(start), start.device), _Guard(flow, flow.dt * math.gcd(*counts))
    integrator = SCHEMES[flow.scheme](fluid.diffusion, flow.dt)
    w, now, frames = fluid.spectrum(start.double()), 0.0, []
    for time, count in zip(times, counts, strict=True):
        for done in range(count):
            if done % WATCHED == 0:
                guard(fluid, w, now + done * flow.dt)
            w = integrator.step(w, fluid.rate, fluid.rate(w))
        now = float(time)
        guard(fluid, w, now)
        frames.append(fluid.field(w))
        progress(now)
    return torch.stack(frames, 1)


def _check(start: Tensor, flow: Flow) -> None:
    if start.ndim != 3 or start.shape[1:] != (flow.size, flow.size):
        raise ValueError(f"start must be (B, {flow.size}, {flow.size}) for this flow, got {tuple(start.shape)}")
    if not start.is_floating_point():
        raise ValueError(f"start must be finite real numbers, got {start.dtype}")
    if not bool(start.isfinite().all()):
        raise ValueError(f"start must be finite, got {int((~start.isfinite()).sum())} numbers that are not")


def _steps(times: Sequence[float], dt: float) -> list[int]:
    """Steps from each time to the next, from 0 on."""
    found = []
    for before, time in pairwise((0.0, *times)):
        count = round((time - before) / dt)
        if not time > before or abs(count * dt - (time - before)) > 1e-9 * max(1.0, abs(time)):
            raise ValueError(f"times must rise from 0 in whole steps of dt = {dt:g}, got {time:g} after {before:g}")
        found.append(count)
    return found


class _Guard:
    """Refuses what the step cannot follow; warns once. gap: what steps must divide, all times being its multiples."""

    def __init__(self, flow: Flow, gap: float):
        self.flow, self.gap, self.warned = flow, gap, False

    def __call__(self, fluid: Fluid, w: Tensor, time: float) -> None:
        speed = fluid.velocities(w).abs().sum(0).flatten(1).amax(1)  # (B,)
        number = self.flow.dt * 2 * math.pi * self.flow.kept * float(speed.max())
        if number <= WARN:
            return
        row, smaller = int(speed.nan_to_num(math.inf).argmax()), self._advice(number)
        if not math.isfinite(number):
            raise FlowError(f"the vorticity of row {row} is not finite at t = {time:g}; {smaller}")
        if number > REFUSE:
            raise FlowError(
                f"the Courant number {number:.2f} of row {row} passes {REFUSE:g} at t = {time:g}; {smaller}"
            )
        if not self.warned:
            self.warned = True
            text = f"the Courant number {number:.2f} of row {row} passes {WARN:g} at t = {time:g}; {smaller}"
            warnings.warn(text, stacklevel=4)

    def _advice(self, number: float) -> str:
        least = 2.0 if not math.isfinite(number) else number / (0.9 * WARN)
        return f"take dt = {self.gap / math.ceil(self.gap / self.flow.dt * least):.6g}"


def initial_vorticity(
    count: int, generator: torch.Generator, size: int = 64, *, drawn: int = DRAWN
) -> Tensor:  # (count, size, size)
    """Gaussian fields of zero mean, float64, Fourier variance 7^3 (4 pi^2 |k|^2 + 49)^{-5/2}   (generator of Li et al.)

    Drawn on drawn x drawn points and cut to the wavenumbers below size / 2, so that a field is the same on every grid.
    The paper's text has 7^{3/2} in place of 7^3; its data have this.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    if not 4 <= size <= drawn or size % 2 or drawn % 2:
        raise ValueError(f"size must be even and lie in [4, drawn = {drawn}], got {size}")
    noise = torch.randn(count, drawn, drawn, generator=generator, dtype=torch.float64, device=generator.device)
    half = size // 2
    spectrum = torch.fft.rfft2(noise)[..., :half] * (size**2 / drawn)
    spectrum = torch.cat((spectrum[:, :half], torch.zeros_like(spectrum[:, :1]), spectrum[:, 1 - half :]), 1)
    k = torch.fft.fftfreq(size, dtype=torch.float64, device=noise.device) * size
    square = 4 * torch.pi**2 * (k[:, None] ** 2 + k[None, :half] ** 2)
    deviation = (TAU ** (2 * ALPHA - 2) * (square + TAU**2) ** -ALPHA).sqrt()
    deviation[0, 0] = 0.0
    return torch.fft.irfft2(spectrum * deviation, s=(size, size))
