"""A trial: a solver, saved or made by hand, on fresh problems of a family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.learn.fit import generator
from settlepoint.problems import Batch, Family
from settlepoint.solution import Status
from settlepoint.solve import solve
from settlepoint.solvers.solver import Solver
from settlepoint.stop import FixedSteps, Tolerance

_STREAM = 20  # of random numbers; tune draws from others, so that the same seed gives other problems


@dataclass(frozen=True)
class Trial:
    """What came of each problem.

    residual: |P(x) - x|, NaN after a number of steps. error: (n,), distance to the exact solution after the last step,
    for families of form "rhs". good: converged; for that form, finite.
    """

    batch: Batch
    value: Tensor  # (n, m)
    status: list[str]
    residual: Tensor
    evals: Tensor
    good: Tensor
    error: Tensor | None = None


def fresh(family: Family, problems: int, seed: int) -> Batch:
    """Problems that `tune` under the same seed has not seen."""
    return family.sample(problems, generator(seed, _STREAM))


@torch.no_grad()
def trial(solver: Solver, family: Family, batch: Batch, limit: int, tolerance: float = 1e-8) -> Trial:
    """Solves the problems to the tolerance in at most limit steps; of form "rhs", takes limit steps of size h and
    measures the error.
    """
    stepping = family.form == "rhs"
    stop = FixedSteps(limit) if stepping else Tolerance(atol=tolerance, max_steps=limit)
    found = solve(family.equation(batch), batch.x0, solver, stop)
    assert isinstance(found.value, Tensor)
    status = [Status(code).name for code in found.status.tolist()]
    if not stepping:
        return Trial(batch, found.value, status, found.residual, found.evals, found.converged)
    error = (found.value - family.trajectory(batch, limit)[:, -1]).norm(dim=1)
    return Trial(batch, found.value, status, found.residual, found.evals, torch.isfinite(error), error)
