"""Banach's fixed-point theorem with a constant for the whole space: distances from residuals, counts of iterations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, claimed
from settlepoint.certify.point import Point, attempt, plain_norm
from settlepoint.certify.rounding import outward
from settlepoint.equation import Equation
from settlepoint.spaces import State


def contraction_bound(residual: Tensor, rate: Tensor | float, rounding: Tensor | float = 0.0) -> Tensor:
    """||x - x*|| <= (||P(x) - x|| + delta) / (1 - rate)        (Banach, a posteriori; Theorem 2, with <=)

    residual, rate, rounding (delta, the error of an evaluation), result: (R,), in the norm of the space, rounded
    outward. rate >= 1 gives inf: no claim. Raises ValueError for a negative rate.
    """
    rate = torch.as_tensor(rate, dtype=torch.float64, device=residual.device)
    if bool((rate < 0).any()):
        raise ValueError(f"rate must be >= 0, got {float(rate.min())}")
    bound = outward((residual.double() + rounding) / (1 - rate))
    return torch.where(rate < 1, bound, torch.inf)


def after_step(step: Tensor, rate: Tensor | float, rounding: Tensor | float = 0.0) -> Tensor:
    """||u_n - u*|| <= rate / (1 - rate) ||u_n - u_{n-1}|| + delta / (1 - rate)        (Theorem 2, in floating point)

    step: ||u_n - u_{n-1}|| of an undamped iteration (R,). rate >= 1 gives inf. Raises ValueError for a negative rate.
    """
    rate = torch.as_tensor(rate, dtype=torch.float64, device=step.device)
    if bool((rate < 0).any()):
        raise ValueError(f"rate must be >= 0, got {float(rate.min())}")
    bound = outward((rate * step.double() + rounding) / (1 - rate))
    return torch.where(rate < 1, bound, torch.inf)


def steps_needed(first: Tensor, lam: Tensor | float, k: float, tolerance: float) -> Tensor:  # (R,) int64
    """nu = min {n : |lam| (|lam| k)^n ||T(f)|| < tolerance}        (Theorem 1, with the factor lam that it drops)

    first: ||T(f)|| (R,), with x_0 = f, so that ||x_{n+1} - x_n|| <= |lam| (|lam| k)^n ||T(f)||. k: a Lipschitz constant
    of T. Raises ValueError unless |lam| k < 1, which alone the theorem covers.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be a finite number > 0, got {tolerance}")
    if not k >= 0:
        raise ValueError(f"k must be >= 0, got {k}")
    size = torch.as_tensor(lam, dtype=torch.float64).abs()
    rate = size * k
    if not bool((rate < 1).all()):
        raise ValueError(f"|lam| k must lie below 1, got {float(rate.max())}: Theorem 1 covers nothing else")
    start = (size * first).double()
    n = torch.floor((tolerance / start).log() / rate.log().clamp(max=-1e-300)) + 1
    n = torch.where(start < tolerance, 0.0, torch.where(rate > 0, n, 1.0))
    return n.to(torch.int64)


def distance_after(first: Tensor, lam: Tensor | float, k: float, n: int) -> Tensor:  # (R,)
    """||x_n - x*|| <= (|lam| k)^n / (1 - |lam| k) |lam| ||T(f)||        (Theorem 1, corrected), rounded outward."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError(f"n must be an integer >= 0, got {n!r}")
    if not k >= 0:
        raise ValueError(f"k must be >= 0, got {k}")
    size = torch.as_tensor(lam, dtype=torch.float64).abs()
    rate = size * k
    bound = outward(rate**n / (1 - rate) * size * first.double())
    return torch.where(rate < 1, bound, torch.inf)


def banach(eq: Equation, x: State, bound: float | None = None) -> Certificate:
    """From the true residual at x and a constant of P on the whole space, in the 2-norm.

    bound: a Lipschitz constant of T, taken as proved; by default it is worked out of what the operator is made of
    (`lipschitz_upper`). Claims existence, uniqueness everywhere, and ||x - x*|| <= (||P(x) - x|| + delta) / (1 - L).
    """

    def claim(here: Point) -> Certificate:
        if bound is None:
            plain_norm(here.eq)
            rate = here.followed().bound.two
        else:
            rate = _given(here, bound)
        rate = outward(rate).expand(len(here.z))
        radius = contraction_bound(here.residual, rate, here.rounding)
        text = f"L = {float(rate.max()) if len(rate) else 0.0:.6g} in the 2-norm"
        texts = (f"{text}, for all x", here.lacks(f"{text} is not below 1: no contraction of the whole space"))
        holds = (rate < 1) & torch.isfinite(radius)
        return claimed(holds, radius, rate, torch.full_like(radius, torch.inf), texts, "banach")

    return attempt("banach", eq, x, claim)


def _given(here: Point, bound: float) -> Tensor:
    if not (math.isfinite(bound) and bound >= 0):
        raise ValueError(f"bound must be a finite number >= 0, got {bound}")
    return (torch.as_tensor(here.eq.lam, dtype=torch.float64, device=here.z.device).detach().abs() * bound).reshape(-1)
