"""R2N2 on linear systems: Figs 4, 5 and 6 of the paper, beside the optimum, GMRES and Chebyshev."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from settlepoint.experiments.courses import Course, course, quartiles
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
from settlepoint.experiments.r2n2_parts import MixedLinear, gain_ratio, gmres_course, linear_batch, optimal_loss
from settlepoint.learn import LevenbergMarquardt, fit, minimax
from settlepoint.problems import Batch, Family, LinearFamily
from settlepoint.runs import generator_from
from settlepoint.runs.seeds import seed_from
from settlepoint.solvers import R2N2, Anderson, Chebyshev, Picard, Solver
from settlepoint.solvers.tableaus import richardson

STAGES, PATH = 4, 5
A1, A2, A3 = (LinearFamily(name) for name in ("A1", "A2", "A3"))
MIXED = MixedLinear((A1, A2, A3))


@dataclass(frozen=True)
class Training:
    """family: what R2N2 is trained on; weights: w_1 ... w_T of the loss."""

    family: Family
    weights: tuple[float, ...] = (4.0, 16.0, 64.0)


TRAININGS: Mapping[str, Training] = {
    "on A1": Training(A1),
    "on A1, T = 1": Training(A1, (1.0,)),
    "on A2": Training(A2),
    "on A3": Training(A3),
    "on A1 to A3": Training(MIXED),
    "on A1 to A3, w = 1": Training(MIXED, (1.0, 1.0, 1.0)),
}
ALONE, TOGETHER = "on A1", "on A1 to A3"

MINIMAX, SQUARES, GMRES = "minimax(4)", "R2N2(4, least squares)", "GMRES(4), scipy"
CLASSICAL = ("Chebyshev", "Anderson(4)", "Richardson", "Picard")
PEERS = (MINIMAX, SQUARES, GMRES, *CLASSICAL)

FIG_4: Mapping[str, float] = {"A1": 0.98, "A2": 0.99, "A3": 0.96}
FIG_5 = (8.86, 0.20, 4.8e-3, 1.2e-4, 3e-6, 8e-8)
FIG_5_GMRES = (8.87, 0.010, 1.3e-5, 1.7e-8)
"""Medians of Fig 4b, and mean residuals on A1 after 0 to 5 iterations of Fig 5, as the checks expect them."""


@dataclass(frozen=True, kw_only=True)
class LinearScale(Scale):
    """Sizes of the linear experiment."""

    samples: Annotated[int, "right-hand sides, 70 % train"] = 500
    starts: Annotated[int, "starts of the training"] = 12
    tried: Annotated[int, "right-hand sides, drawn anew, on which every solver is tried"] = 200
    dimension: Annotated[int, "unknowns of the embedded systems Q A Q^T"] = 15


class Linear(Experiment):
    """Rows of the tables are what R2N2 was trained on, and its peers."""

    id = "r2n2-linear"
    title = "R2N2 on linear systems"
    claim = (
        "Training reaches the best polynomial within 0.1 %, one iteration of four products comes close to GMRES(4) and "
        "never beats it, and the course does not change when the systems are embedded in more unknowns."
    )
    source = "R2N2, Sec. 4.1, Figs 4, 5 and 6"
    scales: ClassVar = {
        "smoke": LinearScale(seeds=1, samples=60, starts=4, tried=20),
        "cpu": LinearScale(seeds=3),
        "paper": LinearScale(seeds=10, tried=1000),
    }
    scaled_down: ClassVar = {"smoke": "60 right-hand sides for training and 20 for trying instead of 500 and 200"}
    tables: ClassVar = (
        Table(
            "What training reaches",
            (
                Column("loss", "Loss", fmt=".5e"),
                Column("optimum", "Optimum", fmt=".5e"),
                Column("loss ratio", "Loss over optimum", fmt=".6f", better="low"),
                Column("test loss", "Test loss", fmt=".3e"),
                Column("at optimum", "Starts within 0.1 %", "%", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", fmt=".2f"),
                Column("embedding", "Fig 6: change when embedded", fmt=".1e"),
                Column("embedding 1", "the same, k = 1", fmt=".1e"),
            ),
            rows=tuple(TRAININGS),
            caption="Four stages, T = 3 iterations with weights 4^k unless said. Optimum: the best polynomial for the "
            "same right-hand sides, by SciPy over its coefficients from 24 starts (linear least squares for T = 1). "
            "Fig 6: largest change of a residual, relative to that of x_0, when A becomes Q A Q^T in 15 dimensions, "
            "over five iterations. The paper gives no losses.",
        ),
        Table(
            "Fig 4: one iteration against one of GMRES(4)",
            tuple(
                Column(f"ratio {name} {part}", f"{name}, {label}", fmt=".5f")
                for name in ("A1", "A2", "A3")
                for part, label in (("p25", "25 %"), ("p50", "median"), ("p75", "75 %"), ("max", "largest"))
            ),
            rows=(*TRAININGS, MINIMAX, SQUARES, *CLASSICAL),
            caption="(|f(x_0)| - |f(x_1)|) over the same of SciPy's GMRES(4): 1 is as good. Quartiles over the "
            "right-hand sides. Fig 4a: row 'on A1', column A1; Fig 4b: row 'on A1 to A3'. The paper shows boxes "
            "without numbers. Chebyshev, Anderson, Richardson and Picard take four steps, as many evaluations.",
        ),
        Table(
            "Fig 5: mean residual on A1",
            (
                *(Column(f"residual {k}", f"after {k}", fmt=".2e", better="low" if k else "") for k in range(PATH + 1)),
                Column("evals p25", "Evaluations to 1e-8, 25 %", fmt=".0f"),
                Column("evals p50", "median", fmt=".0f", better="low"),
                Column("evals p75", "75 %", fmt=".0f"),
            ),
            caption="After k iterations of four evaluations (GMRES(4): and a fifth for the residual it restarts from). "
            "GMRES and Anderson adapt to every right-hand side, by inner products, of which R2N2 needs none. Chebyshev "
            "and Richardson, with the best damping, are told the spectrum of A1; minimax(4) that of A1 to A7 together. "
            "Evaluations count the one that shows the residual; inf: not within 20 iterations.",
        ),
    )
    figures: ClassVar = (
        Figure("Fig 5: residual against evaluations on A1", ("residual",), "Mean 2-norm over the right-hand sides.",
               rows=("on A1", "on A1 to A3", MINIMAX, SQUARES, GMRES, *CLASSICAL)),
        Figure("Fig 6: the same in 15 dimensions", ("residual", "embedded"),
               "Mean residual on A1 and on Q A1 Q^T: two lines that coincide.", rows=(TOGETHER,)),
    )  # fmt: skip

    def cells(self, scale: LinearScale) -> Sequence[str]:
        return (*TRAININGS, *PEERS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: LinearScale = context.scale
        if cell == GMRES:
            found = gmres_course(*_systems(A1, _tried(self.id, A1, seed, scale)), STAGES, PATH)
            return outcome(_path(found, 1), {"residual": _shown(found, cell)})
        solver, metrics = _trained(cell, seed, scale) if cell in TRAININGS else (peer(cell, seed, scale), {})
        context.progress(f"{cell} against GMRES(4)")
        per = STAGES if cell in CLASSICAL else 1
        batch = _tried(self.id, A1, seed, scale)
        found = course(solver, A1.equation(batch), batch.x0, 20 * per)
        metrics |= _path(found, per)
        for name, family in (("A1", A1), ("A2", A2), ("A3", A3)):
            metrics |= _ratios(name, solver, family, _tried(self.id, family, seed, scale), per)
        curves = {"residual": _shown(found, cell)}
        if cell in TRAININGS:
            embedded = _embedded(self.id, solver, seed, scale)
            gap = (embedded.residual - found.residual[:, : PATH + 1]).abs() / found.residual[:, :1]
            metrics |= {"embedding": float(gap.max()), "embedding 1": float(gap[:, 1].max())}
            curves["embedded"] = _shown(embedded, cell)
        return outcome(metrics, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        reach = "the seed farthest from 1; below 1 the optimum would be none"
        found = [
            *(
                Check.within(f"{t}: loss over optimum", _farthest(results, t), 1 - 1e-6, 1.001, reach)
                for t in TRAININGS
            ),
            *(Check.at_most(f"{t}: change when embedded", _worst(results, t, "embedding"), 1e-9) for t in TRAININGS),
            Check.at_most("ratio to GMRES(4) - 1, every sample, matrix and training", _excess(results), 1e-9),
        ]
        return found if results.scale_name == "smoke" else [*found, *_published(results)]


def _published(results: Results) -> list[Check]:
    """Figs 4 and 5, and the least that is to be expected of what was learned."""
    mean = results.mean
    medians = {name: mean(TOGETHER, f"ratio {name} p50") for name in FIG_4}
    over = mean(TOGETHER, "residual 3") / mean("Richardson", "residual 3")
    return [
        Check.at_least("Fig 4a: median ratio on A1, trained on it", mean(ALONE, "ratio A1 p50"), 0.999),
        *(Check.within(f"Fig 4b: median ratio on {n}", medians[n], v - 0.015, v + 0.015) for n, v in FIG_4.items()),
        *(_on_course(results, TOGETHER, k, value) for k, value in enumerate(FIG_5)),
        *(_on_course(results, GMRES, k, value) for k, value in enumerate(FIG_5_GMRES)),
        Check.at_most("residual after 3 iterations over Richardson's", over, 1.0),
    ]


def _on_course(results: Results, cell: str, k: int, value: float) -> Check:
    """Within 10 % an iteration, since the right-hand sides are others."""
    slack = 1.1 ** max(k, 1)
    measured = results.mean(cell, f"residual {k}")
    return Check.within(f"Fig 5: {cell}: residual after {k}", measured, value / slack, value * slack)


def _farthest(results: Results, cell: str) -> float:
    """The ratio of loss and optimum that is farthest from 1; nan when there is none."""
    return max(results.values(cell, "loss ratio"), key=lambda ratio: abs(ratio - 1), default=float("nan"))


def _worst(results: Results, cell: str, metric: str) -> float:
    return max(results.values(cell, metric), default=float("nan"))


def _excess(results: Results) -> float:
    """By how much any ratio exceeds 1; nan when a training is missing."""
    values = [_worst(results, cell, f"ratio {name} max") for cell in TRAININGS for name in ("A1", "A2", "A3")]
    return float(torch.tensor(values, dtype=torch.float64).max()) - 1


def _trained(cell: str, seed: int, scale: LinearScale) -> tuple[Solver, dict[str, float]]:
    training = TRAININGS[cell]
    family, weights = training.family, training.weights
    batch = family.sample(scale.samples, generator_from(Linear.id, "training", seed))
    begin = time.process_time()
    found = fit(
        R2N2(STAGES), family, len(weights), lambda k: weights[k - 1], LevenbergMarquardt(scale.starts),
        samples=batch, seed=seed_from(seed) % 10**6,
    )  # fmt: skip
    seconds = time.process_time() - begin
    train, _ = batch.split()
    optimum = optimal_loss(train, _systems(family, train)[0], STAGES, weights)
    return found.solver, {
        "loss": found.loss,
        "optimum": optimum,
        "loss ratio": found.loss / optimum,
        "test loss": found.test_loss,
        "at optimum": 100 * float((found.losses <= 1.001 * optimum).double().mean()),
        "training seconds": seconds,
    }


def peer(cell: str, seed: int, scale: LinearScale) -> Solver:
    """The solvers that are not R2N2 with trained output weights."""
    assert A1.interval is not None
    low, high = A1.interval
    if cell == MINIMAX:
        return minimax(STAGES, *joint_interval())
    if cell == SQUARES:
        batch = A1.sample(scale.samples, generator_from(Linear.id, "training", seed))
        trainer = LevenbergMarquardt(scale.starts, spread=0.1)
        return fit(R2N2(STAGES, output="least_squares"), A1, 3, trainer=trainer, samples=batch).solver
    damping = 1 - 2 / (2 - low - high)  # the best on the spectrum 1 - [low, high] of A; negative where that is small
    classical = {"Chebyshev": Chebyshev(low, high), "Anderson(4)": Anderson(4), "Picard": Picard()}
    return classical.get(cell) or R2N2.from_tableau(richardson(damping))


def joint_interval() -> tuple[float, float]:
    """What holds the spectra of I - A for A1 to A7."""
    ends = [LinearFamily(f"A{i}").interval or (0.0, 0.0) for i in range(1, 8)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _tried(name: str, family: LinearFamily, seed: int, scale: LinearScale) -> Batch:
    return family.sample(scale.tried, generator_from(name, "tried", seed))


def _systems(family: Family, batch: Batch) -> tuple[Tensor, Tensor]:
    """A (n, m, m) and b (n, m)."""
    b = batch.parameters["b"]
    if isinstance(family, LinearFamily):
        return family.dense.expand(len(b), -1, -1), b
    return batch.parameters["A"], b


def _ratios(name: str, solver: Solver, family: LinearFamily, batch: Batch, per: int) -> dict[str, float]:
    A, b = _systems(family, batch)
    found = course(solver, *linear_batch(A, b), per)
    last = Course(found.evals[:, ::per], found.residual[:, ::per])
    ratio = gain_ratio(last, gmres_course(A, b, STAGES, 1), 1)
    return quartiles(f"ratio {name}", ratio) | {f"ratio {name} max": float(ratio.max())}


def _embedded(name: str, solver: Solver, seed: int, scale: LinearScale) -> Course:
    family = A1.embedded(scale.dimension, generator_from(name, "frame", seed))
    batch = _tried(name, family, seed, scale)
    return course(solver, family.equation(batch), batch.x0, PATH)


def _path(found: Course, per: int) -> dict[str, float]:
    path = {f"residual {k}": float(found.residual[:, k * per].mean()) for k in range(PATH + 1)}
    spent = quartiles("evals", found.within(1e-8))
    return path | spent | {"evals": spent["evals p50"]}


def _shown(found: Course, group: str) -> dict[str, Any]:
    """Mean residual against evaluations, as far as it is above rounding and the first 20 evaluations go."""
    y, x = found.residual.mean(0), found.evals.mean(0)
    seen = (x <= 25) & (y > 1e-14)
    return curve(x[seen].tolist(), y[seen].tolist(), y_label="mean residual, 2-norm", log_y=True, group=group)


EXPERIMENT = Linear()
