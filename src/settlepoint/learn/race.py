"""A race: solvers on the same problems, each problem solved to the same tolerance, everything counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from settlepoint.problems import Batch, Family
from settlepoint.solution import SolveError
from settlepoint.solve import solve
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Tolerance


@dataclass(frozen=True)
class Contender:
    """name: in tables. kind: "classical" or "learned". training: seconds that its weights took."""

    name: str
    solver: Solver
    kind: str = "classical"
    training: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Entry:
    """What one contender did. evals: (n,) float, operator calls of every problem, inf where it was not solved."""

    contender: Contender
    evals: Tensor
    seconds: float
    note: str = ""

    @property
    def failures(self) -> int:
        """Problems not solved."""
        return int(torch.isinf(self.evals).sum())

    @property
    def mean(self) -> float:
        """Mean evaluations of the solved problems; inf without any."""
        solved = self.evals[torch.isfinite(self.evals)]
        return float(solved.mean()) if len(solved) else float("inf")

    def quantile(self, q: float) -> float:
        """Quantile of the evaluations, failures counted as inf: the smallest value that a share q does not exceed."""
        return float(self.evals.sort().values[min(len(self.evals) - 1, int(q * len(self.evals)))])

    def score(self, by: str) -> tuple[int, float]:
        """Less is better: failures first."""
        return self.failures, self.mean if by == "evaluations" else self.seconds

    def cumulative(self, most: int = 100) -> list[list[float]]:
        """[evaluations, share of the problems solved with as many or fewer], ascending, at most so many points."""
        counts, problems = self.evals[torch.isfinite(self.evals)].unique(return_counts=True)
        share = problems.cumsum(0).double() / len(self.evals)
        keep = torch.linspace(0, len(counts) - 1, min(most, len(counts))).round().long()
        return torch.stack((counts[keep], share[keep]), 1).tolist()

    def row(self) -> dict[str, Any]:
        """The entry as a line of a table."""
        return {
            "name": self.contender.name, "kind": self.contender.kind, "mean": self.mean,
            "median": self.quantile(0.5), "p90": self.quantile(0.9), "worst": self.quantile(1.0),
            "failures": self.failures, "problems": len(self.evals), "seconds": self.seconds,
            "training_seconds": self.contender.training, "cumulative": self.cumulative(),
            "note": "; ".join(n for n in (self.contender.note, self.note) if n),
        }  # fmt: skip


def race(contenders: Sequence[Contender], family: Family, batch: Batch, stop: Tolerance) -> list[Entry]:
    """Every contender on all problems of the batch, the best of two runs for the clock.

    One that raises is entered as failing everywhere, with its message; if all raise, the first error is raised.
    """
    entries, errors = [], []
    for contender in contenders:
        try:
            entries.append(run(contender, family, batch, stop))
        except (RuntimeError, ValueError, TypeError, ArithmeticError, SolveError) as error:
            errors.append(error)
            nothing = torch.full((len(batch),), torch.inf, dtype=torch.float64)
            entries.append(Entry(contender, nothing, float("inf"), f"{type(error).__name__}: {str(error)[:200]}"))
    if contenders and len(errors) == len(contenders):
        raise errors[0]
    return entries


@torch.no_grad()
def run(contender: Contender, family: Family, batch: Batch, stop: Tolerance) -> Entry:
    """One contender on all problems of the batch.

    Evaluations are those of the method: the check that gathering rows is safe, which the driver makes once, is made in
    the first of two runs, and counts in its seconds alone.
    """
    eq, compact, seconds = family.equation(batch), "auto", float("inf")
    for _ in range(2):
        begin = time.process_time()
        solution = solve(eq, batch.x0, contender.solver, stop, compact=compact)
        seconds = min(seconds, time.process_time() - begin)
        compact = not any(note.startswith("compaction off") for note in solution.notes)
    evals = torch.where(solution.converged, solution.evals.double(), torch.inf)  # pyright: ignore
    return Entry(contender, evals.cpu(), seconds)  # pyright: ignore[reportPossiblyUnboundVariable]
