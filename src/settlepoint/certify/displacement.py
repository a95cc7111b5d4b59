"""When there is no fixed point: how far the nearest one must be, and where the iterates drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.certify.certificate import Refused
from settlepoint.certify.point import Point, plain_norm
from settlepoint.equation import Equation
from settlepoint.iterate import iterate
from settlepoint.solvers.halpern import Halpern
from settlepoint.spaces import State
from settlepoint.stop import FixedSteps


@torch.no_grad()
def exclusion_radius(eq: Equation, x: State, bound: float | None = None) -> Tensor:  # (R,)
    """No fixed point lies within ||P(x) - x|| / (1 + L) of x, since ||P(x) - x|| <= ||P(x) - P(x*)|| + ||x* - x||.

    bound: L, a Lipschitz constant of P on the whole space, by default worked out of the operator. A proof, rounded
    inward. Raises `Refused` where no constant is known.
    """
    if bound is not None and not bound >= 0:
        raise ValueError(f"bound must be >= 0, got {bound}")
    here = Point.at(eq, x)
    if bound is None:
        plain_norm(here.eq)
        constant = here.followed().bound.two.expand(len(here.z))
        if not bool(torch.isfinite(constant).all()):
            raise Refused("the operator has no constant on the whole space, so that nothing can be excluded")
    else:
        constant = torch.full_like(here.residual, float(bound))
    reach = (here.residual - here.rounding).clamp(min=0)
    return reach / (1 + constant) * (1 - 1e-12)


@dataclass(frozen=True)
class Displacement:
    """An estimate of the smallest ||P(x) - x||, the infimal displacement vector of a nonexpansive P.

    vector: like x. size: (R,), its norm. change: (R,), by how much it moved over the last half of the steps, relative
    to size. steps: taken. moved: (R,) True where size stands clear of what so many steps leave of a fixed point.
    """

    vector: State
    size: Tensor
    change: Tensor
    steps: int
    moved: Tensor


@torch.no_grad()
def displacement(eq: Equation, x0: State, steps: int = 1000) -> Displacement:
    """Halpern's iterates x_k from x0, of which 2 (x_k - x0) / k tends to v with ||v|| = inf ||P(x) - x||.

    For nonexpansive P; an estimate (Halpern with anchor 1 / (k + 1): x_k / k tends to v / 2). Where P has a fixed
    point v is 0, and the estimate falls like 1 / k: moved says that it has not, between half of the steps and all.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 4:
        raise ValueError(f"steps must be an integer >= 4, got {steps!r}")
    bound = eq.at(x0)
    assert bound.layout is not None
    z0, half = bound.layout.flatten(x0), steps // 2
    middle = iterate(bound, z0, Halpern(), FixedSteps(half))
    last = iterate(bound, z0, Halpern(), FixedSteps(steps))
    early, late = 2 * (middle.z - z0) / half, 2 * (last.z - z0) / steps
    size = bound.norm(late).double()
    change = bound.norm(late - early).double() / size.clamp(min=torch.finfo(torch.float64).tiny)
    return Displacement(
        bound.layout.restore(late), size, change, steps, (change < 0.25) & (size > math.sqrt(bound.layout.eps))
    )
