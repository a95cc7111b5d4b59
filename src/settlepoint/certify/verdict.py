"""Verdicts: whether a model settles beyond the depth it was trained at, stands still, or drifts away."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solve import solve
from settlepoint.solvers.solver import Solver
from settlepoint.spaces import State
from settlepoint.stop import FixedSteps

SETTLING, MARGINAL, DRIFTING = "settling", "marginal", "drifting"
MULTIPLES = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Of the training depth, at which a task is scored."""

_FACTOR = 2.0  # by which a residual must fall, or grow, between the training depth and the last one
_FLOOR = 256.0  # rounding units of the value below which a residual has arrived
_SHARE = 0.05  # of the rows that may do otherwise before a model is called so
_LOSS = 0.01  # of the score that may be lost
_PAID = 1e-3  # of the score's range, or of log residual, that is worth no further iteration
_POINTS = 40  # of a trace that a slope is taken from


@dataclass(frozen=True)
class Verdict:
    """How iterations behave beyond the depth they were trained at.

    kind: (R,) strings: "settling" (the residual at least halves between the depth and its last multiple, or has arrived
    at rounding), "drifting" (it at least doubles, or is not finite), "marginal" (neither). overall: of the model, which
    drifts or stands still when more than 5 % of its rows do, and drifts when its score falls by more than 1 %.
    rate: (R,), the factor a step by which the residual changes: exp of the median slope of its logarithm over all pairs
    of points behind the depth and above rounding, or before it where a row has arrived there. residual: (K + 1, R),
    after 0, 1, ... K steps. depth: steps of training. multiples, scores: of the task; scores is empty without one.
    pays_until: the multiple behind which neither the score nor the residual gets better.
    """

    kind: tuple[str, ...]
    overall: str
    rate: Tensor
    residual: Tensor
    depth: int
    multiples: tuple[float, ...]
    scores: tuple[float, ...]
    pays_until: float

    def counts(self) -> dict[str, int]:
        """Number of rows of every kind that occurs."""
        return {kind: self.kind.count(kind) for kind in (SETTLING, MARGINAL, DRIFTING) if kind in self.kind}


@torch.no_grad()
def verdict(
    eq: Equation,
    x0: State,
    depth: int,
    solver: Solver | None = None,
    *,
    multiples: Sequence[float] = MULTIPLES,
    score: Callable[[int], float] | None = None,
) -> Verdict:
    """Iterate from x0 to the last multiple of depth, and judge how the residuals go on behind the depth.

    depth: the steps that the model was trained with, >= 1. solver: what takes the steps, Picard by default. multiples:
    ascending, from 1. score: the task's score after so many steps, larger is better. Rows are judged one by one;
    nothing here is a proof.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ValueError(f"depth must be an integer >= 1, got {depth!r}")
    given = tuple(float(m) for m in multiples)
    if len(given) < 2 or given[0] != 1 or list(given) != sorted(set(given)):
        raise ValueError(f"multiples must ascend from 1 to at least one more, got {multiples!r}")
    if not eq.at(x0).layout.rows:  # pyright: ignore[reportOptionalMemberAccess]
        raise ValueError("x0 must have at least one row to be judged, got none")
    steps = [max(1, round(m * depth)) for m in given]
    residual, floor = _course(eq, x0, steps[-1], solver)
    scores = tuple(float(score(count)) for count in steps) if score is not None else ()
    kind, rate = _judged(residual, floor, depth)
    return Verdict(
        kind, _overall(kind, scores), rate, residual, depth, given, scores, _pays_until(residual, steps, given, scores)
    )


def _course(eq: Equation, x0: State, steps: int, solver: Solver | None) -> tuple[Tensor, Tensor]:
    """Residuals after 0, 1, ... steps (K + 1, R), and the rounding of the last value (R,)."""
    solution = solve(eq, x0, solver, FixedSteps(steps, check=True), trace=True)
    assert solution.trace is not None
    bound = eq.at(solution.value)
    assert bound.layout is not None
    size = bound.measure(bound.layout.flatten(solution.value))
    course = torch.cat((solution.trace.residual.double(), solution.residual.double()[None]))
    return course.cpu(), (_FLOOR * bound.layout.eps * (1 + size)).cpu()


def _judged(residual: Tensor, floor: Tensor, depth: int) -> tuple[tuple[str, ...], Tensor]:
    """The kind and the rate of every row."""
    behind = residual[depth:]
    above, lost = behind > floor, ~torch.isfinite(behind).all(0) | ~torch.isfinite(floor)
    arrived = (above.sum(0) < 3) | ~above[len(above) // 2 :].any(0)
    rise = slope(torch.where(above, behind, floor))
    fall = slope(torch.where(residual > floor, residual, torch.nan))
    change = rise * (len(behind) - 1)
    names = (SETTLING, MARGINAL, DRIFTING)
    place = torch.where(change <= -math.log(_FACTOR), 0, torch.where(change >= math.log(_FACTOR), 2, 1))
    place = torch.where(lost, 2, torch.where(arrived, 0, place))
    rate = torch.where(lost, torch.inf, torch.where(arrived, fall, rise).exp())
    return tuple(names[k] for k in place.tolist()), rate


def slope(residual: Tensor) -> Tensor:  # (K, R) -> (R,)
    """The median of (log r_j - log r_i) / (j - i) over all pairs i < j, NaN left out  (Theil 1950, Sen 1968).

    >>> round(slope(0.5 ** torch.arange(10.0)[:, None]).item(), 6) == round(math.log(0.5), 6)
    True
    """
    at = torch.linspace(0, len(residual) - 1, min(_POINTS, len(residual))).round().long().unique()
    y = residual[at].double().clamp(min=1e-300).log()
    i, j = torch.triu_indices(len(at), len(at), 1)
    if not len(i):
        return y.new_zeros(y.shape[1])
    return ((y[j] - y[i]) / (at[j] - at[i])[:, None]).nanmedian(0).values


def _overall(kind: tuple[str, ...], scores: tuple[float, ...]) -> str:
    """Of the model: what more than 5 % of its rows do, the worst first."""
    rows = max(1, len(kind))
    lost = bool(scores) and not scores[-1] >= scores[0] - _LOSS * abs(scores[0])
    if lost or kind.count(DRIFTING) > _SHARE * rows:
        return DRIFTING
    return MARGINAL if kind.count(MARGINAL) + kind.count(DRIFTING) > _SHARE * rows else SETTLING


def _pays_until(residual: Tensor, steps: list[int], multiples: tuple[float, ...], scores: tuple[float, ...]) -> float:
    """The first multiple behind which the score, or else the median residual, gains nothing that counts."""
    if scores:
        worth = [s if math.isfinite(s) else -math.inf for s in scores]
        slack = _PAID * max(abs(s) for s in worth if math.isfinite(s)) if any(map(math.isfinite, worth)) else 0.0
    else:
        medians = residual[steps].nan_to_num(nan=math.inf).median(1).values.clamp(min=1e-300)
        worth, slack = [-math.log(m) if math.isfinite(m) else -math.inf for m in medians.tolist()], math.log(_FACTOR)
    best = max(worth)
    return next((m for m, w in zip(multiples, worth, strict=True) if w >= best - slack), multiples[-1])
