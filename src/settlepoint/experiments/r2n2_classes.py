"""R2N2 on classes that the paper leaves out: Bratu, convection and diffusion, implicit steps, many small systems."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from settlepoint.experiments.courses import course, quartiles
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
from settlepoint.experiments.small_race import (
    SMALL,
    TOLERANCES,
    bare_milliseconds,
    learned_inverse,
    newton,
    plain_loop,
    timed,
)
from settlepoint.learn import Digits, LevenbergMarquardt, fit
from settlepoint.problems import (
    Batch,
    Bratu,
    ConvectionDiffusion,
    Family,
    HeatImplicit,
    ReactionImplicit,
)
from settlepoint.runs import generator_from
from settlepoint.solve import solve
from settlepoint.solvers import R2N2, Aitken, Anderson, Chebyshev, NewtonKrylov, Picard, Solver
from settlepoint.stop import Tolerance

WEIGHTS, SQUARES, MEMORY = "R2N2(3)", "R2N2(3, least squares)", "R2N2(2), weights an iteration"
INVERSE, CHORD = "R2N2(2), M", "R2N2(1), M"
CLASSICAL: Mapping[str, Solver] = {
    "Picard": Picard(), "Aitken": Aitken(), "Anderson(2)": Anderson(2), "Anderson(3)": Anderson(3),
    "NewtonKrylov": NewtonKrylov(),
}  # fmt: skip
LEARNED: Mapping[str, R2N2] = {
    WEIGHTS: R2N2(3),
    SQUARES: R2N2(3, output="least_squares"),
    MEMORY: R2N2(2, per_iteration=6),
    INVERSE: R2N2(2),
    CHORD: R2N2(1),
}
ON_GRIDS = (WEIGHTS, SQUARES)
"""Those of the learned ones that run on grids too."""

SCIPY, LOOP, NEWTON = "scipy newton_krylov", "plain loop", "Newton with LAPACK"

GRIDS: Mapping[str, tuple[Family, Family]] = {
    "Bratu 10^2": (Bratu(10), Bratu(10)),
    "Bratu 256^2": (Bratu(10), Bratu(256)),
    "convection": (ConvectionDiffusion(), ConvectionDiffusion()),
    "heat": (HeatImplicit(), HeatImplicit()),
    "reaction": (ReactionImplicit(), ReactionImplicit()),
}
"""Name to the family that trains and the family that is solved."""


@dataclass(frozen=True, kw_only=True)
class ClassesScale(Scale):
    """Sizes of the experiment on classes."""

    samples: Annotated[int, "problems of each class that train and test R2N2, 70 % of them train"] = 100
    small: Annotated[int, "the same of the small systems"] = 500
    starts: Annotated[int, "starts of the training"] = 4
    iterations: Annotated[int, "iterations of Levenberg-Marquardt"] = 40
    tried: Annotated[int, "problems of each class that are solved"] = 100
    large: Annotated[int, "points a side of the large Bratu problem"] = 256
    lambdas: Annotated[tuple[float, ...], "parameters of the large Bratu problem"] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.7)
    scipy: Annotated[int, "problems of each class for SciPy, one by one"] = 7
    rows: Annotated[int, "small systems that are solved at the same time"] = 10_000
    repeats: Annotated[int, "timed runs of the small systems, interleaved; the fastest counts"] = 3


class Classes(Experiment):
    """Rows of the tables are solvers."""

    id = "r2n2-classes"
    title = "Learned solvers on further classes of problems"
    claim = (
        "Weights trained on Bratu at 10^2 points solve it at 256^2; on many small systems a solver without inner "
        "products takes less time than the best classical one, but not 3 times less."
    )
    source = "classes of our own; the transfer of sizes is claimed in R2N2, Sec. 5"
    scales: ClassVar = {
        "smoke": ClassesScale(
            seeds=1, samples=20, small=20, starts=2, iterations=8, tried=8, large=24, lambdas=(1.0, 6.0), scipy=2,
            rows=200, repeats=1,
        ),
        "cpu": ClassesScale(seeds=3),
        "paper": ClassesScale(seeds=5, samples=500, starts=12, tried=1000, scipy=50, repeats=10),
    }  # fmt: skip
    scaled_down: ClassVar = {
        "smoke": "24^2 points instead of 256^2, 200 small systems instead of 10,000, 2 starts of 8 iterations",
        "cpu": "SciPy, which solves one problem after the other, runs on 7 problems of every class, all others on 100",
    }
    tables: ClassVar = (
        Table(
            "Evaluations to 1e-10",
            (
                *(Column(f"evals {name} {q}", f"{name}, {q}", fmt=".0f", better="low" if q == "p50" else "")
                  for name in GRIDS for q in ("p0", "p50", "p100")),
                Column("failed", "unsolved, %", fmt=".1f", better="low"),
                Column("training seconds", "training", "CPU s", fmt=".1f"),
            ),
            rows=(*ON_GRIDS, *CLASSICAL, SCIPY),
            caption="Least, median and largest count over the problems; tolerance: root mean square of P(u) - u over "
            "the points. Bratu: lam in [1, 6.7], trained on 10^2; 256^2: lam = 1, 2, ..., 6, 6.7 with the "
            "weights of 10^2. At most 300 evaluations; inf where some problem was not solved. newton_krylov as by "
            "default.",
        ),
        Table(
            "CPU time of Bratu at 256^2, and of 10,000 systems of 20 unknowns",
            (
                Column("seconds Bratu 256^2", "Bratu 256^2", "s a problem", fmt=".3f", better="low"),
                *(Column(f"ms {t:g}", f"small, to {t:g}", "ms", fmt=".1f", better="low") for t in TOLERANCES),
                *(Column(f"evals small {t:g}", f"evaluations to {t:g}, mean", fmt=".1f") for t in TOLERANCES),
                Column("training seconds small", "training", "CPU s", fmt=".1f"),
                Column("gain 1e-08", "best classical / this, 1e-8", "times", fmt=".2f", better="high"),
                Column("limit 1e-08", "the same if only evaluations took time", "times", fmt=".2f"),
            ),
            caption="One thread. The small systems are solved all at once, each row to its tolerance in the 2-norm. "
            "plain loop: Picard on the whole batch until its slowest row is done. Newton with LAPACK: "
            "numpy.linalg.solve on the dense Jacobians of all rows. M: the preconditioner nearest to the inverse of "
            "I - P', by least squares on training problems; R2N2(1), M is the chord method with it. inf: a row was not "
            "solved. Hoped for: 3 times less time than the best classical solver. One evaluation of P on all rows "
            "takes 'ms evaluation' of the notes, so that this would leave time for some 16 evaluations and nothing "
            "else.",
        ),
    )  # fmt: skip
    figures: ClassVar = (
        Figure("Bratu on 10^2 points", ("residual Bratu 10^2",), "Median residual against evaluations, 2-norm.",
               rows=(*ON_GRIDS, "Picard", "Anderson(3)")),
        Figure("Convection and diffusion", ("residual convection",), "Median residual against evaluations, 2-norm.",
               rows=(*ON_GRIDS, "Picard", "Anderson(3)")),
    )  # fmt: skip

    def cells(self, scale: ClassesScale) -> Sequence[str]:
        return (*LEARNED, *CLASSICAL, "Chebyshev", SCIPY, LOOP, NEWTON)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: ClassesScale = context.scale
        metrics: dict[str, float] = {"training seconds": 0.0} if cell in LEARNED else {}
        curves: dict[str, Any] = {}
        known: dict[str, Solver] = {}
        for name in GRIDS if cell in (*ON_GRIDS, *CLASSICAL, SCIPY) else ():
            context.progress(f"{cell} on {name}")
            train = GRIDS[name][0]
            if cell in ON_GRIDS and repr(train) not in known:
                known[repr(train)], seconds = _trained(cell, train, 3, seed, scale)
                metrics["training seconds"] += seconds
            found, shown = _grid(cell, name, known.get(repr(train), CLASSICAL.get(cell)), seed, scale)
            metrics["failed"] = metrics.get("failed", 0) + found.pop("failed") / len(GRIDS)
            metrics |= found
            curves |= shown
        notes: list[str] = []
        if cell != SCIPY:
            context.progress(f"{cell} on small systems")
            small, notes = _small(cell, seed, scale)
            metrics |= small
        metrics["evals"] = metrics.get("evals Bratu 10^2 p50", metrics.get("evals small 1e-08", np.nan))
        return outcome(metrics, curves, notes)

    def checks(self, results: Results) -> Sequence[Check]:
        mean = results.mean
        solved = [Check.at_most(f"{cell}: unsolved on the grids (%)", mean(cell, "failed"), 0) for cell in ON_GRIDS]
        if results.scale_name == "smoke":
            return solved
        worst = f"evals {'Bratu 256^2'} p100"
        return (
            *solved,
            Check.at_most(f"{WEIGHTS}: evaluations of Bratu 256^2, largest", mean(WEIGHTS, worst), 67),
            Check.at_most(f"{SQUARES}: evaluations of Bratu 256^2, largest", mean(SQUARES, worst), 19),
            Check.at_least(
                "small systems to 1e-8: best classical time over best learned",
                max((mean(cell, "gain 1e-08") for cell in LEARNED), default=np.nan),
                1,
                "hoped for: 3",
            ),
        )


def _grid(
    cell: str, name: str, solver: Solver | None, seed: int, scale: ClassesScale
) -> tuple[dict[str, float], dict[str, Any]]:
    """Evaluations, failures and seconds of one solver, or None for SciPy's, on one class; its curve."""
    family = GRIDS[name][1]
    if name == "Bratu 256^2":
        family = Bratu(scale.large)
        lam = torch.tensor(scale.lambdas, dtype=torch.float64)
        batch = Batch(lam.new_zeros(len(lam), scale.large**2), {"lam": lam})
    else:
        batch = family.sample(scale.tried, generator_from(Classes.id, name, seed))
    batch = batch if cell != SCIPY else batch.rows(slice(scale.scipy))
    begin = time.process_time()
    evals = _scipy(family, batch) if solver is None else _ours(solver, family, batch)
    spent = (time.process_time() - begin) / len(batch)
    found = quartiles(f"evals {name}", evals, (0.0, 0.5, 1.0))
    found["failed"] = 100 * float(evals.isinf().double().mean())
    if name == "Bratu 256^2":
        found |= {f"seconds {name}": spent}
    shown = {}
    if solver is not None and name in ("Bratu 10^2", "convection"):
        shown[f"residual {name}"] = _shown(solver, family, batch, cell)
    return found, shown


def _trained(cell: str, family: Family, iterations: int, seed: int, scale: ClassesScale) -> tuple[R2N2, float]:
    trainer = LevenbergMarquardt(
        scale.starts, scale.iterations, 0.5 if cell in (WEIGHTS, MEMORY) else 0.1, trial=min(15, scale.iterations // 2)
    )
    count = scale.small if family is SMALL else scale.samples
    batch = family.sample(count, generator_from(Classes.id, "training", family.name, seed))
    begin = time.process_time()
    start = LEARNED[cell]
    if cell in (INVERSE, CHORD):
        start = R2N2(start.stages, preconditioner=learned_inverse(batch))
    solver = fit(start, family, iterations, trainer=trainer, seed=seed, samples=batch).solver
    if cell == MEMORY:
        close = LevenbergMarquardt(3, scale.iterations, 0.05)
        solver = fit(solver, family, 6, Digits(1e-8, 1.0), close, seed=seed, samples=batch).solver
    assert isinstance(solver, R2N2)
    return solver, time.process_time() - begin


def _ours(solver: Solver, family: Family, batch: Batch) -> Tensor:  # (R,)
    """Evaluations of every problem, inf where it was not solved."""
    stop = Tolerance(1e-10 * batch.x0.shape[1] ** 0.5, max_steps=300, window=60)
    with torch.no_grad():
        solution = solve(family.equation(batch), batch.x0, solver, stop)
    return torch.where(solution.converged, solution.evals.double(), torch.inf)


def _scipy(family: Family, batch: Batch) -> Tensor:  # (R,)
    """The same of scipy.optimize.newton_krylov, one problem after the other."""
    return torch.tensor([_scipy_row(family, batch.rows(slice(i, i + 1))) for i in range(len(batch))]).double()


def _scipy_row(family: Family, batch: Batch) -> float:
    from scipy.optimize import NoConvergence, newton_krylov

    eq, calls = family.equation(batch), 0

    def residual(v: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        with torch.no_grad():
            return eq.residual(torch.from_numpy(v)[None])[0].numpy()  # type: ignore[index]

    norm = lambda v: float(np.sqrt(np.mean(v**2)))  # noqa: E731
    with np.errstate(all="ignore"):
        try:
            newton_krylov(residual, batch.x0[0].numpy(), f_tol=1e-10, maxiter=50, tol_norm=norm)
        except (NoConvergence, ValueError, FloatingPointError):
            return np.inf
    return float(calls)


def _shown(solver: Solver, family: Family, batch: Batch, cell: str) -> dict[str, Any]:
    calls = 1 + solver.calls
    found = course(solver, family.equation(batch), batch.x0, 45 // calls)
    y = found.residual.median(0).values
    seen = torch.isfinite(y) & (y > 1e-14)
    return curve(
        found.evals[0][seen].tolist(), y[seen].tolist(), y_label="median residual, 2-norm", log_y=True, group=cell
    )


def _small(cell: str, seed: int, scale: ClassesScale) -> tuple[dict[str, float], list[str]]:
    """CPU time and evaluations on the small systems."""
    batch = SMALL.sample(scale.rows, generator_from(Classes.id, "small", seed))
    metrics: dict[str, float] = {}
    contender = {**CLASSICAL, "Chebyshev": Chebyshev(*SMALL.interval), LOOP: plain_loop, NEWTON: newton}.get(cell)
    if cell in LEARNED:
        contender, metrics["training seconds small"] = _trained(cell, SMALL, 4, seed, scale)
    assert contender is not None
    metrics |= timed(cell, contender, batch, scale.repeats)
    return metrics, [f"ms evaluation: {bare_milliseconds(batch, scale.repeats):.2f}"]


EXPERIMENT = Classes()
