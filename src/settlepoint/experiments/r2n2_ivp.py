"""R2N2 as a Runge-Kutta method for the van der Pol oscillator: Fig 9 of the paper, and long horizons."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

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
from settlepoint.experiments.relative_errors import RelativeErrors
from settlepoint.learn import Fit, LevenbergMarquardt, Trajectories, fit, order_conditions
from settlepoint.learn.objective import rollout
from settlepoint.problems import Batch, VanDerPol
from settlepoint.runs import generator_from
from settlepoint.solvers import R2N2, Solver, tableaus
from settlepoint.solvers.tableaus import Tableau

FAMILY = VanDerPol()
STEPS, HORIZON = (1, 2, 3, 5, 10, 20), 50

KUTTA, RK4, RK23 = "Kutta-3", "RK4, equal evaluations", "SciPy RK23, equal evaluations"
CLASSICAL: Mapping[str, Tableau] = {
    KUTTA: tableaus.KUTTA3,
    "SSPRK3": tableaus.SSPRK3,
    "Bogacki-Shampine": tableaus.BOGACKI_SHAMPINE,
    RK4: tableaus.RK4,
}

ONE, EIGHT, LONG, BEST = "R2N2, p = 3", "R2N2, p = 8", "R2N2, 50 steps", "R2N2 with memory of 3"


def _untrained(carry: int = 0, per_iteration: int | None = None) -> R2N2:
    """Kutta-3, with room for memory."""
    inner, output = KUTTA3.theta.split([3, 3])
    theta = torch.cat((inner, output.repeat(per_iteration or 1), torch.zeros(3 * carry, dtype=torch.float64)))
    return R2N2(3, per_iteration=per_iteration, carry=carry, theta=theta)


KUTTA3 = R2N2.from_tableau(tableaus.KUTTA3)

Train = Callable[[Batch, int, "IvpScale"], Fit]


def _one_step(power: float, penalty: float, batch: Batch, seed: int, scale: IvpScale) -> Fit:
    """The paper's loss: one step, mean |error|^2 / h^power; penalty: weight of the order conditions, of order 3."""
    rule = None if not penalty else lambda solver: penalty * order_conditions(solver, 3)
    trainer = LevenbergMarquardt(scale.starts, scale.iterations)
    return fit(R2N2(3), FAMILY, 1, Trajectories(power), trainer, rule, seed, samples=batch)


def _ten_steps(batch: Batch, seed: int, scale: IvpScale) -> Fit:
    """The same loss summed over ten steps, from Kutta-3."""
    trainer = LevenbergMarquardt(scale.near, scale.iterations, 0.1)
    return fit(_untrained(), FAMILY, 10, Trajectories(3), trainer, None, seed, samples=batch)


def _long(carry: int, per_iteration: int | None, at: tuple[int, ...], batch: Batch, seed: int, scale: IvpScale) -> Fit:
    """Logarithms of errors relative to Kutta-3's at the steps `at`, from Kutta-3."""
    trainer = LevenbergMarquardt(scale.near, scale.iterations, 0.03, trial=10)
    objective = RelativeErrors(KUTTA3, at)
    return fit(_untrained(carry, per_iteration), FAMILY, max(at), objective, trainer, None, seed, samples=batch)


_ALL = (1, 2, 5, 10, 20, 30, 40, 50)
LEARNED: Mapping[str, Train] = {
    ONE: partial(_one_step, 3, 0.0),
    EIGHT: partial(_one_step, 8, 0.0),
    "R2N2, p = 3, order penalty": partial(_one_step, 3, 1.0),
    "R2N2, 10 steps": _ten_steps,
    LONG: partial(_long, 0, None, (15, 30, 50)),
    "R2N2 with memory of 1, late steps": partial(_long, 1, 2, (15, 30, 50)),
    "R2N2 with memory of 1": partial(_long, 1, 2, _ALL),
    BEST: partial(_long, 3, 2, _ALL),
}


@dataclass(frozen=True, kw_only=True)
class IvpScale(Scale):
    """Sizes of the van der Pol experiment."""

    samples: Annotated[int, "problems that train and test R2N2, 70 % of them train"] = 400
    starts: Annotated[int, "starts of the training on one step"] = 12
    near: Annotated[int, "starts of the training on many steps, near Kutta-3"] = 2
    iterations: Annotated[int, "iterations of Levenberg-Marquardt"] = 60
    tried: Annotated[int, "problems on which all are tried"] = 300
    adaptive: Annotated[int, "of these, problems for SciPy's RK23"] = 150


class Ivp(Experiment):
    """Rows of the tables are methods; all but RK4 take three evaluations a step of the same size."""

    id = "r2n2-ivp"
    title = "R2N2 as a Runge-Kutta method: van der Pol"
    claim = (
        "Trained on one step, three learned stages are better than Kutta-3 on at least 85 % of the samples after it; "
        "trained on fifty, with three stage vectors carried, their error there is at least 3 times smaller than "
        "Kutta-3's, and smaller than that of SciPy's adaptive RK23 after as many evaluations."
    )
    source = "R2N2, Sec. 4.3, Fig 9"
    scales: ClassVar = {
        "smoke": IvpScale(seeds=1, samples=60, starts=3, iterations=8, tried=30, adaptive=3),
        "cpu": IvpScale(seeds=3),
        "paper": IvpScale(seeds=10, samples=1000, near=12, iterations=100, tried=2000, adaptive=500),
    }
    scaled_down: ClassVar = {
        "smoke": "60 problems, 3 starts of 8 iterations, 3 problems for SciPy",
        "cpu": "400 problems train and test, 2 starts near Kutta-3 for what is trained on many steps",
    }
    tables: ClassVar = (
        Table(
            "Gain over Kutta-3",
            (
                *(Column(f"gain {k}", f"after {k}", "times", fmt=".2f", better="high") for k in (*STEPS, HORIZON)),
                Column("loss", "training loss", fmt=".3g"),
                Column("training seconds", "training", "CPU s", fmt=".1f"),
            ),
            caption="Geometric mean over held-out samples of Kutta-3's error over this method's, after so many steps "
            "of the same h with three evaluations each. RK4 and RK23 are given the 150 evaluations of 50 steps: RK4 "
            "takes 37 longer steps, RK23 (scipy.integrate.solve_ivp, every sample alone) the smallest rtol = "
            "atol, at which it stays within them. Losses of different objectives cannot be compared.",
        ),
        Table(
            "Samples better than Kutta-3, and the spread at the horizon",
            (
                *(Column(f"better {k}", f"after {k}", "%", fmt=".0f", better="high") for k in (*STEPS, HORIZON)),
                Column("error p25", "error at 50, p25", fmt=".1e"),
                Column("error p50", "median", fmt=".1e", better="low"),
                Column("error p75", "p75", fmt=".1e"),
                Column("gain p25", "gain at 50, p25", fmt=".2f"),
                Column("gain p50", "median", fmt=".2f", better="high"),
                Column("gain p75", "p75", fmt=".2f"),
                Column("gain 100", "mean gain at 100", fmt=".2f"),
            ),
            caption="100 steps are twice as far as anything was trained on. Where a method of one step is trained on "
            "one step alone, nothing makes it consistent (weights that sum to 1), and it is lost after a few.",
        ),
    )
    figures: ClassVar = (
        Figure("Gain over Kutta-3, after one step", ("gain by h 1",), "Median in ten bins of h (Fig 9 a).",
               rows=(ONE, EIGHT, BEST)),
        Figure("Gain over Kutta-3, after five steps", ("gain by h 5",), "Median in ten bins of h (Fig 9 d).",
               rows=(ONE, EIGHT, BEST)),
        Figure("Gain over the steps", ("gain by step",), "Geometric mean over samples; below 1, Kutta-3 is better.",
               rows=tuple(LEARNED)),
        Figure("Error over the steps", ("error by step",), "Median of the error over samples.",
               rows=(KUTTA, "SSPRK3", "Bogacki-Shampine", *LEARNED)),
    )  # fmt: skip

    def cells(self, scale: IvpScale) -> Sequence[str]:
        return (*CLASSICAL, RK23, *LEARNED)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: IvpScale = context.scale
        batch = FAMILY.sample(scale.tried, generator_from(self.id, "data", seed))
        exact = FAMILY.trajectory(batch, 2 * HORIZON)
        if cell == RK23:
            return outcome(_adaptive(batch.rows(slice(scale.adaptive)), exact))
        if cell == RK4:
            return outcome(_at_horizon(_stretched(batch, exact), _errors(KUTTA3, batch, exact)[:, HORIZON - 1]))
        metrics, solver = {}, KUTTA3
        if cell in LEARNED:
            context.progress(f"training {cell}")
            begin = time.process_time()
            found = LEARNED[cell](FAMILY.sample(scale.samples, generator_from(self.id, "training", seed)), seed, scale)
            seconds = time.process_time() - begin
            metrics = {"loss": found.loss, "test loss": found.test_loss, "training seconds": seconds}
            solver = found.solver
        elif cell != KUTTA:
            solver = R2N2.from_tableau(CLASSICAL[cell])
        ours, kutta = (_errors(s, batch, exact) for s in (solver, KUTTA3))
        metrics |= _at_horizon(ours[:, HORIZON - 1], kutta[:, HORIZON - 1]) | _on_the_way(ours, kutta)
        return outcome(metrics, _curves(cell, ours, kutta, batch))

    def checks(self, results: Results) -> Sequence[Check]:
        mean = results.mean
        if results.scale_name == "smoke":
            return (Check.at_least("p = 3: gain after 1 step", mean(ONE, "gain 1"), 1),)
        return (
            Check.at_most("p = 3: training loss", mean(ONE, "loss"), 0.07),
            Check.at_least("p = 3: better after 1 step (%)", mean(ONE, "better 1"), 85),
            Check.at_least("p = 8: better after 1 step (%)", mean(EIGHT, "better 1"), 85),
            Check.at_least("memory of 3: gain after 50", mean(BEST, "gain 50"), 3),
            Check.at_least("memory of 3: gain after 50, over RK23's", mean(BEST, "gain 50") / mean(RK23, "gain 50"), 1),
            Check.at_most("memory of 3: training, CPU s", mean(BEST, "training seconds"), 20),
        )


def _errors(solver: Solver, batch: Batch, exact: Tensor) -> Tensor:  # (n, steps)
    """|x_k - x*_k| for k = 1, 2, ... as far as exact goes."""
    eq = FAMILY.equation(batch).at(batch.x0)
    with torch.no_grad():
        path = rollout(solver, eq, batch.x0, exact.shape[1], check=False)
    return torch.linalg.vector_norm(torch.stack(path.iterates, 1) - exact, dim=2)


def _stretched(batch: Batch, exact: Tensor) -> Tensor:  # (n,)
    """RK4's error at the horizon after 37 steps, 148 evaluations."""
    assert batch.h is not None
    steps = 3 * HORIZON // 4
    longer = replace(batch, h=batch.h * HORIZON / steps)
    eq = FAMILY.equation(longer).at(batch.x0)
    with torch.no_grad():
        last = rollout(R2N2.from_tableau(tableaus.RK4), eq, batch.x0, steps, check=False).iterates[-1]
    return torch.linalg.vector_norm(last - exact[:, HORIZON - 1], dim=1)


def _adaptive(batch: Batch, exact: Tensor) -> dict[str, float]:
    errors = [_rk23(batch.rows(slice(i, i + 1)), exact[i, HORIZON - 1].numpy()) for i in range(len(batch))]
    kutta = _errors(KUTTA3, batch, exact[: len(batch)])[:, HORIZON - 1]
    return _at_horizon(torch.tensor([e for e, _ in errors], dtype=torch.float64), kutta) | {
        "evals": float(np.mean([n for _, n in errors]))
    }


def _rk23(problem: Batch, exact: np.ndarray) -> tuple[float, int]:
    """Error at the horizon and evaluations of RK23, at the smallest tolerance that stays within 3 HORIZON of them."""
    from scipy.integrate import solve_ivp

    assert problem.h is not None
    a, end, x0 = float(problem.parameters["a"]), HORIZON * float(problem.h), problem.x0[0].numpy()
    slope = lambda _, x: np.array([x[1], a * (1 - x[0] ** 2) * x[1] - x[0]])  # noqa: E731
    low, high, best = -10.0, 0.0, (np.inf, 0)
    for _ in range(12):
        middle = (low + high) / 2
        found = solve_ivp(slope, (0.0, end), x0, "RK23", rtol=10**middle, atol=10**middle)
        if found.success and found.nfev <= 3 * HORIZON:
            high, best = middle, (float(np.linalg.norm(found.y[:, -1] - exact)), found.nfev)
        else:
            low = middle
    return best


def _at_horizon(ours: Tensor, kutta: Tensor) -> dict[str, float]:
    """Mean gain, share of better samples, and quartiles of errors and gains."""
    ratio = kutta / ours
    found = {f"gain {HORIZON}": _mean_gain(ours, kutta), f"better {HORIZON}": _better(ours, kutta), "evals": 150.0}
    for name, values in (("error", ours), ("gain", ratio)):
        ordered = values.nan_to_num(torch.inf if name == "error" else 0.0).sort().values
        found |= {f"{name} p{q}": float(ordered[round(q / 100 * (len(ordered) - 1))]) for q in (25, 50, 75)}
    return found


def _on_the_way(ours: Tensor, kutta: Tensor) -> dict[str, float]:
    found = {f"gain {k}": _mean_gain(ours[:, k - 1], kutta[:, k - 1]) for k in (*STEPS, 2 * HORIZON)}
    return found | {f"better {k}": _better(ours[:, k - 1], kutta[:, k - 1]) for k in STEPS}


def _mean_gain(ours: Tensor, kutta: Tensor) -> float:
    """Geometric mean of kutta over ours; 0 where ours is lost on any sample."""
    return float((kutta / ours.nan_to_num(torch.inf, torch.inf)).log().mean().exp())


def _better(ours: Tensor, kutta: Tensor) -> float:
    return 100 * float((ours < kutta).double().mean())


def _curves(cell: str, ours: Tensor, kutta: Tensor, batch: Batch) -> dict[str, Any]:
    steps = range(1, ours.shape[1] + 1)
    gains = [_mean_gain(ours[:, k - 1], kutta[:, k - 1]) for k in steps]
    shown = {"x_label": "step", "log_y": True, "group": cell}
    found = {
        "gain by step": curve(steps, gains, y_label="gain over Kutta-3", **shown),
        "error by step": curve(steps, ours.nanmedian(0).values.tolist(), y_label="median error", **shown),
    }
    assert batch.h is not None
    order = batch.h.argsort().chunk(10)
    for k in (1, 5):
        medians = [float((kutta[i, k - 1] / ours[i, k - 1]).median()) for i in order]
        h = [float(batch.h[i].median()) for i in order]
        found[f"gain by h {k}"] = curve(
            h, medians, x_label="step size h", y_label="gain over Kutta-3", log_y=True, group=cell
        )
    return found


EXPERIMENT = Ivp()
