"""The guard: how closely a learned solver is watched, calibrated on problems that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.learn.race import Contender, Entry, run
from settlepoint.problems import Batch, Family
from settlepoint.solvers import FirstStep, Safeguarded
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Tolerance

_SETTINGS = ((1.0, 1), (1.0, 2), (2.0, 5), (10.0, 10), (1000.0, 50))  # growth and patience, strictest first


@dataclass(frozen=True)
class Cost:
    """What a guarded solver costs beside the runner-up, problem by problem.

    within: share of the problems with at most max(1.1 e, e + one learned step) evaluations, e the runner-up's; close:
    share with at most 1.1 e; excess: the most evaluations above the first bound. Problems that neither solves count as
    within; those that the guarded solver alone fails do not.
    """

    within: float
    close: float
    excess: float

    def row(self) -> dict[str, float]:
        """As JSON."""
        return {"within": self.within, "close": self.close, "excess": self.excess}


def cost(guarded: Tensor, runner_up: Tensor, step: int) -> Cost:  # (n,), (n,): evaluations, inf where not solved
    """The bound of `tune` checked on every problem; step: evaluations of one learned step."""
    bound = torch.maximum(1.1 * runner_up, runner_up + step)
    over = torch.where(torch.isinf(bound), 0.0, guarded - bound)
    share = lambda good: float(good.double().mean())  # noqa: E731
    return Cost(
        share(over <= 0), share((guarded <= 1.1 * runner_up) | torch.isinf(runner_up)), float(over.max().clamp(min=0))
    )


def guarded(learned: Contender, runner_up: Entry, family: Family, batch: Batch, stop: Tolerance) -> tuple[Entry, Cost]:
    """Safeguarded(learned, runner-up) with the watch that keeps the bound best here: its race here, and its cost.

    Among equals the strictest; the loosest for a first step before the runner-up itself, which goes back on its own and
    is the runner-up from there on.
    """
    best: tuple[tuple[float, float, float], Entry, Cost] | None = None
    for growth, patience in _SETTINGS[-1:] if goes_back(learned, runner_up) else _SETTINGS:
        solver = Safeguarded(learned.solver, runner_up.contender.solver, growth, patience)
        contender = Contender(f"guarded {learned.name}", solver, "learned", learned.training)
        entry = run(contender, family, batch, stop)
        found = cost(entry.evals, runner_up.evals, calls(learned.solver))
        rank = (entry.failures - found.within, -found.close, entry.mean)
        if best is None or rank < best[0]:
            best = rank, entry, found
    assert best is not None
    return best[1], best[2]


def goes_back(learned: Contender, runner_up: Entry) -> bool:
    """Whether the learned solver is a first step before the runner-up itself, to which it goes back exactly."""
    solver = learned.solver
    return isinstance(solver, FirstStep) and repr(solver.solver) == repr(runner_up.contender.solver)


def calls(solver: Solver) -> int:
    """Evaluations of one step."""
    return 1 + solver.calls
