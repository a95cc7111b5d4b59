"""Windows that slide along a chain, each row of a batch at its own pace."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(mask: Tensor, like: Tensor) -> Tensor:
    """mask (R, S) in the shape that broadcasts over like (R, S, ...)."""
    return mask.reshape(*mask.shape, *(1,) * (like.ndim - 2))


def slid(ahead: Tensor, *values: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Every window (R, S, ...) of values moved on by its own number of slots, its last slot in those that enter.

    Returns which slots were in the window before, (R, S), and the windows.
    """
    slots = torch.arange(values[0].shape[1], device=ahead.device) + ahead[:, None]
    inside, slots = slots < values[0].shape[1], slots.clamp(max=values[0].shape[1] - 1)
    rows = torch.arange(len(slots), device=ahead.device)[:, None]
    return inside, tuple(value[rows, slots] for value in values)
