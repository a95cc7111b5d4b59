"""The drop-in noise of the first paper's Table 5, and the same flips where they leave no trace."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def row_normalised(x: Tensor) -> Tensor:
    """Every row divided by its sum; a row of zeros stays."""
    return x / x.sum(1, keepdim=True).clamp(min=1)


def drop_in(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """x with 1.0 added to floor(share * N * F) of its entries, drawn without replacement       (Table 5: share = .5)

    x: (N, F), row-normalised and dense. The clean features are x - floor(x) wherever they are below 1: the noise hides
    nothing, it adds an offset of `share` to every feature. `flipped` leaves no such trace.
    """
    entries = _entries(x, share, generator)
    noisy = x.clone()
    noisy.view(-1)[entries] += 1.0
    return noisy


def flipped(bits: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """The words of floor(share * N * F) entries turned over, 0 for 1 and 1 for 0, before the rows are normalised.

    bits: (N, F) of 0 and 1. No entry tells whether it was turned; with share = .5 nothing is left of the words.
    """
    entries = _entries(bits, share, generator)
    if not bool(((bits == 0) | (bits == 1)).all()):
        raise ValueError("bits must be 0 or 1, got other values; flip before the rows are normalised")
    turned = bits.clone()
    turned.view(-1)[entries] = 1.0 - turned.view(-1)[entries]
    return row_normalised(turned)


def _entries(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    if x.is_sparse or x.ndim != 2:
        raise ValueError(f"x must be a dense matrix (N, F), got {x.layout} {tuple(x.shape)}")
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise ValueError(f"share must lie in [0, 1], got {share}")
    count = math.floor(share * x.numel())
    return torch.randperm(x.numel(), generator=generator, device="cpu")[:count].to(x.device)
