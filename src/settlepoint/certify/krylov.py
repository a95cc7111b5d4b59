"""An estimate at the point for any number of unknowns: the next Newton step, from a few products with the Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor

from settlepoint.certify.certificate import ESTIMATED, Certificate, claimed
from settlepoint.certify.jacobian import counted
from settlepoint.certify.point import Point, attempt
from settlepoint.equation import Equation
from settlepoint.spaces import State

_SOLVED = 0.1  # share of the residual that the linear model may leave
_SINGULAR = 1e-8  # ||A d|| / ||d|| at which I - J counts as singular


@torch.no_grad()
def newton_krylov(eq: Equation, x: State, steps: int = 60) -> Certificate:
    """||(I - J)^{-1} (P(x) - x)||, the length of the next Newton step, by GMRES: never a proof.

    Twice that length is claimed, which covers terms of second order and what the linear solve leaves. It assumes that
    the Krylov space of the residual sees the directions in which I - J is small, and that P bends little on the way;
    rows where GMRES leaves more than a tenth of the residual after `steps` products are refused. Products are
    differences of values, one evaluation each. No existence, no uniqueness. rate: an estimate of the spectral radius of
    J from the same space.
    """

    counted(steps)

    def claim(here: Point) -> Certificate:
        defect = _above_rounding(here)
        step, left, rate, floor = _gmres(here, defect, steps)
        length = torch.linalg.vector_norm(step, dim=1)
        solved = left <= _SOLVED * torch.linalg.vector_norm(defect, dim=1)
        radius = 2 * length + here.rounding / floor.clamp(min=_SINGULAR)
        holds = solved & torch.isfinite(radius) & (floor > _SINGULAR) & _lessens(here, step)
        texts = (
            "twice the next Newton step; curvature is not bounded, so this is no proof",
            here.lacks(f"{steps} products with the Jacobian did not solve for a Newton step that lessens the residual"),
        )
        return claimed(holds, radius, rate, torch.zeros_like(radius), texts, "newton-krylov", kind=ESTIMATED)

    return attempt("newton-krylov", eq, x, claim)


def _lessens(here: Point, step: Tensor) -> Tensor:  # (R,) bool
    """Whether the step halves the residual, as a Newton step near a fixed point does, or rounding hides it."""
    there = here.moved(step.to(here.z.dtype))
    return there.residual <= 0.5 * here.residual + 2 * (here.rounding + there.rounding)


def _above_rounding(here: Point) -> Tensor:
    """P(x) - x, or where that is rounding alone a random vector of the size of rounding, which it may hide."""
    r = (here.image - here.z).double()
    noise = torch.randn(r.shape, dtype=r.dtype, generator=torch.Generator().manual_seed(0)).to(r)
    noise = noise / torch.linalg.vector_norm(noise, dim=1, keepdim=True) * here.rounding[:, None]
    return torch.where((here.residual > here.rounding)[:, None] | ~torch.isfinite(r), r, noise)


def _gmres(here: Point, r: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """d with (I - J) d = r, what is left, the spectral radius seen, and the smallest ||(I - J) v|| / ||v|| seen."""
    rows, width = r.shape
    size = torch.linalg.vector_norm(r, dim=1, keepdim=True)
    basis = [torch.where(size > 0, r / torch.where(size > 0, size, 1.0), 0.0).nan_to_num()]
    count = min(steps, width)
    H = r.new_zeros(rows, count + 1, count)
    target = torch.zeros(rows, count + 1, 1, dtype=r.dtype, device=r.device)
    target[:, 0] = size.nan_to_num()
    done = 0
    for j in range(count):
        ended = ~basis[j].any(1)  # the space is complete: what follows must neither solve nor look singular
        w = basis[j] - _pushed(here, basis[j])
        for _ in range(2):
            for i, q in enumerate(basis):
                h = (q * w).sum(1)
                H[:, i, j] += h
                w = w - h[:, None] * q
        norm = torch.linalg.vector_norm(w, dim=1)
        H[:, j, j] = torch.where(ended, 1.0, H[:, j, j])
        H[:, j + 1, j] = norm
        basis.append(torch.where(norm[:, None] > 1e-7, w / norm.clamp(min=1e-300)[:, None], 0.0))
        done = j + 1
        if done % 4 == 0 or done == count:
            left = _left(H[:, : done + 1, :done], target[:, : done + 1])[1]
            if bool(((left <= _SOLVED * size[:, 0]) | ~torch.isfinite(size[:, 0])).all()):
                break
    if not done:
        one = torch.ones(rows, dtype=r.dtype, device=r.device)
        return 0 * r, size[:, 0], 0 * one, one
    H = H[:, : done + 1, :done].nan_to_num()
    weights, left = _left(H, target[:, : done + 1])
    inner = torch.eye(done, dtype=r.dtype, device=r.device) - H[:, :done]
    floor = torch.linalg.svdvals(H)[:, -1]
    step = (torch.stack(basis[:done], 2) @ weights[:, :, None])[:, :, 0]
    return step, left, torch.linalg.eigvals(inner).abs().amax(1), floor


def _left(H: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """argmin |target - H y| and the smallest norm."""
    y = torch.linalg.lstsq(H.nan_to_num(), target, driver="gelsd").solution
    return y[:, :, 0], torch.linalg.vector_norm((target - H.nan_to_num() @ y)[:, :, 0], dim=1)


def _pushed(here: Point, v: Tensor) -> Tensor:
    """J v as a difference of values."""
    eps = torch.finfo(here.z.dtype).eps
    h = (eps**0.5 * (1 + torch.linalg.vector_norm(here.z.double(), dim=1)))[:, None]
    moved = here.eq.flat(here.z + h.to(here.z.dtype) * v.to(here.z.dtype))
    return (moved - here.image).double() / h
