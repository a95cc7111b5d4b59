"""`examine`: everything that can be said of how a user's model iterates, from one subject."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint import (
    Anderson,
    Broyden,
    Equation,
    FixedSteps,
    NewtonKrylov,
    Picard,
    Solution,
    Solver,
    Tolerance,
    certify,
    solve,
)
from settlepoint.certify import Certificate, Posed, Refused, Subject, Verdict
from settlepoint.certify.following import refuse_training
from settlepoint.certify.point import Point

Say = Callable[[str, int, int], None]  # what is at work, how many are done, of how many

RTOL = {torch.float32: 1e-5, torch.float64: 1e-9}
"""What rows are solved to where nothing is asked for, relative to ||P(x)||; other dtypes take 1e-2."""

MAX_STEPS = 2000
_GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_ALIKE = 1e-3  # relative change of a score, or of the state, that counts as none
_NEAR = 3e-2  # relative change of the state that is let pass where the score stays
_STEPS = 7


@dataclass(frozen=True)
class Raced:
    """One solver on the rows: how many converged, evaluations a row (mean, 95th percentile), CPU seconds."""

    name: str
    converged: int
    mean: float
    p95: float
    seconds: float


@dataclass(frozen=True)
class Grade:
    """One tolerance: evaluations to it, the score there, and how far the state is from that of the tightest."""

    rtol: float
    p95: float
    score: float
    change: float


@dataclass(frozen=True)
class Examination:
    """What `settle check` found.

    posed: the equation and the model's own solver. solution: by that solver to the tolerance. best: by the recommended
    one, which rates and certificates speak of. rates: name to one value a row (R,). grades: tolerances from coarse to
    fine. rtol, iterations: what is recommended. told: what could not be said, and why.
    """

    name: str
    posed: Posed
    solution: Solution
    best: Solution
    verdict: Verdict
    certificate: Certificate
    rates: dict[str, Tensor]
    race: list[Raced]
    grades: list[Grade]
    recommended: Raced
    tolerance: Tolerance
    rtol: float
    iterations: int
    excluded: Tensor | None
    drift: Tensor | None
    told: tuple[str, ...]


def examine(
    subject: Subject,
    *,
    tolerance: float | None = None,
    depth: int | None = None,
    rows: int = 256,
    say: Say | None = None,
) -> Examination:
    """Solve, race, certify and judge a subject on at most so many of its rows.

    tolerance: relative, on ||P(x) - x|| against ||P(x)||. depth: of training, instead of the subject's own. Raises
    `Refused` for operators in training, that are random, or whose rows depend on each other; other parts that have no
    answer are told in `told`.
    """
    report = say or (lambda what, done, of: None)
    refuse_training(subject.model)
    report("the first pass", 0, _STEPS)
    posed = subject.posed()
    posed = replace(posed, depth=depth or posed.depth)
    with torch.no_grad():
        eq, x0 = restricted(posed.eq, posed.x0, rows)
        Point.at(eq, x0)
        stop = Tolerance(0.0, tolerance or RTOL.get(_first(x0).dtype, 1e-2), max_steps=MAX_STEPS)
        report("the model's own solver", 1, _STEPS)
        solution = solve(eq, x0, posed.solver, stop)
        report("the race of solvers", 2, _STEPS)
        race, best = _race(eq, x0, posed.solver, solution, stop)
        report("behind the depth of training", 3, _STEPS)
        score = None if (scored := posed.score) is None else lambda steps: scored(FixedSteps(steps))
        verdict = certify.verdict(eq, x0, posed.depth, posed.solver, score=score)
        report("rates", 4, _STEPS)
        rates, told = _rates(eq, x0, best, verdict)
        report("certificates", 5, _STEPS)
        certificate = certify.certificate(eq, best)
        excluded, drift = _without(eq, x0, best)
        report("tolerances", 6, _STEPS)
        grades = _grades(posed, eq, x0, race[0], stop)
    rtol, iterations = _advice(grades)
    return Examination(
        subject.name, posed, solution, best, verdict, certificate, rates, race, grades, race[0], stop, rtol, iterations,
        excluded, drift, told,
    )  # fmt: skip


def restricted(
    eq: Equation, x0: Tensor | tuple[Tensor, ...], rows: int
) -> tuple[Equation, Tensor | tuple[Tensor, ...]]:
    """The first rows of an equation, where there are more and it can be restricted to some."""
    bound = eq.at(x0)
    assert bound.layout is not None
    if bound.layout.rows <= rows or not bound.selectable or bound.layout.slots is not None:
        return eq, x0
    index = torch.arange(rows, device=_first(x0).device)
    part = bound.rows(index)
    return replace(part, layout=None), part.layout.restore(bound.layout.flatten(x0)[:rows])  # pyright: ignore[reportOptionalMemberAccess]


def _first(x: Tensor | tuple[Tensor, ...]) -> Tensor:
    return x[0] if isinstance(x, tuple) else x


def _race(
    eq: Equation, x0: Tensor | tuple[Tensor, ...], own: Solver, solution: Solution, stop: Tolerance
) -> tuple[list[Raced], Solution]:
    """All solvers from the same start to the same tolerance, the best first: most rows, then fewest evaluations."""
    contenders = {f"own: {own!r}": own} | {
        repr(s): s for s in (Picard(), Picard(0.5), Anderson(5), Broyden(), NewtonKrylov())
    }
    found: list[tuple[Raced, Solution]] = []
    for name, solver in contenders.items():
        begin = time.process_time()
        answer = solve(eq, x0, solver, stop)
        found.append((_raced(name, answer, time.process_time() - begin), answer))
    found.sort(key=lambda pair: (-pair[0].converged, pair[0].mean))
    return [entry for entry, _ in found], found[0][1]


def _raced(name: str, answer: Solution, seconds: float) -> Raced:
    evals = answer.evals.double()[answer.converged]
    if not len(evals):
        return Raced(name, 0, math.inf, math.inf, seconds)
    return Raced(name, len(evals), float(evals.mean()), float(torch.quantile(evals, 0.95)), seconds)


def _rates(
    eq: Equation, x0: Tensor | tuple[Tensor, ...], best: Solution, verdict: Verdict
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The factor a step from the trace, from the Jacobian, and from the iterates."""
    rates = {"from the trace": verdict.rate}
    told: list[str] = []
    try:
        rates["spectral radius"] = certify.spectral_radius(eq, best.value).double().cpu()
    except (Refused, RuntimeError) as error:
        told.append(f"spectral radius: {error}")
    on_the_way = solve(eq, x0, Picard(), FixedSteps(max(1, verdict.depth // 2))).value
    rates["Koopman"] = certify.koopman_rate(eq, on_the_way).double().cpu()
    return rates, tuple(told)


def _without(eq: Equation, x0: Tensor | tuple[Tensor, ...], best: Solution) -> tuple[Tensor | None, Tensor | None]:
    """Where no row converged: how far the nearest fixed point must be, and how far every point is moved."""
    if bool(best.converged.any()):
        return None, None
    try:
        excluded = certify.exclusion_radius(eq, best.value)
    except Refused:
        excluded = None
    drift = certify.displacement(eq, x0, 400)
    return excluded, drift.size if bool(drift.moved.all()) else None


def _grades(
    posed: Posed, eq: Equation, x0: Tensor | tuple[Tensor, ...], recommended: Raced, tightest: Tolerance
) -> list[Grade]:
    """From coarse tolerances to the tightest: the evaluations, and what they buy."""
    solver = next(s for s in (posed.solver, Picard(), Picard(0.5), Anderson(5), Broyden(), NewtonKrylov())
                  if recommended.name in (f"own: {s!r}", repr(s)))  # fmt: skip
    bound = eq.at(x0)
    assert bound.layout is not None
    answers = []
    for rtol in (*(r for r in _GRID if r > tightest.rtol), tightest.rtol):
        answer = solve(eq, x0, solver, replace(tightest, rtol=rtol))
        answers.append((rtol, answer, bound.layout.flatten(answer.value)))
    last = answers[-1][2]
    size = bound.measure(last).clamp(min=torch.finfo(torch.float64).tiny)
    found = []
    for rtol, answer, z in answers:
        change = (bound.measure(z - last) / size)[answer.converged]
        evals = answer.evals.double()[answer.converged]
        p95 = float(torch.quantile(evals, 0.95)) if len(evals) else math.inf
        score = math.nan if posed.score is None else posed.score(replace(tightest, rtol=rtol))
        found.append(Grade(rtol, p95, score, float(change.quantile(0.95)) if len(change) else math.inf))
    return found


def _advice(grades: list[Grade]) -> tuple[float, int]:
    """The loosest tolerance at which nothing that counts changes any more, and the evaluations of 95 % of the rows."""
    last = grades[-1]

    def good(g: Grade) -> bool:
        scored = math.isfinite(last.score) and abs(g.score - last.score) <= _ALIKE * max(abs(last.score), _ALIKE)
        return g.change <= (_NEAR if scored else _ALIKE)

    chosen = next((g for i, g in enumerate(grades) if all(map(good, grades[i:]))), last)
    return chosen.rtol, int(chosen.p95) if math.isfinite(chosen.p95) else 0
