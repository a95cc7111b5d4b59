"""The cell of a recurrent network that is iterated at one input until it settles."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from settlepoint.layers.spectral import clipped


class TanhCell(nn.Module):
    """T(z, u) = tanh(W z + u)        (the equilibrium layer of Bai, Kolter and Koltun 2019, in its plainest form)

    z, u, result: (B, width). tanh has slopes in (0, 1], so that ||W||_2 < 1 makes T a contraction in z at every u, and
    the slope at the state, 1 - z^2, makes every row settle at a rate of its own.

    gain: standard deviation of the first W is gain / sqrt(width), its spectral radius about gain.
    """

    def __init__(
        self,
        width: int,
        *,
        gain: float = 0.5,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if not gain > 0:
            raise ValueError(f"gain must be positive, got {gain}")
        start = torch.randn(width, width, generator=generator, dtype=dtype)
        self.weight = nn.Parameter(gain / math.sqrt(width) * start)

    def extra_repr(self) -> str:
        return f"width={len(self.weight)}"

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(nn.functional.linear(z, self.weight) + u)

    @torch.no_grad()
    def project_(self, bound: float) -> None:
        """Replace W by the matrix nearest to it with ||W||_2 <= bound; call it after each step of an optimiser."""
        self.weight.copy_(clipped(self.weight, bound))
