"""Projections onto matrices of bounded spectral norm."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped(weight: Tensor, bound: float) -> Tensor:
    """The matrix nearest to weight, in the Frobenius norm, whose spectral norm is at most bound.

    U min(S, bound) V^T for weight = U S V^T: only the singular values above the bound are touched. Exact, in one
    SVD; meant for matrices of some hundreds of rows. The matrix itself is returned when it needs no change.

    >>> clipped(torch.diag(torch.tensor([3.0, 0.5])), 1.0).diagonal()
    tensor([1.0000, 0.5000])
    """
    if weight.ndim != 2:
        raise ValueError(f"weight must be a matrix, got {tuple(weight.shape)}")
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    return torch.where(s.amax() <= bound, weight, (u * s.clamp(max=bound)) @ v)
