"""The solvers that tune races: the classical ones, and the structures that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.learn.first_guess import fit_first_step, with_reach, within_reach
from settlepoint.learn.fit import fit
from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.objective import Digits, Objective, Residuals
from settlepoint.learn.race import Contender
from settlepoint.problems import Batch, Family
from settlepoint.solvers import R2N2, Aitken, Anderson, Broyden, Chebyshev, FirstStep, NewtonKrylov, Picard
from settlepoint.solvers.solver import Solver

_NUMBERS = 1_000_000  # unknowns times starts that are trained on at once, so that memory stays near a gigabyte


@dataclass(frozen=True)
class Lesson:
    """What is trained on: problems, their solutions (NaN where none was found), tolerance, and the classical winner."""

    family: Family
    batch: Batch
    solution: Tensor
    tolerance: float
    runner_up: Solver
    evaluations: float  # the runner-up's mean
    trainer: LevenbergMarquardt
    seed: int

    def part(self, share: float, starts: int) -> Batch:
        """The first share of the problems, as many as memory allows."""
        most = _NUMBERS // (self.batch.x0.shape[1] * starts)
        return self.batch.rows(slice(max(8, min(round(share * len(self.batch)), most))))


@dataclass(frozen=True)
class Structure:
    """name: in tables. train(lesson, level, solver): solver trained further, at level 0 (a glimpse) to 2 (in full)."""

    name: str
    begin: Callable[[Lesson], Solver]
    train: Callable[[Lesson, int, Solver], Solver]


def classical(family: Family) -> list[Contender]:
    """The classical solvers that make sense for the family."""
    solvers: list[Solver] = [Picard(), Picard(0.5), Aitken(), *(Anderson(d) for d in (1, 2, 3, 5)), Broyden()]
    solvers += [NewtonKrylov(inner=2), NewtonKrylov(inner=4)]
    if family.interval is not None and not family.interval[0] <= 1 <= family.interval[1]:
        solvers.append(Chebyshev(*family.interval))
    return [Contender(short(s), s) for s in solvers]


def short(solver: Solver) -> str:
    """A name for tables: the class, and what tells it from its kin."""
    kind = type(solver).__name__
    match solver:
        case Anderson():
            return f"{kind}({solver.depth})"
        case NewtonKrylov():
            return f"{kind}({solver.inner})"
        case Picard() if solver.damping:
            return f"{kind}(damping={solver.damping})"
        case _:
            return kind


def structures() -> list[Structure]:
    """Everything that may be learned, cheapest to train first."""
    first = [_first_step(degree, context) for context in (False, True) for degree in (1, 2, 3)]
    mixing = [_mixing(depth) for depth in (1, 2, 3)]
    weights = [_weights(stages) for stages in (1, 2, 3, 4)]
    squares = [_squares(stages, carry) for stages in (2, 3) for carry in (0, 2)]
    return [*first, *mixing, *weights, *squares, _both(2, False), _both(2, True)]


def _first_step(degree: int, context: bool) -> Structure:
    name = f"first step of degree {degree}{' with context' if context else ''}"

    def train(lesson: Lesson, level: int, solver: Solver) -> Solver:
        part = lesson.part((0.25, 0.5, 1.0)[level], 1)
        eq = lesson.family.equation(part)
        return fit_first_step(
            lesson.runner_up, eq, part.x0, lesson.solution[: len(part)], degree=degree, context=context
        )

    return Structure(name, lambda lesson: lesson.runner_up, train)


def _mixing(depth: int) -> Structure:
    def begin(lesson: Lesson) -> Solver:
        return R2N2(1, "evaluation", "least_squares", _steps(lesson, 1), carry=depth)

    return Structure(
        f"learned mixing, depth {depth}", begin, lambda lesson, level, s: _fitted(lesson, level, s, 1, True)
    )


def _weights(stages: int) -> Structure:
    def begin(lesson: Lesson) -> Solver:
        return R2N2(stages)

    return Structure(f"R2N2({stages})", begin, lambda lesson, level, s: _fitted(lesson, level, s, stages, False))


def _squares(stages: int, carry: int) -> Structure:
    def begin(lesson: Lesson) -> Solver:
        return R2N2(stages, "evaluation", "least_squares", carry=carry)

    name = f"R2N2({stages}, least squares{', memory' if carry else ''})"
    return Structure(name, begin, lambda lesson, level, s: _fitted(lesson, level, s, stages, True))


def _both(depth: int, context: bool) -> Structure:
    """A first step and learned mixing, trained together."""

    def begin(lesson: Lesson) -> Solver:
        part = lesson.part(0.5, 1)
        mixing = R2N2(1, "evaluation", "least_squares", _steps(lesson, 1), carry=depth)
        eq, known = lesson.family.equation(part), lesson.solution[: len(part)]
        return fit_first_step(mixing, eq, part.x0, known, degree=2, context=context)

    def train(lesson: Lesson, level: int, solver: Solver) -> Solver:
        assert isinstance(solver, FirstStep)
        part = lesson.part(1.0, 1)
        found = _fitted(lesson, level, with_reach(solver, ()), 1, True)
        assert isinstance(found, FirstStep)
        return within_reach(found, lesson.family.equation(part), part.x0)

    name = f"first step of degree 2{' with context' if context else ''} and learned mixing"
    return Structure(name, begin, train)


def _fitted(lesson: Lesson, level: int, solver: Solver, stages: int, digits: bool) -> Solver:
    """solver after Levenberg-Marquardt at that level."""
    rule = lesson.trainer
    starts = (3, 4, rule.starts)[level]
    iterations = (10, 20, rule.iterations)[level]
    trainer = replace(rule, starts=starts, iterations=iterations, spread=0.1 if digits else rule.spread)
    steps = _steps(lesson, stages) if digits else 3 if stages < 4 else 2
    objective: Objective = Digits(lesson.tolerance, 1.0) if digits else Residuals(lambda k: 4.0**k)
    part = lesson.part((0.25, 0.5, 1.0)[level], starts)
    return fit(solver, lesson.family, steps, objective, trainer, seed=lesson.seed, samples=part).solver


def _steps(lesson: Lesson, stages: int) -> int:
    """Iterations in which a solver of so many stages would beat the runner-up by one evaluation."""
    target = lesson.evaluations if lesson.evaluations < 1e6 else 10.0
    return max(2, min(12, round((target - 2) / stages)))


def finite_solutions(value: Tensor, converged: Tensor) -> Tensor:
    """value with NaN in the rows that did not converge."""
    return torch.where(converged[:, None], value, torch.nan)
