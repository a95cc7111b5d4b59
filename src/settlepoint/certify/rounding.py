"""Rounding: results of float64 moved outward, and the coarsest floating numbers that an operator works in."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


def outward(value: Tensor, operations: int = 8) -> Tensor:
    """value in float64, moved up by as many rounding units as there were operations, and one step of nextafter."""
    exact = value.double()
    moved = exact * (1 + operations * torch.finfo(torch.float64).eps)
    return torch.nextafter(moved, torch.full_like(moved, torch.inf))


class Coarsest(TorchDispatchMode):
    """Inside: unit grows to the largest rounding unit of any result, so that a cast to float32 on the way is seen."""

    def __init__(self, unit: float):
        super().__init__()
        self.unit = unit

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        for t in pytree.tree_leaves(y):
            if isinstance(t, Tensor) and t.is_floating_point():
                self.unit = max(self.unit, torch.finfo(t.dtype).eps)
        return y
