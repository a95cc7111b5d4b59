"""`examine`: everything that can be said of how a user's model iterates, from one subject."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from settlepoint import Equation, FixedSteps, Picard, Solution, SolveError, Tolerance, certify, solve
from settlepoint.certify import Certificate, Posed, Refused, Subject, Verdict
from settlepoint.certify.following import refuse_training
from settlepoint.certify.jacobian import differentiable
from settlepoint.certify.point import Point
from settlepoint.experiments.check_race import OWN, Grade, Raced, Ran, grades, loosest, race
from settlepoint.spaces import State

Say = Callable[[str, int, int], None]  # what is at work, how many are done, of how many

RTOL = {torch.float32: 1e-5, torch.float64: 1e-9}
"""What rows are solved to where nothing is asked for, relative to ||P(x)||; other dtypes take 1e-2."""

MAX_STEPS = 2000
_STEPS = 6


@dataclass(frozen=True)
class Examination:
    """What `settle check` found.

    posed: the equation and the model's own solver. solution: by that solver to the tolerance. best: by the recommended
    one, which rates and certificates speak of. rates: name to one value a row (R,). grades: tolerances from coarse to
    fine. rtol, iterations: what is recommended. excluded, drift: where no row converged, how near no fixed point can
    be, and how far every point is moved. told: what could not be said, and why. seconds: CPU seconds by part.
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
    tolerance: Tolerance
    rtol: float
    iterations: int
    excluded: Tensor | None
    drift: Tensor | None
    told: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def recommended(self) -> Raced:
        """The best of the race."""
        return self.race[0]

    @property
    def own(self) -> Raced:
        """The model's own solver in the race."""
        return next(entry for entry in self.race if entry.name.startswith(OWN))


def examine(
    subject: Subject,
    *,
    tolerance: float | None = None,
    depth: int | None = None,
    rows: int = 256,
    say: Say | None = None,
) -> Examination:
    """Solve, race, certify and judge a subject on at most so many of its rows.

    tolerance: relative, on ||P(x) - x|| against ||P(x)||, in (0, 1). depth: of training, instead of the subject's own.
    Raises `Refused` for operators in training, that are random, or whose rows depend on each other, and ValueError
    for models that raise; other parts that have no answer are told in `told`.
    """
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance is relative and must lie in (0, 1), got {tolerance}")
    watch = _Watch(say or (lambda what, done, of: None))
    with torch.no_grad():
        try:
            return _examined(subject, tolerance, depth, rows, watch)
        except SolveError as error:
            raise ValueError(f"the model raised {error.__cause__!r}") from error.__cause__


def _examined(subject: Subject, tolerance: float | None, depth: int | None, rows: int, watch: _Watch) -> Examination:
    watch.begin("the first pass")
    posed, eq, x0 = _first_pass(subject, rows)
    posed = replace(posed, depth=depth or posed.depth)
    stop = Tolerance(0.0, tolerance or RTOL.get(_first(x0).dtype.to_real(), 1e-2), max_steps=MAX_STEPS)
    watch.begin("the race of solvers")
    own, ran = race(eq, x0, posed.solver, stop)
    assert own.answer is not None
    best = ran[0].answer or own.answer
    watch.begin("behind the depth of training")
    score = None if (scored := posed.score) is None else lambda steps: scored(FixedSteps(steps))
    verdict = certify.verdict(eq, x0, posed.depth, posed.solver, score=score)
    watch.begin("rates")
    rates, told = _rates(eq, x0, best, verdict)
    watch.begin("certificates")
    certificate = certify.certificate(eq, best)
    excluded, drift = (None, None) if bool(best.converged.any()) else _without(eq, x0, best)
    watch.begin("tolerances")
    settled = bool(own.answer.converged.all())
    buys = grades(ran[0], eq, x0, stop, posed.score if settled else None)
    rtol, iterations = loosest(buys)
    watch.end()
    return Examination(
        subject.name, posed, own.answer, best, verdict, certificate, rates, [r.entry for r in ran], buys, stop, rtol,
        iterations, excluded, drift, (*told, *_raised(ran)), watch.seconds,
    )  # fmt: skip


class _Watch:
    """Says what is at work, and keeps the CPU seconds of every part."""

    def __init__(self, say: Say):
        self.say, self.seconds, self._part, self._since = say, dict[str, float](), "", 0.0

    def begin(self, part: str) -> None:
        self.end()
        self.say(part, len(self.seconds), _STEPS)
        self._part, self._since = part, time.process_time()

    def end(self) -> None:
        if self._part:
            self.seconds[self._part] = time.process_time() - self._since


def _first_pass(subject: Subject, rows: int) -> tuple[Posed, Equation, State]:
    """The subject as an equation on some of its rows; refuses what could not be examined."""
    refuse_training(subject.model)
    try:
        posed = subject.posed()
        eq, x0 = restricted(posed.eq, posed.x0, rows)
        layout = eq.at(x0).layout
        assert layout is not None
        if not layout.rows or not _first(x0).numel():
            raise ValueError(f"inputs must hold at least one sample, got a state of shape {tuple(_first(x0).shape)}")
        Point.at(eq, x0)
    except (ValueError, TypeError):  # in our words already
        raise
    except Exception as error:
        told = (str(error).splitlines() or [""])[0]
        raise ValueError(f"the model raised {type(error).__name__}: {told}") from error
    return posed, eq, x0


def restricted(eq: Equation, x0: State, rows: int) -> tuple[Equation, State]:
    """The first rows of an equation, where there are more and it can be restricted to some."""
    bound = eq.at(x0)
    assert bound.layout is not None
    if bound.layout.rows <= rows or not bound.selectable or bound.layout.slots is not None:
        return eq, x0
    part = bound.rows(torch.arange(rows, device=_first(x0).device))
    assert part.layout is not None
    return replace(part, layout=None), part.layout.restore(bound.layout.flatten(x0)[:rows])


def _first(x: State) -> Tensor:
    return x[0] if isinstance(x, tuple) else x


def _raised(ran: list[Ran]) -> list[str]:
    return [f"{r.entry.name} could not be run: {r.entry.raised}" for r in ran if r.entry.raised]


def _rates(eq: Equation, x0: State, best: Solution, verdict: Verdict) -> tuple[dict[str, Tensor], list[str]]:
    """The factor a step from the trace, from the Jacobian at the solution, and from iterates on the way."""
    rates, told = {"from the trace": verdict.rate}, list[str]()
    try:
        rates["spectral radius"] = _radius(eq, best)
    except (Refused, RuntimeError) as error:
        told.append(f"spectral radius: {(str(error).splitlines() or [''])[0]}")
    on_the_way = solve(eq, x0, Picard(), FixedSteps(max(1, verdict.depth // 2))).value
    rates["Koopman"] = certify.koopman_rate(eq, on_the_way).double().cpu()
    return rates, told


def _radius(eq: Equation, best: Solution) -> Tensor:
    """Of the Jacobian; NaN in rows where autograd's derivative is not that of the values."""
    here = Point.at(eq, best.value)
    right = differentiable(here.eq, here.z, here.image, here.unit)
    if not bool(right.any()):
        raise Refused("the derivative by autograd is not that of the values: the operator detaches, rounds or branches")
    radius = certify.spectral_radius(eq, best.value).double()
    return torch.where(right, radius, torch.nan).cpu()


def _without(eq: Equation, x0: State, best: Solution) -> tuple[Tensor | None, Tensor | None]:
    """How near the nearest fixed point can be, and how far every point is moved."""
    try:
        excluded = certify.exclusion_radius(eq, best.value).cpu()
    except Refused:
        excluded = None
    drift = certify.displacement(eq, x0, 400)
    return excluded, drift.size.cpu() if bool(drift.moved.all()) else None
