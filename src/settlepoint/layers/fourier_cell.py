"""A Fourier layer that sees its input at every step, to be iterated until it settles."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from settlepoint.layers.fourier import FourierLayer


class FourierCell(nn.Module):
    """T(z, u) = (W + F^-1 R F) sigma(g(u) * z + u) + b,  g(u) = G u + c, point by point; sigma = GELU

    z, u, result: (B, width, n1, n2). The form of the Lippmann-Schwinger equation of steady linear problems: with A(a)
    the operator of coefficient a and A_0 that of a constant one, A(a) p = f is p = A_0^-1 (f - (A(a) - A_0) p), a
    product with what depends on the place, then a convolution that does not. injection: "gated" as above; "added" has
    g = 1, where a coefficient only adds.

    The layers start at `gain` times the usual size, so that a fresh cell contracts; nothing bounds a trained one, see
    certify.verdict and certify.jacobian_penalty.
    """

    def __init__(
        self,
        width: int,
        modes: int,
        *,
        injection: Literal["gated", "added"] = "gated",
        gain: float = 0.5,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if injection not in ("gated", "added"):
            raise ValueError(f"injection must be 'gated' or 'added', got {injection!r}")
        self.layer = FourierLayer(width, width, modes, gain=gain, dtype=dtype)
        self.gate = nn.Conv2d(width, width, 1, dtype=dtype) if injection == "gated" else None
        with torch.no_grad():
            self.layer.pointwise.weight.mul_(gain)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        seen = z if self.gate is None else self.gate(u) * z
        return self.layer(nn.functional.gelu(seen + u))
