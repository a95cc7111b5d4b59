"""Penalties: vectors whose squared length is added to the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from settlepoint.solvers.r2n2 import R2N2
from settlepoint.solvers.solver import Solver


def order_conditions(solver: Solver, order: int) -> Tensor:  # (number of conditions,)
    """What is left of the conditions for a Runge-Kutta method of that order, 1 to 4    (Hairer, Norsett & Wanner, II.2)

    sum b = 1; b c = 1/2; b c^2 = 1/3, b A c = 1/6; b c^3 = 1/4, b c A c = 1/8, b A c^2 = 1/12, b A A c = 1/24; with
    c = A 1. As penalty: `lambda solver: 10 * order_conditions(solver, 3)` (after Guo et al. 2022).
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order!r}")
    if not isinstance(solver, R2N2):
        raise TypeError(f"solver must be an R2N2, got {type(solver).__name__}")
    a, b = solver.tableau()
    c = a.sum(1)
    left = [b.sum() - 1]
    if order > 1:
        left += [b @ c - 1 / 2]
    if order > 2:
        left += [b @ c**2 - 1 / 3, b @ (a @ c) - 1 / 6]
    if order > 3:
        left += [b @ c**3 - 1 / 4, (b * c) @ (a @ c) - 1 / 8, b @ (a @ c**2) - 1 / 12, b @ (a @ (a @ c)) - 1 / 24]
    return torch.stack(left)
