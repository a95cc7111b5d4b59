"""Theorem 3 of the first paper, corrected: a contraction on a ball that maps the ball into itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, Refused, chosen, claimed
from settlepoint.certify.point import Point, attempt, plain_norm
from settlepoint.certify.rounding import outward
from settlepoint.equation import Equation
from settlepoint.spaces import State

_RADII = (1.0, 1e-1, 1e-2, 1e-4, 1e-6)
"""Times (1 + ||x||): the balls that are tried where none is given."""


def ball(eq: Equation, x: State, radius: float | None = None, bound: float | None = None) -> Certificate:
    """Exactly one fixed point in B(x, r), when M < 1 there and ||P(x) - x|| <= (1 - M) r.

    radius: r, or None for the largest of some balls, row by row, on which that holds. bound: a Lipschitz constant of T
    on the ball, taken as proved, so that M = |lam| bound; by default M of P is worked out on that ball
    (`lipschitz_upper` with a region). At x = f this is Theorem 3 with the condition that it lacks:
    |lam| ||T(f)|| <= (1 - |lam| M) r. Without it the statement is false: T(y) = y^3, lam = .3, f = .9 has lam M = .9 on
    B(f, .1) and runs away. The radius claimed is ||P(x) - x|| / (1 - M) <= r.
    """
    if radius is not None and not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius must be a finite number > 0, got {radius}")
    if bound is not None and not bound >= 0:
        raise ValueError(f"bound must be >= 0, got {bound}")
    if bound is not None and radius is None:
        raise ValueError("radius must be given with a bound, which holds on one ball alone")

    def claim(here: Point) -> Certificate:
        scale = 1 + here.eq.measure(here.z).nan_to_num(nan=0.0, posinf=0.0)
        balls = [torch.full_like(scale, radius)] if radius is not None else [size * scale for size in _RADII]
        found, refusal = [], None
        for r in balls:
            try:
                found.append(_within(here, r, bound))
            except Refused as error:  # a ball too large for its quotients
                refusal = error
        if refusal is not None and not found:
            raise refusal
        return chosen(found, torch.stack([c.unique_in for c in found]).argmax(0))

    return attempt("ball", eq, x, claim)


def _within(here: Point, radius: Tensor, bound: float | None) -> Certificate:
    rate = outward(_constant(here, radius, bound)).expand(len(here.z))
    reach = outward(here.residual + here.rounding)
    holds = (rate < 1) & (reach <= (1 - rate) * radius * (1 - 1e-15))
    found = torch.where(holds, outward(reach / (1 - rate)), torch.inf)
    lacks = "on the ball either M is not below 1, or ||P(x) - x|| exceeds (1 - M) r"
    texts = ("a contraction on a ball around x, which P maps into itself", here.lacks(lacks))
    return claimed(holds, found, rate, radius, texts, "ball")


def _constant(here: Point, radius: Tensor, bound: float | None) -> Tensor:
    if bound is None:
        plain_norm(here.eq)
        return here.followed(radius).bound.two
    lam = torch.as_tensor(here.eq.lam, dtype=torch.float64, device=here.z.device)
    return (lam.detach().abs() * bound).reshape(-1)
