"""Learned Runge-Kutta steps of adaptive size: `LearnedRK` in solve_ivp beside SciPy's RK23, work against error."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.integrate import solve_ivp
from torch import Tensor

from settlepoint.compat.error_weights import embedded_weights
from settlepoint.compat.formula import Formula
from settlepoint.compat.scipy import LearnedRK, fit_error_weights
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    curve,
    outcome,
)
from settlepoint.learn import LevenbergMarquardt, Relative, fit
from settlepoint.problems import Batch, VanDerPol
from settlepoint.runs import generator_from
from settlepoint.solvers import R2N2, tableaus
from settlepoint.solvers.solver import Solver

FAMILY = VanDerPol()
END = 0.5  # of the integration, five of the longest steps trained on
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)

RK23, SAME, KUTTA = "SciPy RK23", "LearnedRK, Bogacki-Shampine", "LearnedRK, Kutta-3"
FREE, PENALTY, LONG = "one step", "one step, sum b = 1", "50 steps"
LEARNED = (FREE, PENALTY, LONG)
DEFAULT = ", default estimate"
CELLS = (RK23, SAME, KUTTA, *LEARNED, PENALTY + DEFAULT, LONG + DEFAULT)


@dataclass(frozen=True, kw_only=True)
class AdaptiveScale(Scale):
    """Sizes of the experiment on adaptive steps."""

    samples: Annotated[int, "problems to train on"] = 500
    iterations: Annotated[int, "iterations of Levenberg-Marquardt"] = 100
    steps: Annotated[int, "steps to fit and to judge error estimates on"] = 200
    tried: Annotated[int, "problems that are integrated"] = 60


def _columns(tolerance: float) -> tuple[Column, Column]:
    return (
        Column(f"calls {tolerance:g}", f"{tolerance:g}: evaluations", fmt=".0f"),
        Column(f"error {tolerance:g}", f"{tolerance:g}: error", fmt=".1e", better="low"),
    )


class Adaptive(Experiment):
    """Rows of the tables are formulas and how their error is estimated."""

    id = "r2n2-adaptive"
    title = "Learned Runge-Kutta steps of adaptive size"
    claim = (
        "With one stage more for an error estimate, a learned three-stage formula takes adaptive steps. Trained over "
        "50 steps it has a smaller error than RK23 after as many evaluations, at every tolerance; trained on one step "
        "it loses at 1e-5, and Kutta-3 with an estimate fitted alike comes close."
    )
    source = "an extension of R2N2, Sec. 4.3; the paper takes fixed steps"
    scales: ClassVar = {
        "smoke": AdaptiveScale(seeds=1, samples=60, iterations=10, steps=20, tried=4),
        "cpu": AdaptiveScale(seeds=3),
        "paper": AdaptiveScale(seeds=10, samples=1000, steps=500, tried=500),
    }
    scaled_down: ClassVar = {"smoke": "60 problems to train on, 4 to integrate"}
    tables: ClassVar = (
        Table(
            "Evaluations, and error at the end",
            (
                *(c for t in TOLERANCES for c in _columns(t)),
                Column("gain", "Gain over RK23", "times", fmt=".2f", better="high"),
                Column("least gain", "least", "times", fmt=".2f", better="high"),
            ),
            CELLS,
            "Medians over van der Pol problems integrated to t = .5 by scipy.integrate.solve_ivp, for rtol = atol from "
            "1e-1 to 1e-5. one step: trained by the paper's loss on one step of h in [.01, .1]; sum b = 1: with that "
            "as a penalty; 50 steps: errors over 50 steps relative to Kutta-3's. one step has max_step = .1, as its "
            "error does not fall with the step. Bogacki-Shampine under LearnedRK must repeat RK23. Gain: RK23's error "
            "after as many evaluations (interpolated in logarithms) over this error; geometric mean, and least, over "
            "the tolerances.",
        ),
        Table(
            "Estimated error over the true error of a step",
            (
                Column("estimate p5", "5 %", fmt=".2g"),
                Column("estimate p50", "median", fmt=".2g"),
                Column("estimate p95", "95 %", fmt=".2g"),
                Column("defect", "|sum b - 1|", fmt=".0e"),
                Column("training seconds", "training", "CPU s", fmt=".1f"),
            ),
            tuple(cell for cell in CELLS if cell != RK23),
            "Over fresh steps with h in [.01, .1]. Weights of the estimate fitted to true errors on other steps by "
            "fit_error_weights, except where it says default, and for Bogacki and Shampine's, which has its own.",
        ),
    )
    figures: ClassVar = (
        Figure("Work and precision", ("work",), "Median error at t = .5 against median evaluations, rtol = atol from "
               "1e-1 to 1e-5.", rows=(RK23, KUTTA, *LEARNED)),
    )  # fmt: skip

    def cells(self, scale: AdaptiveScale) -> Sequence[str]:
        return CELLS

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: AdaptiveScale = context.scale
        metrics, options = {}, {}
        if cell != RK23:
            context.progress(f"training {cell}")
            options, metrics = _method(cell, seed, scale)
        batch = FAMILY.sample(scale.tried, generator_from(self.id, "tried", seed))
        exact = np.array([_solved(p, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1] for p in _problems(batch)])
        for tolerance in TOLERANCES:
            context.progress(f"{cell} at {tolerance:g}")
            metrics |= _tried(batch, exact, tolerance, options or {"method": "RK23"})
        calls, errors = ([metrics[f"{key} {t:g}"] for t in TOLERANCES] for key in ("calls", "error"))
        metrics |= _gains(calls, errors, batch, exact)
        metrics["evals"] = metrics[f"calls {TOLERANCES[1]:g}"]
        label = {"x_label": "evaluations", "y_label": "median error at t = .5", "log_y": True}
        return outcome(metrics, {"work": curve(calls, errors, group=cell, **label)})

    def checks(self, results: Results) -> Sequence[Check]:
        mean = results.mean
        same = [abs(mean(SAME, f"error {t:g}") / mean(RK23, f"error {t:g}") - 1) for t in TOLERANCES]
        found = [Check.at_most("Bogacki-Shampine: error over RK23's, largest deviation from 1", max(same), 1e-6)]
        if results.scale_name == "smoke":
            return found
        loose = {cell: mean(RK23, "error 0.1") / mean(cell, "error 0.1") for cell in (PENALTY, LONG)}
        work = {cell: mean(cell, "calls 0.1") / mean(RK23, "calls 0.1") for cell in (PENALTY, LONG)}
        least = min(results.values(LONG, "least gain"))
        falls = {cell: mean(cell, "error 0.1") / mean(cell, "error 1e-05") for cell in (PENALTY, LONG)}
        return [
            *found,
            *(Check.at_least(f"{c}: RK23's error at .1 over its own", r, 5) for c, r in loose.items()),
            *(Check.at_most(f"{c}: evaluations at .1 over RK23's", r, 1.2) for c, r in work.items()),
            Check.at_least(f"{LONG}: gain over RK23 at every tolerance, worst seed", least, 1),
            *(Check.at_least(f"{c}: error at .1 over that at 1e-5", r, 30) for c, r in falls.items()),
            *(Check.within(f"{c}: estimate over true error, median", mean(c, "estimate p50"), 0.5, 5) for c in LEARNED),
        ]


def _method(cell: str, seed: int, scale: AdaptiveScale) -> tuple[dict[str, Any], dict[str, float]]:
    """Options of solve_ivp for a cell, and how its error estimate does on steps it has not seen."""
    learned, seconds = _formula(cell.removesuffix(DEFAULT), seed, scale)
    formula = Formula.of(learned)
    plain = cell == SAME or cell.endswith(DEFAULT)
    known, fresh = (FAMILY.sample(scale.steps, generator_from(Adaptive.id, name, seed)) for name in ("fit", "judge"))
    weights = embedded_weights(formula) if plain else _fitted(learned, known)
    options: dict[str, Any] = {"method": LearnedRK, "learned": learned, "error_weights": weights}
    options |= {"max_step": FAMILY.h[1]} if cell == FREE else {}
    found = _quantiles(formula, weights, fresh)
    return options, {**found, "defect": abs(float(formula.b.sum()) - 1), "training seconds": seconds}


def _formula(cell: str, seed: int, scale: AdaptiveScale) -> tuple[Any, float]:
    """The formula of a cell, and the seconds that its training took."""
    if cell in (SAME, KUTTA):
        return (tableaus.BOGACKI_SHAMPINE if cell == SAME else tableaus.KUTTA3), 0.0
    batch = FAMILY.sample(scale.samples, generator_from(Adaptive.id, "training", seed))
    begin = time.process_time()
    solver = _trained(cell, batch, seed, scale)
    return solver, time.process_time() - begin


def _trained(cell: str, batch: Batch, seed: int, scale: AdaptiveScale) -> Solver:
    if cell == LONG:
        peer = R2N2.from_tableau(tableaus.KUTTA3)
        near = LevenbergMarquardt(2, scale.iterations, 0.03, gain=1e-5)
        return fit(peer, FAMILY, 50, Relative(peer, (5, 15, 30, 50)), near, consistent, seed, samples=batch).solver
    penalty = consistent if cell == PENALTY else None
    trainer = LevenbergMarquardt(iterations=scale.iterations)
    return fit(R2N2(3), FAMILY, 1, None, trainer, penalty, seed, samples=batch).solver


def consistent(solver: Solver) -> Tensor:
    """1e3 (sum b - 1), as a penalty: what a formula misses here stays however small its steps."""
    assert isinstance(solver, R2N2)
    return 1e3 * (solver.tableau()[1].sum() - 1)


def _fitted(learned: Any, steps: Batch) -> np.ndarray:
    assert steps.h is not None
    a = steps.parameters["a"].numpy()
    return fit_error_weights(learned, slope, steps.x0.numpy(), steps.h.numpy(), args=(a,))  # pyright: ignore[reportArgumentType]


def slope(t: float, y: np.ndarray, a: float) -> np.ndarray:
    """van der Pol's oscillator, as one writes it for SciPy."""
    return np.array([y[1], a * (1 - y[0] ** 2) * y[1] - y[0]])


def _quantiles(formula: Formula, weights: np.ndarray, steps: Batch) -> dict[str, float]:
    """Estimate over true error of single steps: 5 %, 50 % and 95 %."""
    assert steps.h is not None
    ratios = [_ratio(formula, weights, p, float(h)) for p, h in zip(_problems(steps), steps.h, strict=True)]
    return {f"estimate p{q}": float(np.quantile(ratios, q / 100)) for q in (5, 50, 95)}


def _ratio(formula: Formula, weights: np.ndarray, problem: tuple[np.ndarray, float], h: float) -> float:
    y, a = problem
    f: Callable[[float, np.ndarray], np.ndarray] = lambda t, y: slope(t, y, a)  # noqa: E731
    moved, k = formula.step(f, 0.0, y, h, f(0.0, y))
    exact = solve_ivp(f, (0.0, h), y, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    return float(np.linalg.norm(h * (weights @ k)) / np.linalg.norm(moved - exact))


def _problems(batch: Batch) -> list[tuple[np.ndarray, float]]:
    return [(y, float(a)) for y, a in zip(batch.x0.numpy(), batch.parameters["a"], strict=True)]


def _solved(problem: tuple[np.ndarray, float], **options: Any) -> Any:
    return solve_ivp(slope, (0.0, END), problem[0], args=(problem[1],), **options)


def _tried(batch: Batch, exact: np.ndarray, tolerance: float, options: Mapping[str, Any]) -> dict[str, float]:
    """Medians over the problems; an integration that fails has an infinite error."""
    found = [_solved(p, rtol=tolerance, atol=tolerance, **options) for p in _problems(batch)]
    ends = np.array([f.y[:, -1] if f.success else np.full(2, np.inf) for f in found])
    errors = np.linalg.norm(ends - exact, axis=1)
    return {f"calls {tolerance:g}": float(np.median([f.nfev for f in found])),
            f"error {tolerance:g}": float(np.median(errors))}  # fmt: skip


def _gains(calls: list[float], errors: list[float], batch: Batch, exact: np.ndarray) -> dict[str, float]:
    """RK23's errors after as many evaluations over these."""
    wide = [10.0**-k for k in range(1, 10)]
    peer = [_tried(batch, exact, t, {"method": "RK23"}) for t in wide]
    x, y = (np.log([found[f"{key} {t:g}"] for t, found in zip(wide, peer, strict=True)]) for key in ("calls", "error"))
    gains = np.exp(np.interp(np.log(calls), x, y)) / np.array(errors)
    return {"gain": float(np.exp(np.log(gains).mean())), "least gain": float(gains.min())}


EXPERIMENT = Adaptive()
