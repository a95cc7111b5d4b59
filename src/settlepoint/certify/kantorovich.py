"""A proof at the point: existence, uniqueness nearby and an error radius from one Jacobian, whatever its norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, Refused, claimed, stacked
from settlepoint.certify.jacobian import differentiable
from settlepoint.certify.newton import Newton, Radii
from settlepoint.certify.point import Point, attempt, plain_norm
from settlepoint.equation import Equation
from settlepoint.spaces import State

LARGEST = 500
"""Unknowns a row up to which Jacobians are inverted."""

_BALLS = (math.inf, 1e-1, 1e-3, 1e-5, 1e-7)
"""Where a bound of the curvature is looked for: everywhere, then in balls of these radii times (1 + ||x||)."""

_TIGHT = (2.1, 1.001)  # times the length of the Newton step: balls that may end before the next kink
_NEWTON_STEPS = 3  # towards a fixed point, in rows that have no proof where they are


@torch.no_grad()
def kantorovich(eq: Equation, x: State, curvature: float | None = None) -> Certificate:
    """The Newton map N(y) = y + B (P(y) - y), with B a float64 inverse of I - J at x, contracts near x.

    With Y = ||B (P(x) - x)||, Z = ||I - B (I - J)||, and K the Lipschitz constant of P', on the ball of radius r

        ||N(x) - x|| <= Y,   ||N'|| <= Z + ||B|| K r,

    so that every r with Y + Z r + ||B|| K r^2 / 2 <= r and Z + ||B|| K r < 1 holds exactly one fixed point of N, which
    is one of P, since Z < 1 makes B invertible (Kantorovich 1948, in the form of radii polynomials: Day, Lessard and
    Mischaikow 2007). J need not be small in any norm, and B is the adapted one. radius: the smallest such r. unique_in:
    the largest. Rows that are too far from a fixed point are tried again a few Newton steps on, and the way is added
    to the radius. rate: a bound on the spectral radius of J, at which Picard's iteration contracts near x in a norm
    that is adapted to J; it may exceed 1 where there is a fixed point that Picard does not find.

    curvature: K of P on the whole space, taken as proved; by default K is worked out of what the operator is made of,
    on the whole space or, where it has none, on balls around x (`curvature_upper`). Dense: W products with J and W^3 a
    row, for up to 500 unknowns.
    """

    if curvature is not None and not (math.isfinite(curvature) and curvature >= 0):
        raise ValueError(f"curvature must be a finite number >= 0, got {curvature}")

    def claim(here: Point) -> Certificate:
        plain_norm(here.eq)
        rows, width = here.z.shape
        if width > LARGEST:
            raise Refused(f"{width} unknowns a row; a dense inverse is made for up to {LARGEST}")
        size = max(1, _BLOCK // max(1, width * width)) if here.eq.selectable else max(1, rows)
        blocks = torch.arange(rows, device=here.z.device).split(size)
        return stacked([_block(here.rows(index), curvature) for index in blocks])

    return attempt("kantorovich", eq, x, claim)


def _block(here: Point, curvature: float | None) -> Certificate:
    """Rows whose Jacobians are held at the same time."""
    smooth = differentiable(here.eq, here.z, here.image, here.unit)
    newton = Newton.at(here)
    radii = _nearer(here, newton, _radii(here, newton, curvature), curvature)
    texts = (_TEXT, _lacks(smooth, newton, here))
    return claimed(smooth & radii.holds, radii.small, newton.rate, radii.large, texts, "kantorovich")


_BLOCK = 10_000_000  # entries of the Jacobians that are held at the same time
_TEXT = "a Newton map contracts on a ball around the value (float64, rounded outward)"


def _nearer(here: Point, newton: Newton, radii: Radii, curvature: float | None) -> Radii:
    """The radii, where a row has none, as they are seen from here some Newton steps on."""
    start, direction = here, newton.direction
    index = torch.arange(len(here.z), device=here.z.device)
    for _ in range(_NEWTON_STEPS):
        left = ~radii.holds[index] & torch.isfinite(direction).all(1)
        if not bool(left.any()):
            break
        chosen = left.nonzero()[:, 0] if here.eq.selectable else torch.arange(len(left), device=left.device)
        index, here, start = index[chosen], here.rows(chosen), start.rows(chosen)
        here = here.moved((direction[chosen]).to(here.z.dtype))
        newton = Newton.at(here)
        direction = newton.direction
        distance = torch.linalg.vector_norm(here.z.double() - start.z.double(), dim=1)
        found = _radii(here, newton, curvature).seen_from(distance)
        kept = Radii(radii.small[index], radii.large[index], radii.holds[index])
        radii = radii.put(index, kept.or_else(found))
    return radii


def _radii(here: Point, newton: Newton, curvature: float | None) -> Radii:
    """With curvature from the structure of P: on the whole space, then on smaller and smaller balls."""
    if curvature is not None:
        return Radii.allowed(newton, curvature)
    rows, refusal, known = len(here.z), None, False
    found, scale = Radii.none(rows, here.z), 1 + here.eq.measure(here.z).nan_to_num(nan=0.0, posinf=0.0)
    near = newton.step / (1 - newton.defect).clamp(min=1e-9)
    tight = [torch.where(torch.isfinite(near), factor * near, scale) for factor in _TIGHT]
    for ball in (*(size * scale for size in _BALLS), *tight):
        try:
            bend = here.followed(ball).bound.bend.expand(rows)
        except Refused as error:
            refusal = error
            continue
        known = True
        found = found.or_else(Radii.allowed(newton, bend, ball))
        if bool(found.holds.all()):
            break
    if refusal is not None and not known:
        raise refusal
    return found


def _lacks(smooth: Tensor, newton: Newton, here: Point) -> list[str]:
    """Why a row has no proof."""
    texts = (
        "the derivative by autograd is not that of the values: does the operator detach, round, sort or branch?",
        "the value is not finite",
        "1 is an eigenvalue of J to rounding: fixed points may touch or form a line here",
        "no fixed point is near enough for the curvature of P; solve to a smaller tolerance",
    )
    finite = torch.isfinite(here.residual)
    which = torch.where(~finite, 1, torch.where(~smooth, 0, torch.where(newton.defect < 1, 3, 2)))
    return [texts[k] for k in which.tolist()]
