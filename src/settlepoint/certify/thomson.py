"""Contractions in Thomson's metric: maps of the positive cone that are subhomogeneous."""

from __future__ import annotations

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, Refused, claimed
from settlepoint.certify.jacobian import jacobians
from settlepoint.certify.point import Point, attempt
from settlepoint.certify.rounding import outward
from settlepoint.equation import Equation
from settlepoint.spaces import State


def thomson_distance(a: Tensor, b: Tensor) -> Tensor:  # (R, W), (R, W) -> (R,)
    """d(a, b) = max_i |log a_i - log b_i| of positive vectors."""
    return (a.log() - b.log()).abs().amax(1)


def thomson(eq: Equation, x: State, degree: float) -> Certificate:
    """From d(P(x), P(y)) <= mu d(x, y) for all positive x, y, with mu = degree < 1, in Thomson's metric d.

    So contract monotone maps with P(s x) >= s^mu P(x) for 0 < s < 1, and differentiable ones of the positive cone with
    sum_j |dP_i/dx_j| x_j <= mu P_i(x); the second needs |W|, so a positive mu-subhomogeneous activation of W x + b
    qualifies when W >= 0 and b >= 0, not for any W: s = tanh + 1.2 has |s'(z) z| <= .9993 s(z), but x = s(W x) with
    W = [[a, -a], [-a, a]] and large a has three positive fixed points. degree: taken as proved; see `subhomogeneity`.
    Claims existence and uniqueness among positive x, and |x_i - x*_i| <= x_i (exp(d(x, P(x)) / (1 - mu)) - 1). No
    bound of W is needed: this is a contraction in a metric in which ||W|| plays no part.
    """
    if not 0 <= degree:
        raise ValueError(f"degree must be >= 0, got {degree}")

    def claim(here: Point) -> Certificate:
        z, image = here.z.double(), here.image.double()
        positive = (z > 0).all(1) & (image > 0).all(1)
        safe = lambda v: torch.where(v > 0, v, 1.0)  # noqa: E731
        loss = here.rounding[:, None] / safe(image)
        distance = ((safe(z).log() - safe(image).log()).abs() + loss).amax(1)
        reach = outward(distance / (1 - degree)) if degree < 1 else torch.full_like(distance, torch.inf)
        radius = outward(torch.linalg.vector_norm(z, dim=1) * torch.expm1(reach), 4 * z.shape[1])
        rate = torch.full_like(radius, degree)
        holds = positive & (rate < 1) & torch.isfinite(radius)
        texts = (
            f"a contraction of rate {degree:g} in Thomson's metric, for all positive x",
            f"the value or its image is not positive, or the degree {degree:g} is not below 1",
        )
        return claimed(holds, radius, rate, torch.full_like(radius, torch.inf), texts, "thomson")

    return attempt("thomson", eq, x, claim)


@torch.no_grad()
def subhomogeneity(eq: Equation, x: State) -> Tensor:  # (R,)
    """max_i sum_j |dP_i/dx_j| x_j / P_i at x: the rate in Thomson's metric there, an estimate for elsewhere."""
    here = Point.at(eq, x)
    z, image = here.z.double(), here.image.double()
    if not bool((z > 0).all() & (image > 0).all()):
        raise Refused("Thomson's metric is one of positive values; the value or its image is not")
    J = jacobians(here.eq, here.z).double().abs()
    return ((J @ z[:, :, None])[:, :, 0] / image).amax(1)
