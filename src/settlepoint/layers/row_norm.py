"""Matrices whose rows have a bounded sum of absolute values, so that their largest entry does not grow."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rows_projected(weight: Tensor, bound: float) -> Tensor:
    """The matrix nearest to weight, in the Frobenius norm, with ||W||_inf = max_i sum_j |W_ij| <= bound.

    Row by row, w -> sign(w) max(|w| - t, 0), t = max(0, max_j (sum of the j largest |w| - bound) / j)
    (projection onto the l1 ball: Duchi et al. 2008).

    >>> rows_projected(torch.tensor([[3.0, -1.0], [0.2, 0.3]]), 3.0)
    tensor([[ 2.5000, -0.5000],
            [ 0.2000,  0.3000]])
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must be a matrix, got {tuple(weight.shape)}")
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    size = weight.abs()
    largest = size.sort(dim=1, descending=True).values.cumsum(1)
    count = torch.arange(1, weight.shape[1] + 1, device=weight.device)
    t = ((largest - bound) / count).amax(1, keepdim=True).clamp(min=0)
    return weight.sign() * (size - t).clamp(min=0)


class RowBounded(nn.Module):
    """W -> W with every row scaled to sum_j |W_ij| <= bound, differentiable: for torch's parametrize."""

    def __init__(self, bound: float):
        super().__init__()
        self.bound = bound

    def extra_repr(self) -> str:
        return f"bound={self.bound}"

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (self.bound / weight.abs().sum(1, keepdim=True).clamp(min=self.bound))
