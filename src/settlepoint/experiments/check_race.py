"""Solvers on the rows of one equation under one tolerance, and what finer tolerances buy: two parts of `examine`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from settlepoint import Anderson, Broyden, Equation, NewtonKrylov, Picard, Solution, Solver, Tolerance, solve
from settlepoint.spaces import State

CONTENDERS: dict[str, Solver] = {
    "Picard()": Picard(),
    "Picard(0.5)": Picard(0.5),
    "Anderson(5)": Anderson(5),
    "Broyden()": Broyden(),
    "NewtonKrylov()": NewtonKrylov(),
}
"""Who races beside the model's own solver, as one would write it."""

OWN = "own: "
_GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_ALIKE = 1e-3  # relative change of a score, or of the state, that counts as none
_NEAR = 3e-2  # relative change of the state that is let pass where the score stays


@dataclass(frozen=True)
class Raced:
    """One solver on the rows: how many converged, evaluations a row (mean, 95th percentile), CPU seconds.

    raised: what the operator raised under this solver; then no row counts as converged.
    """

    name: str
    converged: int
    mean: float
    p95: float
    seconds: float
    raised: str = ""


@dataclass(frozen=True)
class Ran:
    """A contender: its solver, its row of the table, and its answer, None where the operator raised."""

    solver: Solver
    entry: Raced
    answer: Solution | None


@dataclass(frozen=True)
class Grade:
    """One tolerance: evaluations to it, the score there, and how far the state is from that of the tightest."""

    rtol: float
    p95: float
    score: float
    change: float
    seconds: float = 0.0


def race(eq: Equation, x0: State, own: Solver, stop: Tolerance) -> tuple[Ran, list[Ran]]:
    """The model's own solver, and all from the same start to the same tolerance, the best first.

    Most rows count first, then the fewest evaluations. The own solver may raise what the operator raises; under the
    others, which may ask more of the operator, such as a derivative, it is told.
    """
    known = {repr(solver): name for name, solver in CONTENDERS.items()}
    first = _run(OWN + known.get(repr(own), repr(own)), own, eq, x0, stop)
    found = [first]
    for name, solver in CONTENDERS.items():
        if repr(solver) != repr(own):
            found.append(_attempt(name, solver, eq, x0, stop))
    return first, sorted(found, key=lambda ran: (-ran.entry.converged, ran.entry.mean))


def _run(name: str, solver: Solver, eq: Equation, x0: State, stop: Tolerance) -> Ran:
    begin = time.process_time()
    answer = solve(eq, x0, solver, stop)
    seconds = time.process_time() - begin
    evals = answer.evals.double()[answer.converged]
    if not len(evals):
        return Ran(solver, Raced(name, 0, math.inf, math.inf, seconds), answer)
    mean, p95 = float(evals.mean()), float(torch.quantile(evals, 0.95))
    return Ran(solver, Raced(name, len(evals), mean, p95, seconds), answer)


def _attempt(name: str, solver: Solver, eq: Equation, x0: State, stop: Tolerance) -> Ran:
    begin = time.process_time()
    try:
        return _run(name, solver, eq, x0, stop)
    except Exception as error:  # whatever an operator raises where a derivative is asked of it
        cause = error.__cause__ or error
        told = f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
        return Ran(solver, Raced(name, 0, math.inf, math.inf, time.process_time() - begin, told), None)


def grades(
    winner: Ran, eq: Equation, x0: State, tightest: Tolerance, score: Callable[[Tolerance], float] | None
) -> list[Grade]:
    """From coarse tolerances to the tightest by the winner's solver: the evaluations, and what they buy.

    score: of the task at a tolerance.
    """
    bound = eq.at(x0)
    assert bound.layout is not None
    answers = []
    for rtol in (*(r for r in _GRID if r > tightest.rtol), tightest.rtol):
        begin = time.process_time()
        answer = solve(eq, x0, winner.solver, replace(tightest, rtol=rtol))
        answers.append((rtol, answer, bound.layout.flatten(answer.value), time.process_time() - begin))
    last = answers[-1][2]
    size = bound.measure(last).clamp(min=torch.finfo(torch.float64).tiny)
    found = []
    for rtol, answer, z, seconds in answers:
        change = (bound.measure(z - last) / size)[answer.converged]
        evals = answer.evals.double()[answer.converged]
        p95 = float(torch.quantile(evals, 0.95)) if len(evals) else math.inf
        worth = math.nan if score is None else score(replace(tightest, rtol=rtol))
        far = float(change.quantile(0.95)) if len(change) else math.inf
        found.append(Grade(rtol, p95, worth, far, seconds))
    return found


def loosest(found: list[Grade]) -> tuple[float, int]:
    """The loosest tolerance at which nothing that counts changes any more, and evaluations that suffice 95 % of rows.

    What counts is the score, as long as the state is not far off, or where there is none the state.

        >>> loosest([Grade(1e-1, 3.0, 90.0, 0.5), Grade(1e-2, 5.0, 97.0, 0.02), Grade(1e-3, 8.2, 97.0, 0.0)])
        (0.01, 5)
    """
    last = found[-1]

    def good(g: Grade) -> bool:
        scored = math.isfinite(last.score) and abs(g.score - last.score) <= _ALIKE * max(abs(last.score), _ALIKE)
        return g.change <= (_NEAR if scored else _ALIKE)

    chosen = next((g for i, g in enumerate(found) if all(map(good, found[i:]))), last)
    return chosen.rtol, math.ceil(chosen.p95) if math.isfinite(chosen.p95) else 0
