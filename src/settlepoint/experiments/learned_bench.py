"""The rows of the target table on learned solvers: training, applying a step, and its memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.experiments.measuring import cpu_seconds
from settlepoint.experiments.plain_losses import Loss, Trained, adam, chandrasekhar, linear, van_der_pol
from settlepoint.learn import Adam, Fit, LevenbergMarquardt, Trainer, fit
from settlepoint.problems import Batch, Chandrasekhar, Family, LinearFamily, SmallSystems, VanDerPol
from settlepoint.runs import generator_from
from settlepoint.solvers import R2N2

EPOCHS = 25_000
"""Of Adam, in the paper."""

_PILOT = 300  # epochs of our own Adam, to see whether it is faster than the plain loop


Measure = Callable[[int], tuple[float, float]]


@dataclass(frozen=True)
class Lesson:
    """A training problem of the paper: samples of the family, so many iterations of `stages`, and the plain loss.

    few: the same trainer with as many starts as it takes to come below Adam's loss.
    """

    family: Family
    stages: int
    iterations: int
    samples: int
    trainer: LevenbergMarquardt
    few: LevenbergMarquardt
    loss: Callable[[Batch], Loss]


_QUICK = LevenbergMarquardt(iterations=60, keep=0.25, trial=8)

LESSONS: Mapping[str, Lesson] = {
    "linear": Lesson(LinearFamily(), 4, 3, 500, LevenbergMarquardt(), LevenbergMarquardt(1), linear),
    "H-equation": Lesson(Chandrasekhar(), 3, 2, 1002, _QUICK, replace(_QUICK, starts=2, keep=1.0), chandrasekhar),
    "van der Pol": Lesson(VanDerPol(), 3, 1, 500, LevenbergMarquardt(), LevenbergMarquardt(), van_der_pol),
}


def samples(name: str) -> Batch:
    """The problems of a lesson, of which fit takes the first 70 %."""
    lesson = LESSONS[name]
    return lesson.family.sample(lesson.samples, generator_from("bench", "training", name))


def taught(name: str, trainer: Trainer) -> Fit:
    """One training by fit."""
    lesson = LESSONS[name]
    return fit(R2N2(lesson.stages), lesson.family, lesson.iterations, trainer=trainer, samples=samples(name))


@cache
def ours(name: str, *, few: bool = False) -> Trained:
    """Levenberg-Marquardt from 12 starts, or from few; the faster of two."""
    lesson, seconds, loss = LESSONS[name], float("inf"), float("nan")
    for _ in range(2):
        begin = time.process_time()
        loss = taught(name, lesson.few if few else lesson.trainer).loss
        seconds = min(seconds, time.process_time() - begin)
    return Trained(seconds, loss)


@cache
def peer(name: str) -> Trained:
    """25,000 epochs of Adam on one start in a plain loop; its seconds by our Adam where that is faster."""
    lesson = LESSONS[name]
    train, _ = samples(name).split()
    loss, theta = lesson.loss(train), R2N2(lesson.stages).theta
    adam(loss, theta, 20)
    found = adam(loss, theta, EPOCHS)
    begin = time.process_time()
    taught(name, Adam(epochs=_PILOT))
    own = (time.process_time() - begin) * EPOCHS / _PILOT
    return Trained(min(found.seconds, own), found.loss)


def training(name: str) -> Measure:
    """CPU seconds of our training; of the peer's."""
    return lambda repeats: (ours(name).seconds, peer(name).seconds)


def training_ratio(name: str) -> Measure:
    """The peer's seconds over ours; 0 where our loss is the higher one."""

    def measure(repeats: int) -> tuple[float, float]:
        mine, other = ours(name, few=True), peer(name)
        return (other.seconds / mine.seconds if mine.loss <= other.loss else 0.0), 1.0

    return measure


def training_loss(name: str) -> Measure:
    """The loss that our training came to; the peer's."""
    return lambda repeats: (ours(name).loss, peer(name).loss)


def hand_written(operator: Callable[..., Tensor], context: tuple[Tensor, ...], theta: Tensor) -> Callable[..., Tensor]:
    """One R2N2(3) step with in-place adds, as short as it can be written."""
    a10, a20, a21, b0, b1, b2 = theta.tolist()

    def step(x: Tensor) -> Tensor:
        v0 = operator(x, *context) - x
        u = torch.add(x, v0, alpha=a10)
        v1 = operator(u, *context).sub_(u)
        u = torch.add(x, v0, alpha=a20).add_(v1, alpha=a21)
        v2 = operator(u, *context).sub_(u)
        return torch.add(x, v0, alpha=b0).add_(v1, alpha=b1).add_(v2, alpha=b2)

    return step


def applied(repeats: int) -> tuple[float, float]:
    """Our step over the same by hand, 10,000 systems of 20 unknowns; the latter under torch.compile over it beside."""
    batch = SmallSystems().sample(10_000, generator_from("bench", "applied"))
    eq = SmallSystems().equation(batch).at(batch.x0)
    solver, x = R2N2(3, theta=(0.9, 0.5, 0.4, 0.6, 0.5, 0.4)), batch.x0
    by_hand = hand_written(eq.operator, eq.context, solver.theta)  # pyright: ignore[reportArgumentType]
    compiled = torch.compile(by_hand)

    def step() -> Tensor:
        r = eq.flat(x) - x
        return solver.step(eq, x, r, solver.init(eq, x, r))[0]

    with torch.no_grad():
        assert torch.allclose(step(), by_hand(x), rtol=0, atol=1e-12)
        variants: dict[str, Callable[[], object]] = {"ours": step, "hand": lambda: by_hand(x)}
        try:
            compiled(x)
            variants["compiled"] = lambda: compiled(x)
        except Exception:  # torch.compile raises its own kinds where no compiler for C++ is at hand
            pass
        seconds = cpu_seconds(variants, 20 * repeats)
    return seconds["ours"] / seconds["hand"], seconds.get("compiled", float("nan")) / seconds["hand"]


def step_memory(repeats: int) -> tuple[float, float]:
    """Vectors of 10^6 unknowns alive at the peak of a step of R2N2(4), x and the result included; by hand beside it."""
    return _vectors(by_hand=False), _vectors(by_hand=True)


def _vectors(*, by_hand: bool, size: int = 1_000_000) -> float:
    """1 for x, and what torch's profiler sees allocated at the peak."""
    from torch.profiler import ProfilerActivity, profile

    x = torch.linspace(0.1, 0.9, size, dtype=torch.float64)[None]
    _one_step(x, by_hand)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        _one_step(x, by_hand)
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # pyright: ignore
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]  # pyright: ignore
    live = torch.tensor(sizes).cumsum(0)
    return round(1 + float(live.max()) / (8 * size), 3)  # the weights are tensors too, but of no size


def _one_step(x: Tensor, by_hand: bool) -> Tensor:
    operator = lambda x: x * 0.5  # noqa: E731
    theta = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)
    with torch.no_grad():
        if by_hand:
            return _long_hand(operator, x, theta.tolist())
        eq, solver = Equation(operator).at(x), R2N2(4, theta=theta)
        r = eq.flat(x).sub_(x)
        return solver.step(eq, x, r, solver.init(eq, x, r))[0]


def _long_hand(operator: Callable[[Tensor], Tensor], x: Tensor, theta: list[float]) -> Tensor:
    """The same step in a loop with in-place adds."""
    weights, v = iter(theta), [operator(x).sub_(x)]
    for j in range(1, 5):
        u = x.clone()
        for vector in v[:j]:
            u.add_(vector, alpha=next(weights))
        if j == 4:
            return u
        v.append(operator(u).sub_(u))
    raise AssertionError


_ADAM = "25,000 epochs of Adam in a plain loop, one start"

LEARNED: Mapping[str, tuple[Measure, float | None, str, str]] = {
    "training R2N2, linear T=3, CPU s": (training("linear"), 1, _ADAM, "low"),
    "training R2N2, H-equation, CPU s": (training("H-equation"), 5, _ADAM, "low"),
    "training R2N2, van der Pol, 12 starts, CPU s": (training("van der Pol"), 10, _ADAM, "low"),
    "training, Adam / ours in time, linear": (training_ratio("linear"), 100, "parity", "high"),
    "training, Adam / ours in time, H-equation": (training_ratio("H-equation"), 40, "parity", "high"),
    "training, Adam / ours in time, van der Pol": (training_ratio("van der Pol"), 8, "parity", "high"),
    "training, loss, linear": (training_loss("linear"), None, _ADAM, "low"),
    "training, loss, H-equation": (training_loss("H-equation"), None, _ADAM, "low"),
    "training, loss, van der Pol": (training_loss("van der Pol"), None, _ADAM, "low"),
    "learned step / by hand, 10^4 systems of 20": (applied, 1.1, "the hand-written step under torch.compile", "low"),
    "learned step, vectors at 10^6 unknowns, n = 4": (step_memory, 7, "the same with in-place adds", "low"),
}
"""Name to measure, target, peer and the better side. Ratios to Adam are 0 where Adam's loss is lower."""
