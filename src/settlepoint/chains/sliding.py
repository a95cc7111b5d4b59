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


def recurrence(a: Tensor, b: Tensor) -> Tensor:  # (R, S), (R, S, ...) -> (R, S, ...)
    """d_j = a_j d_{j-1} + b_j, d_{-1} = 0, for all slots in about log2(S) steps (Hillis and Steele 1986).

    >>> recurrence(torch.tensor([[9.0, 2.0, 3.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    tensor([[1., 3., 9.]])
    """
    d, span = b.clone(), 1
    while span < b.shape[1]:
        d[:, span:] += wide(a[:, span:], d) * d[:, :-span]
        a = torch.cat((a[:, :span], a[:, span:] * a[:, :-span]), 1)
        span *= 2
    return d
