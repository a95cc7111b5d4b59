"""The one outer loop of the library.

Every solve, forward or backward, classical or learned, runs through `iterate`: it evaluates P, measures the true
residual, lets `Progress` judge, and asks the solver for a step. Rows that have finished are frozen, and gathered
away when what they waste would pay for it.
"""

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.outcome import OperatorError, Outcome, Start, evaluate
from settlepoint.search import Search
from settlepoint.solution import Status, Trace
from settlepoint.solvers.solver import Solver, State
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
    total = int(steps.max()) if isinstance(steps, Tensor) and len(steps) else steps if isinstance(steps, int) else 0
    rows, extra_int, extra_rows, norms, state = len(z), 0, None, [], None
    for k in range(total):
        try:
            r = evaluate(eq, z) - z
        except Exception as error:
            if not k:
                raise
            raise OperatorError(_fixed_outcome(z, k, k + extra_int, extra_rows), k + 1) from error
        if trace:
            norms.append((eq.norm(r.detach()), k + 1 + extra_int, extra_rows))
        state = start.init(eq, z, r) if state is None else state
        moved, state, extra = start.solver.step(eq, z, r, state)
        moved = moved if eq.layout is None else eq.layout.settle(moved)
        z = torch.where((steps > k)[:, None], moved, z) if isinstance(steps, Tensor) else moved
        if isinstance(extra, Tensor):
            extra_rows = extra if extra_rows is None else extra_rows + extra
        else:
            extra_int += extra
    outcome = _fixed_outcome(z, steps, total + extra_int, extra_rows)
    outcome.work = rows * (total + extra_int) + (0 if extra_rows is None else int(extra_rows.sum()))
    outcome.state = state
    if stop.check:
        outcome.residual = eq.norm((evaluate(eq, z) - z).detach())
        outcome.evals, outcome.work = outcome.evals + 1, outcome.work + rows
    if trace:
        outcome.trace = _fixed_trace(norms, z)
    return outcome


def _fixed_outcome(z: Tensor, steps: int | Tensor, evals: int, extra: Tensor | None) -> Outcome:
    count = lambda n: z.new_full((len(z),), n, dtype=torch.int64)  # noqa: E731
    taken = steps if isinstance(steps, Tensor) else count(steps)
    spent = count(evals) if extra is None else evals + extra
    nan = z.detach().new_full((len(z),), float("nan"))
    return Outcome(z, count(int(Status.COMPLETED)), taken, spent, nan, taken, 0)


def _fixed_trace(norms: list, z: Tensor) -> Trace:
    if not norms:
        return Trace(z.new_zeros((0, len(z))), z.new_zeros((0, len(z)), dtype=torch.int64))
    evals = [z.new_full((len(z),), n, dtype=torch.int64) + (0 if e is None else e) for _, n, e in norms]
    return Trace(torch.stack([n for n, _, _ in norms]), torch.stack(evals))
