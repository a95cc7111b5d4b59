"""The one outer loop of the library.

Every solve, forward or backward, classical or learned, runs through `iterate`: it evaluates P, measures the true
residual, lets `Progress` judge, and asks the solver for a step. Rows that have finished are frozen, and gathered
away when what they waste would pay for it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.outcome import OperatorError, Outcome, Start, evaluate
from settlepoint.search import Search
from settlepoint.solution import Status, Trace
from settlepoint.solvers.solver import Solver, State, Stateless
from settlepoint.stop import FixedSteps, Stop, Tolerance


def iterate(
    eq: Equation,
    z: Tensor,  # (R, W)
    solver: Solver,
    stop: Stop,
    *,
    trace: bool = False,
    compact: str | bool = "auto",
    state: State | None = None,
    warm: State | None = None,
) -> Outcome:
    """Step from z until stop says so. eq is bound (`Equation.at`).

    state: continues an interrupted iteration of these rows exactly. warm: the last state of a solve of a similar
    equation.
    """
    start = Start(solver, state, warm)
    if isinstance(stop, FixedSteps):
        return _fixed(eq, z, start, stop, trace=trace)
    assert isinstance(stop, Tolerance)
    return Search(eq, z, start, stop, trace=trace, compact=compact).run()


def _fixed(eq: Equation, z: Tensor, start: Start, stop: FixedSteps, *, trace: bool) -> Outcome:
    steps = stop.drawn()
    if isinstance(steps, Tensor) and len(steps) != len(z):
        raise ValueError(f"steps must hold one count for each of the {len(z)} rows, got {len(steps)}")
    total = steps if isinstance(steps, int) else int(steps.max()) if len(steps) else 0
    march = _March(eq, z, start, [] if trace else None)
    for k in range(total):
        march.step(None if isinstance(steps, int) else steps > k)
    outcome = march.outcome(steps)
    if stop.check:
        residual = march.guarded(lambda: eq.norm((evaluate(eq, march.z) - march.z).detach()))
        outcome.residual, outcome.evals, outcome.work = residual, outcome.evals + 1, outcome.work + len(z)
        outcome.status = torch.where(torch.isfinite(residual), outcome.status, int(Status.NONFINITE))
    return outcome


@dataclass
class _March:
    """A solve by number of steps under way: the iterate, the solver's state, and what was counted."""

    eq: Equation
    z: Tensor
    start: Start
    seen: list | None
    state: State | None = None
    steps: int = 0
    evaluated: int = 0
    extra: int = 0
    extra_rows: Tensor | None = None

    def step(self, moving: Tensor | None) -> None:
        """One evaluation and one step; rows that are not moving stay."""
        eq, z = self.eq, self.z
        image = self.guarded(lambda: evaluate(eq, z))
        self.evaluated += 1
        moved, extra = self._moved(z, image)
        moved = moved if eq.layout is None else eq.layout.settle(moved)
        self.z = moved if moving is None else torch.where(moving[:, None], moved, z)
        self.steps += 1
        if isinstance(extra, Tensor):
            self.extra_rows = extra if self.extra_rows is None else self.extra_rows + extra
        else:
            self.extra += extra

    def _moved(self, z: Tensor, image: Tensor) -> tuple[Tensor, int | Tensor]:
        """The next iterate, and the operator calls that the solver made for it."""
        solver = self.start.solver
        blended = solver.blend(z, image) if self.seen is None else None
        if blended is not None:
            self.state = Stateless()
            return blended, 0
        r = image - z
        if self.seen is not None:
            self.seen.append((self.eq.norm(r.detach()), self.evaluated + self.extra, self.extra_rows))
        state = self.start.init(self.eq, z, r) if self.state is None else self.state
        moved, self.state, extra = self.guarded(lambda: solver.step(self.eq, z, r, state))
        return moved, extra

    def guarded(self, call: Callable):
        """call(), so that an operator that raises loses nothing that was computed before."""
        try:
            return call()
        except Exception as error:
            if not self.evaluated:
                raise
            outcome = self.outcome(self.steps)
            outcome.status = torch.full_like(outcome.status, int(Status.MAX_STEPS))
            raise OperatorError(outcome, self.evaluated + 1) from error

    def outcome(self, steps: int | Tensor) -> Outcome:
        """What the steps so far have come to."""
        z = self.z
        count = lambda n: z.new_full((len(z),), n, dtype=torch.int64)  # noqa: E731
        taken = steps if isinstance(steps, Tensor) else count(steps)
        spent = count(self.evaluated + self.extra)
        work = len(z) * (self.evaluated + self.extra)
        if self.extra_rows is not None:
            spent, work = spent + self.extra_rows, work + int(self.extra_rows.sum())
        nan = z.detach().new_full((len(z),), float("nan"))
        trace = None if self.seen is None else _fixed_trace(self.seen, z)
        return Outcome(z, count(int(Status.COMPLETED)), taken, spent, nan, taken, work, trace, state=self.state)


def _fixed_trace(norms: list, z: Tensor) -> Trace:
    if not norms:
        return Trace(z.new_zeros((0, len(z))), z.new_zeros((0, len(z)), dtype=torch.int64))
    evals = [z.new_full((len(z),), n, dtype=torch.int64) + (0 if e is None else e) for _, n, e in norms]
    return Trace(torch.stack([n for n, _, _ in norms]), torch.stack(evals))
