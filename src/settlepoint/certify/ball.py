"""Theorem 3 of the first paper, corrected: a contraction on a ball that maps the ball into itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from settlepoint.certify.banach import followed
from settlepoint.certify.certificate import Certificate, claimed
from settlepoint.certify.rounding import Point, attempt, outward, plain_norm
from settlepoint.equation import Equation
from settlepoint.spaces import State


def ball(eq: Equation, x: State, radius: float, bound: float | None = None) -> Certificate:
    """Exactly one fixed point in B(x, r), when M < 1 there and ||P(x) - x|| <= (1 - M) r.

    bound: a Lipschitz constant of T on the ball of radius r around x, taken as proved, so that M = |lam| bound; by
    default M of P is worked out on that ball (`lipschitz_upper` with a region). At x = f this is Theorem 3 with the
    condition that it lacks: |lam| ||T(f)|| <= (1 - |lam| M) r. Without it the statement is false: T(y) = y^3, lam = .3,
    f = .9 has lam M = .9 on B(f, .1) and runs away. The radius claimed is ||P(x) - x|| / (1 - M) <= r.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius must be a finite number > 0, got {radius}")
    if bound is not None and not bound >= 0:
        raise ValueError(f"bound must be >= 0, got {bound}")

    def claim(here: Point) -> Certificate:
        rate = outward(_constant(here, radius, bound)).expand(len(here.z))
        reach = outward(here.residual + here.rounding)
        holds = (rate < 1) & (reach <= (1 - rate) * radius * (1 - 1e-15))
        found = torch.where(holds, outward(reach / (1 - rate)), torch.inf)
        texts = (
            f"a contraction on the ball of radius {radius:g}, which P maps into itself",
            f"on the ball of radius {radius:g} either M is not below 1, or ||P(x) - x|| exceeds (1 - M) r",
        )
        return claimed(holds, found, rate, torch.full_like(found, radius), texts, "ball")

    return attempt("ball", eq, x, claim)


def _constant(here: Point, radius: float, bound: float | None) -> Tensor:
    if bound is None:
        plain_norm(here.eq)
        return followed(here, radius).bound.two
    lam = torch.as_tensor(here.eq.lam, dtype=torch.float64, device=here.z.device)
    return (lam.detach().abs() * bound).reshape(-1)
