"""What a solve gives back: a value, and for every row how good it is."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from torch import Tensor

from settlepoint.spaces import State


class Status(IntEnum):
    """How the search of one row ended. `advice` says what to do next."""

    CONVERGED = 0
    COMPLETED = 1
    MAX_STEPS = 2
    STALLED = 3
    CYCLING = 4
    DIVERGED = 5
    NONFINITE = 6
    NO_FIXED_POINT = 7

    @property
    def advice(self) -> str:
        """One sentence: what this status means for the reader."""
        return _ADVICE[self]


_ADVICE = {
    Status.CONVERGED: "The residual of the returned value is within the tolerance.",
    Status.COMPLETED: "All asked steps were taken; ask for a Tolerance, or check=True, to learn the residual.",
    Status.MAX_STEPS: "Still on its way: raise max_steps, warm-start from this value, or take a faster solver.",
    Status.STALLED: "No further progress is possible here: loosen atol, or solve in float64.",
    Status.CYCLING: "The iterates repeat: use damping, Halpern or Anderson.",
    Status.DIVERGED: "The iterates run away: use damping, NewtonKrylov, or shrink lam below 1/Lipschitz.",
    Status.NONFINITE: "NaN or Inf appeared; the value is the best iterate before it: check the operator and x0.",
    Status.NO_FIXED_POINT: "The operator moves every point by about `displacement`: there is nothing to settle on.",
}


@dataclass(frozen=True)
class Trace:
    """Course of a solve, one line a look at the residual.

    residual: (K, R), NaN where a row had finished; evals: (K, R), operator evaluations a row had taken part in by then.
    """

    residual: Tensor
    evals: Tensor


@dataclass
class Gradient:
    """Report of a backward solve, filled in while `backward` runs; empty before.

    adjoint: its repr. status, residual, evals: (R,), of the last solve of v = J^T v + g, residual relative to ||v||.
    solves: number of linear solves done.
    """

    adjoint: str = ""
    status: Tensor | None = None
    residual: Tensor | None = None
    evals: Tensor | None = None
    solves: int = 0


@dataclass(frozen=True)
class Solution:
    """Answer of `solve`.

    value: like x0; for a row that did not converge its best finite iterate. status, steps, evals, residual: (R,).
    residual: ||P(x) - x|| of the value, undamped; NaN where it was not measured. steps: iterations taken, each
    one evaluation. evals: all operator calls the row took part in, Jacobian-vector products and line searches included.
    work: row-evaluations really executed for the whole batch. displacement: like x0, for NO_FIXED_POINT rows.
    notes: what the solve wants known (why compaction was off, what Auto chose). gradient: the backward report.
    state: final solver state, for warm starts of solves with compact=False.
    """

    value: State
    status: Tensor
    steps: Tensor
    evals: Tensor
    work: int
    residual: Tensor
    trace: Trace | None = None
    notes: tuple[str, ...] = ()
    gradient: Gradient = field(default_factory=Gradient)
    displacement: State | None = None
    state: Any = None

    @property
    def converged(self) -> Tensor:  # (R,) bool
        """Which rows converged."""
        return self.status == int(Status.CONVERGED)

    def counts(self) -> dict[str, int]:
        """Number of rows of every status that occurs."""
        codes = self.status.tolist()
        return {s.name: codes.count(s) for s in Status if s in codes}

    def require(self) -> "Solution":
        """This solution if every row is CONVERGED or COMPLETED; SolveError naming the first row that is not."""
        bad = (self.status > int(Status.COMPLETED)).nonzero().flatten().tolist()
        if bad:
            row = bad[0]
            status = Status(int(self.status[row]))
            raise SolveError(
                f"{len(bad)} of {len(self.status)} rows did not converge; row {row} is {status.name} after "
                f"{int(self.evals[row])} evaluations with residual {float(self.residual[row]):.3g}. {status.advice}",
                self,
            )
        return self

    def detach(self) -> "Solution":
        """The same report without a graph, solver state or gradients."""
        strip = lambda x: tuple(t.detach() for t in x) if isinstance(x, tuple) else x.detach()  # noqa: E731
        moved = None if self.displacement is None else strip(self.displacement)
        return Solution(
            strip(self.value), self.status, self.steps, self.evals, self.work, self.residual.detach(), self.trace,
            self.notes, self.gradient, moved,
        )  # fmt: skip


class SolveError(RuntimeError):
    """A solve did not give what was asked; `solution` holds all that was computed before."""

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


class GradientWarning(UserWarning):
    """The backward equation missed its tolerance, so gradients are less exact than asked."""
