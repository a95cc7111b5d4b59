"""A proof at the point: existence, uniqueness nearby and an error radius from one Jacobian, whatever its norm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.certify.banach import followed
from settlepoint.certify.certificate import Certificate, Refused, claimed
from settlepoint.certify.jacobian import differentiable, jacobians, power_bound
from settlepoint.certify.rounding import Point, attempt, outward, plain_norm
from settlepoint.equation import Equation
from settlepoint.spaces import State

LARGEST = 500
"""Unknowns a row up to which Jacobians are inverted."""

_BALLS = (math.inf, 1e-1, 1e-3, 1e-5, 1e-7)
"""Where a bound of the curvature is looked for: everywhere, then in balls of these radii times (1 + ||x||)."""


@torch.no_grad()
def kantorovich(eq: Equation, x: State, curvature: float | None = None) -> Certificate:
    """The Newton map N(y) = y + B (P(y) - y), with B a float64 inverse of I - J at x, contracts near x.

    With Y = ||B (P(x) - x)||, Z = ||I - B (I - J)||, and K the Lipschitz constant of P', on the ball of radius r

        ||N(x) - x|| <= Y,   ||N'|| <= Z + ||B|| K r,

    so that every r with Y + Z r + ||B|| K r^2 / 2 <= r and Z + ||B|| K r < 1 holds exactly one fixed point of N, which
    is one of P, since Z < 1 makes B invertible (Kantorovich 1948, in the form of radii polynomials: Day, Lessard and
    Mischaikow 2007). J need not be small in any norm, and B is the adapted one. radius: the smallest such r. unique_in:
    the largest. rate: a bound on the spectral radius of J, at which Picard's iteration contracts near x in a norm that
    is adapted to J; it may exceed 1 where there is a fixed point that Picard does not find.

    curvature: K of P on the whole space, taken as proved; by default K is worked out of what the operator is made of,
    on the whole space or, where it has none, on balls around x (`curvature_upper`). Dense: W products with J and W^3 a
    row, for up to 500 unknowns.
    """

    def claim(here: Point) -> Certificate:
        plain_norm(here.eq)
        if here.z.shape[1] > LARGEST:
            raise Refused(f"{here.z.shape[1]} unknowns a row; a dense inverse is made for up to {LARGEST}")
        smooth = differentiable(here.eq, here.z, here.image)
        newton = Newton.at(here)
        radii = given(newton, curvature) if curvature is not None else worked_out(here, newton)
        holds = smooth & radii.holds
        return claimed(
            holds, radii.small, newton.rate, radii.large, (_TEXT, _lacks(smooth, newton, radii)), "kantorovich"
        )

    return attempt("kantorovich", eq, x, claim)


_TEXT = "a Newton map contracts on a ball around the value (float64, rounded outward)"


@dataclass(frozen=True)
class Newton:
    """The Newton map at a point, each (R,): Y, Z, ||B||, and a bound on the spectral radius of J."""

    step: Tensor
    defect: Tensor
    size: Tensor
    rate: Tensor

    @classmethod
    def at(cls, here: Point) -> Newton:
        """From a dense Jacobian and its inverse."""
        width = here.z.shape[1]
        eps, unit = torch.finfo(torch.float64).eps, torch.finfo(here.z.dtype).eps
        J = jacobians(here.eq, here.z).double()
        eye = torch.eye(width, dtype=torch.float64, device=J.device)
        A = eye - J
        B, trouble = torch.linalg.inv_ex(A)
        size = outward(_norm(B), 4 * width)
        r = here.image.double() - here.z.double()
        step = torch.linalg.vector_norm((B @ r[:, :, None])[:, :, 0], dim=1)
        step = outward(step + size * (here.rounding + 4 * width * eps * here.residual), 4 * width)
        left = _norm(eye - B @ A)
        defect = outward(left + size * _norm(A) * (4 * width * eps + 8 * unit * width**0.5), 4 * width)
        defect = torch.where((trouble == 0) & torch.isfinite(step), defect, torch.inf)
        return cls(step, defect, size, power_bound(J.nan_to_num()))


def _norm(A: Tensor) -> Tensor:  # (R, W, W) -> (R,)
    """||A||_2 from above, without singular values."""
    mixed = (
        (A.abs().sum(1).amax(1, keepdim=False) * A.abs().sum(2).amax(1)).sqrt() if A.shape[1] else A.new_zeros(len(A))
    )
    return torch.minimum(torch.linalg.matrix_norm(A), mixed)


@dataclass(frozen=True)
class Radii:
    """Smallest and largest r that the radii polynomial allows, and where there is one, each (R,)."""

    small: Tensor
    large: Tensor
    holds: Tensor

    def or_else(self, other: Radii) -> Radii:
        """Row by row the one that holds, with the smaller radius and the larger ball of uniqueness."""
        both = self.holds & other.holds
        small = torch.where(
            both, torch.minimum(self.small, other.small), torch.where(other.holds, other.small, self.small)
        )
        large = torch.where(
            both, torch.maximum(self.large, other.large), torch.where(other.holds, other.large, self.large)
        )
        return Radii(small, large, self.holds | other.holds)


def given(newton: Newton, curvature: Tensor | float, ball: Tensor | float = torch.inf) -> Radii:
    """The radii within a ball on which the Lipschitz constant of P' is known."""
    ball = torch.as_tensor(ball, dtype=torch.float64, device=newton.step.device)
    bend = outward(newton.size * torch.as_tensor(curvature, dtype=torch.float64, device=newton.size.device), 4)
    gap = 1 - newton.defect
    inside = gap**2 - 2 * bend * newton.step
    root = inside.clamp(min=0).sqrt()
    small = outward(2 * newton.step / (gap + root))
    large = torch.where(bend > 0, gap / torch.where(bend > 0, bend, 1.0) * (1 - 1e-14), torch.inf)
    large = torch.minimum(large, ball)
    holds = (gap > 0) & (inside > 0) & torch.isfinite(small) & torch.isfinite(bend) & (small < large)
    return Radii(small, large, holds)


def worked_out(here: Point, newton: Newton) -> Radii:
    """With curvature from the structure of P: on the whole space, then on smaller and smaller balls."""
    rows = len(here.z)
    none = torch.full((rows,), torch.inf, dtype=torch.float64, device=here.z.device)
    found, why = Radii(none, 0 * newton.step, torch.zeros_like(none, dtype=torch.bool)), None
    scale = 1 + here.eq.measure(here.z)
    for size in _BALLS:
        ball = (size * scale).nan_to_num(posinf=torch.inf)
        try:
            bend = followed(here, ball).bound.bend.expand(rows)
        except Refused as error:
            why = error
            continue
        found = found.or_else(given(newton, bend, ball))
        if bool(found.holds.all()) and math.isfinite(size) | (float(size) == math.inf):
            return found
        why = None if why is None else why
    if why is not None and not bool(found.holds.any()):
        raise why
    return found


def _lacks(smooth: Tensor, newton: Newton, radii: Radii) -> list[str]:
    """Why a row has no proof."""
    texts = {
        0: "the derivative by autograd is not that of the values: does the operator detach, round, sort or branch?",
        1: "1 is an eigenvalue of J to rounding: fixed points may touch or form a line here",
        2: "the value is too far from a fixed point for the curvature of P; solve to a smaller tolerance",
    }
    which = torch.where(~smooth, 0, torch.where(newton.defect < 1, 2, 1))
    return [texts[k] for k in which.tolist()]
