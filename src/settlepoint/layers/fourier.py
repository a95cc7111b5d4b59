"""The Fourier layer: a convolution over the whole field, learned in the frequencies."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpectralConvolution(nn.Module):
    """y = F^-1(R . F x), with R zero from frequency `modes` on        (Li et al. 2021, Fourier Neural Operator)

    x: (B, inputs, n1, n2); result: (B, outputs, n1, n2). R: one complex matrix (outputs, inputs) for every pair of
    frequencies |k1| < modes, 0 <= k2 < modes; the rest follows, since fields are real. The transform is divided by the
    number of points, so that the weights mean the same on every grid and a field without frequencies from `modes` on
    gives the same y on all of them. A field that has such frequencies is aliased by a grid too coarse for it.

    Raises ValueError for a grid of fewer than 2 * modes points either way, which cannot tell the frequencies apart.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: int,
        *,
        gain: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        for name, value in (("inputs", inputs), ("outputs", outputs), ("modes", modes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        self.modes = modes
        start = torch.randn(2 * modes - 1, modes, inputs, outputs, 2, generator=generator, dtype=dtype)
        self.weight = nn.Parameter(start * gain / (2 * inputs) ** 0.5)

    def extra_repr(self) -> str:
        inputs, outputs = self.weight.shape[2:4]
        return f"inputs={inputs}, outputs={outputs}, modes={self.modes}"

    def forward(self, x: Tensor) -> Tensor:
        size, m = x.shape[-2:], self.modes
        if min(size) < 2 * m:
            raise ValueError(f"modes must be at most half the points of the grid either way, got {m} on {tuple(size)}")
        coefficients = torch.fft.rfft2(x, norm="forward")
        rows = torch.arange(1 - m, m, device=x.device) % size[0]
        low = coefficients[:, :, rows, :m].permute(2, 3, 0, 1)  # (2m - 1, m, B, inputs)
        mixed = (low @ torch.view_as_complex(self.weight)).permute(2, 3, 0, 1)
        full = mixed.new_zeros(*mixed.shape[:2], size[0], size[1] // 2 + 1)
        full = full.index_copy(2, rows, nn.functional.pad(mixed, (0, full.shape[-1] - m)))
        return torch.fft.irfft2(full, s=size, norm="forward")


class FourierLayer(nn.Module):
    """y = sigma(W x + b + F^-1(R . F x))        (Li et al. 2021, Eq. 2 and 4)

    x: (B, inputs, n1, n2); result: (B, outputs, n1, n2). W acts at every point alone and keeps what R cuts off.
    activation: sigma; None leaves it out.

        >>> FourierLayer(3, 5, modes=2)(torch.zeros(1, 3, 8, 6)).shape
        torch.Size([1, 5, 8, 6])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: int,
        *,
        activation: nn.Module | None = None,
        gain: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.spectral = SpectralConvolution(inputs, outputs, modes, gain=gain, generator=generator, dtype=dtype)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, dtype=dtype)
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.pointwise(x) + self.spectral(x))
