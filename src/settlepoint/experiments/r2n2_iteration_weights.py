"""R2N2 with output weights of its own for every iteration: SM Fig 9, and what of it is an artefact of training."""

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
from settlepoint.experiments.r2n2_parts import gmres_course, optimal_loss
from settlepoint.learn import Adam, Fit, LevenbergMarquardt, fit
from settlepoint.learn.trainer import Trainer
from settlepoint.problems import Batch, LinearFamily
from settlepoint.runs import generator_from
from settlepoint.runs.seeds import seed_from
from settlepoint.solvers import R2N2, Anderson, Chebyshev, Picard, Solver

STAGES, HORIZONS, BEYOND = 2, (2, 3, 4, 5), 4
FAMILY = LinearFamily("A1")
OURS = tuple(f"T = {t}" for t in HORIZONS)
ADAM = tuple(f"T = {t}, Adam" for t in HORIZONS)
EQUAL, SHARED, GMRES = "T = 3, Adam from equal weights", "T = 3, shared weights", "GMRES(2), scipy"
CLASSICAL = ("Chebyshev", "Anderson(4)", "Picard")
SPREAD = 0.3  # of the weights that Adam starts from


@dataclass(frozen=True, kw_only=True)
class WeightsScale(Scale):
    """Sizes of the experiment on weights per iteration."""

    samples: Annotated[int, "right-hand sides, 70 % train"] = 500
    starts: Annotated[int, "starts of Levenberg-Marquardt"] = 12
    epochs: Annotated[int, "epochs of Adam"] = 2000
    tried: Annotated[int, "right-hand sides, drawn anew, on which every solver is tried"] = 200


class IterationWeights(Experiment):
    """Rows are numbers of iterations T trained for, by Levenberg-Marquardt and by Adam, and peers."""

    id = "r2n2-iteration-weights"
    title = "R2N2 with weights for every iteration"
    claim = (
        "Two stages with output weights per iteration solve A1 exactly from three iterations on; the stagnation that "
        "the paper shows is one of its training. Beyond T the last weights gain no more than a fixed factor a step."
    )
    source = "R2N2, SM3.3, SM Fig 9"
    scales: ClassVar = {
        "smoke": WeightsScale(seeds=1, samples=60, starts=6, epochs=100, tried=20),
        "cpu": WeightsScale(seeds=3),
        "paper": WeightsScale(seeds=10, epochs=25_000, tried=1000),
    }
    scaled_down: ClassVar = {
        "smoke": "60 right-hand sides, 6 starts, and Adam for 100 epochs instead of 25,000",
        "cpu": "Adam runs for 2,000 epochs instead of 25,000, from one start",
    }
    tables: ClassVar = (
        Table(
            "Loss on the final iterate",
            (
                Column("loss", "Loss", fmt=".2e", better="low"),
                Column("optimum", "Optimum", fmt=".2e"),
                Column("test loss", "Test loss", fmt=".2e"),
                Column("solved starts", "Starts below 1e-12", "%", fmt=".0f"),
                Column("radius", "Radius of the last weights", fmt=".3g"),
                Column("training seconds", "Training", "CPU s", fmt=".2f"),
            ),
            rows=(*OURS, *ADAM, EQUAL, SHARED),
            caption="n = 2, weight 1 on iteration T and 0 before it. T iterations multiply T quadratic polynomials, so "
            "the optimum is that of one polynomial of degree 2 T: least squares by NumPy for T = 2 (two quadratics "
            "make every real quartic), 0 from T = 3 on, since A1 has five eigenvalues. Shared weights: one quadratic "
            "for all iterations. Adam: learning rate .001, one start, theta = 1 + N(0, .3^2); from equal weights: 1 "
            "everywhere, which the symmetric loss keeps equal, as if shared. Radius: of the operator that the last "
            "weights repeat; the loss does not see the order of the quadratics, so which is last is chance. The paper "
            "shows curves alone.",
        ),
        Table(
            "Mean residual, and evaluations",
            (
                *(Column(f"residual {k}", f"after {k}", fmt=".1e", better="low" if k else "") for k in range(6)),
                Column("residual end", "4 beyond T", fmt=".1e"),
                Column("evals p25", "Evaluations to 1e-8, 25 %", fmt=".0f"),
                Column("evals p50", "median", fmt=".0f", better="low"),
                Column("evals p75", "75 %", fmt=".0f"),
            ),
            caption="After k iterations of two evaluations, over right-hand sides drawn anew. Beyond T the last "
            "weights are reused. GMRES(2) takes a third evaluation for the residual it restarts from. Chebyshev is "
            "told the spectrum; Anderson(4) keeps four differences; '4 beyond T' is after 9 iterations for these. "
            "inf: not within T + 4 iterations, 20 of GMRES, 40 evaluations of the others.",
        ),
    )
    figures: ClassVar = (
        Figure("SM Fig 9: residual against evaluations", ("residual",), "Mean 2-norm; four iterations beyond T.",
               rows=(*OURS, SHARED, GMRES, *CLASSICAL)),
        Figure("Trained by Adam", ("residual",), "After as many epochs as the scale says.", rows=(*ADAM, EQUAL)),
        Figure("Course of training", ("training",), "Least loss so far against seconds of training; Adam levels off.",
               rows=(*OURS[1:], *ADAM[1:], EQUAL)),
    )  # fmt: skip

    def cells(self, scale: WeightsScale) -> Sequence[str]:
        return (*OURS, *ADAM, EQUAL, SHARED, GMRES, *CLASSICAL)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: WeightsScale = context.scale
        context.progress(cell)
        batch = FAMILY.sample(scale.tried, generator_from(self.id, "tried", seed))
        if cell == GMRES:
            b = batch.parameters["b"]
            found = gmres_course(FAMILY.dense.expand(len(b), -1, -1), b, STAGES, 20)
            return outcome(_path(found, 1, 9), {"residual": _shown(found, cell)})
        if cell in CLASSICAL:
            found = course(_classical(cell), FAMILY.equation(batch), batch.x0, 40)
            return outcome(_path(found, STAGES, 9), {"residual": _shown(found, cell)})
        solver, metrics, training = _trained(cell, seed, scale)
        end = _horizon(cell) + BEYOND
        found = course(solver, FAMILY.equation(batch), batch.x0, end)
        curves = {"residual": _shown(found, cell), "training": training}
        return outcome(_path(found, 1, end) | metrics, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        exact = [name for name in OURS if _horizon(name) >= 3]
        found = [Check.at_most(f"{name}: loss", _largest(results, name, "loss"), 1e-12) for name in exact]
        found.append(Check.within("T = 2: loss over optimum", _ratio(results, "T = 2"), 1 - 1e-6, 1.001))
        if results.scale_name == "smoke":
            return found
        gain = results.mean("T = 3", "loss") / results.mean(SHARED, "loss")
        adam = {name: results.mean(f"{name}, Adam", "loss") for name in exact}
        return [
            *found,
            *(Check.at_least(f"{name}, Adam: loss", loss, 1e-12, "it stagnates") for name, loss in adam.items()),
            Check.at_most("T = 3: loss over that with shared weights", gain, 1e-6),
            Check.at_least(
                "Adam from equal weights: loss over that with shared weights", _ratio_to_shared(results), 0.999
            ),
            Check.at_most("T = 2: residual 4 beyond T over radius^4 times that at T", _bound(results), 1 + 1e-9),
        ]


def _ratio_to_shared(results: Results) -> float:
    return results.mean(EQUAL, "loss") / results.mean(SHARED, "loss")


def _bound(results: Results) -> float:
    """The largest of the seeds; A1 is symmetric, so the radius bounds every step."""
    rows = [record.metrics for record in results.of("T = 2")]
    ratios = [m["residual end"] / (m["residual 2"] * m["radius"] ** BEYOND) for m in rows]
    return max(ratios, default=float("nan"))


def _largest(results: Results, cell: str, metric: str) -> float:
    return max(results.values(cell, metric), default=float("nan"))


def _ratio(results: Results, cell: str) -> float:
    return results.mean(cell, "loss") / results.mean(cell, "optimum")


def _horizon(cell: str) -> int:
    """T of a cell."""
    return int(cell.removeprefix("T = ").split(",")[0])


def _classical(cell: str) -> Solver:
    assert FAMILY.interval is not None
    return {"Chebyshev": Chebyshev(*FAMILY.interval), "Anderson(4)": Anderson(4), "Picard": Picard()}[cell]


def _trained(cell: str, seed: int, scale: WeightsScale) -> tuple[R2N2, dict[str, float], dict[str, Any]]:
    """The solver of a cell, what its training gave, and the course of it."""
    t = _horizon(cell)
    batch = FAMILY.sample(scale.samples, generator_from(IterationWeights.id, "training", seed))
    slow = cell in (*ADAM, EQUAL)
    trainer = Adam(epochs=scale.epochs) if slow else LevenbergMarquardt(scale.starts, iterations=200, keep=1.0)
    solver = R2N2(STAGES, per_iteration=None if cell == SHARED else t)
    if cell in ADAM:
        noise = torch.randn(len(solver.theta), generator=generator_from(IterationWeights.id, cell, seed))
        solver.assign(solver.theta + SPREAD * noise.double())
    found, seconds = _fitted(solver, t, trainer, batch, seed)
    assert isinstance(found.solver, R2N2)
    train, _ = batch.split()
    metrics = {
        "loss": found.loss,
        "test loss": found.test_loss,
        "solved starts": 100 * float((found.losses <= 1e-12).double().mean()),
        "radius": float(torch.linalg.eigvals(last_operator(found.solver, FAMILY.dense)).abs().max()),
        "training seconds": seconds,
    }
    if cell != SHARED:
        A = FAMILY.dense.expand(len(train), -1, -1)
        metrics["optimum"] = optimal_loss(train, A, 2 * t, (1.0,)) if t == 2 else 0.0
    losses = [entry["loss"] for entry in found.history]
    times = [seconds * (i + 1) / len(losses) for i in range(len(losses))]
    course_of_it = curve(times, losses, x_label="CPU seconds", y_label="least loss", log_y=True, group=cell)
    return found.solver, metrics, course_of_it


def _fitted(solver: R2N2, t: int, trainer: Trainer, batch: Batch, seed: int) -> tuple[Fit, float]:
    begin = time.process_time()
    last = lambda k: float(k == t)  # noqa: E731
    found = fit(solver, FAMILY, t, last, trainer, samples=batch, seed=seed_from(seed) % 10**6)
    return found, time.process_time() - begin


def last_operator(solver: R2N2, A: Tensor) -> Tensor:  # (m, m)
    """What the last output weights do to a residual: I - (b_0 + b_1) A + a b_1 A^2 for two stages."""
    inner, b = (part.detach() for part in solver.tableau(solver.per_iteration or 0))
    return torch.eye(len(A), dtype=A.dtype) - b.sum() * A + inner[1, 0] * b[1] * A @ A


def _path(found: Course, per: int, end: int) -> dict[str, float]:
    """Mean residuals after 0 to 5 iterations and after `end`, and evaluations to 1e-8."""
    path = {f"residual {k}": float(found.residual[:, k * per].mean()) for k in range(6)}
    spent = quartiles("evals", found.within(1e-8))
    return path | spent | {"residual end": float(found.residual[:, end * per].mean()), "evals": spent["evals p50"]}


def _shown(found: Course, group: str) -> dict[str, Any]:
    y, x = found.residual.mean(0), found.evals.mean(0)
    seen = (x <= 20) & (y > 0)
    return curve(x[seen].tolist(), y[seen].tolist(), y_label="mean residual, 2-norm", log_y=True, group=group)


EXPERIMENT = IterationWeights()
