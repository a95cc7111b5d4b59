"""What an R2N2 does to every linear equation of a class: its polynomial, and its bound on a spectral interval."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from settlepoint.certify.polynomial import class_rate
from settlepoint.learn.objective import Objective
from settlepoint.problems import Batch, Family
from settlepoint.solvers.r2n2 import R2N2
from settlepoint.solvers.solver import Solver
from settlepoint.solvers.tableaus import Tableau

if TYPE_CHECKING:
    from settlepoint.learn.fit import Fit

_GRID = 129  # points of the interval at which the penalty looks
_TIGHTENED = (10.0, 100.0, 1000.0)  # weights of the penalty that are tried one after the other


def polynomial(solver: Solver) -> Tensor:  # (n + 1,)
    """Coefficients p_0 ... p_n of r_{k+1} = p(J - I) r_k, for P linear with Jacobian J      (R2N2, SM4)

    In the letters of the paper, where f(x) = A x - b: J - I = -A. Differentiable in the weights; h = 1.
    """
    if not isinstance(solver, R2N2) or solver.layer != "evaluation" or solver.carry or solver.per_iteration:
        raise ValueError(
            f"polynomial needs an R2N2 of evaluations without memory or weights per iteration, got {solver!r}"
        )
    a, b = solver.tableau()
    one = torch.zeros(solver.stages + 1, dtype=a.dtype)
    one[0] = 1
    stages = [one]
    for j in range(1, solver.stages):
        stages.append(one + _raised(sum(a[j, i] * stages[i] for i in range(j))))
    return one + _raised(sum(b[i] * stages[i] for i in range(solver.stages)))


def certified_rate(solver: Solver, low: float, high: float) -> float:
    """max |p(t - 1)| over t in [low, high], with p the polynomial.

    |r_{k+1}| <= rate |r_k| for every linear P whose Jacobian is symmetric with its spectrum in the interval; for other
    Jacobians a bound of the spectral radius. Rounded up, by `certify.class_rate`.
    """
    check_interval((low, high))
    p = polynomial(solver).detach()
    return class_rate(p * (-1.0) ** torch.arange(len(p)), 1 - high, 1 - low)


def minimax(stages: int, low: float, high: float) -> R2N2:
    """The R2N2 whose certified_rate on [low, high] is least: 1/T_n((2 - low - high)/(high - low)), T_n Chebyshev's.

    n Richardson steps 1/(1 - mu_i) at the zeros mu_i of T_n on the interval, as one.
    """
    check_interval((low, high))
    zeros = [math.cos(math.pi * (i + 0.5) / stages) for i in range(stages)]
    damping = [1 / (1 - (low + high) / 2 - (high - low) / 2 * t) for t in zeros]
    rows = tuple(tuple(damping[:j]) for j in range(1, stages))
    return R2N2.from_tableau(Tableau(rows, tuple(damping)))


def check_interval(interval: tuple[float, float]) -> None:
    """Refuses intervals on which no method of this kind can contract."""
    low, high = interval
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"interval must hold two finite numbers low < high, got {interval}")
    if low <= 1 <= high:
        raise ValueError(
            f"interval must not hold 1, got {interval}: it is the spectrum of P', so of I - A for P(x) = x - (A x - b)"
        )


def fit_certified(
    solver: Solver,
    family: Family,
    iterations: int,
    objective: Objective,
    batch: Batch,
    interval: tuple[float, float],
    options: dict[str, Any],
) -> Fit:
    """fit under the constraint certified_rate <= half way (in digits) between the least possible and 1.

    By a penalty on a grid, tightened until the bound holds; the minimax weights themselves where it never does.
    """
    from settlepoint.learn.fit import fit  # which calls this

    check_interval(interval)
    polynomial(solver)  # refuses what has none
    assert isinstance(solver, R2N2)
    best = minimax(solver.stages, *interval)
    bound = certified_rate(best, *interval) ** 0.5
    grid = torch.linspace(interval[0], interval[1], _GRID, dtype=torch.float64) - 1
    more = options.pop("penalty")
    found = None
    for weight in _TIGHTENED:

        def penalty(s: Solver, weight: float = weight) -> Tensor:
            over = weight * torch.relu(_at(polynomial(s), grid).abs() - 0.99 * bound)
            return over if more is None else torch.cat((over, more(s).reshape(-1)))

        found = fit(best, family, iterations, objective, samples=batch, penalty=penalty, **options)
        rate = certified_rate(found.solver, *interval)
        if rate <= bound:
            return replace(found, rate=rate)
    assert found is not None
    note = f"no trained weights kept the rate below {bound:.3g} on {interval}: these are the minimax weights"
    return replace(found, solver=best, rate=certified_rate(best, *interval), notes=(note,))


def _raised(p: Any) -> Tensor:
    """t p(t)."""
    return torch.cat((p.new_zeros(1), p[:-1]))


def _at(p: Tensor, t: Tensor) -> Tensor:
    """p(t) by Horner's rule."""
    value = torch.zeros_like(t)
    for coefficient in p.flip(0).unbind():
        value = value * t + coefficient
    return value
