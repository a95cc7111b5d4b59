"""pign-iterations: what more iterations at test do to a PIGN, by solver and by the gradient it was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch

from settlepoint import Anderson, Equation, FixedSteps, Implicit, Picard, Tolerance, Truncated, Unrolled, solve
from settlepoint.experiments.citations import SETS, classes, majority
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    above_trivial,
    curve,
    outcome,
)
from settlepoint.layers import adjacency
from settlepoint.models import PIGN, Graphs
from settlepoint.runs import seeded
from settlepoint.training import NodeTask, accuracy, fit_nodes
from settlepoint.training.presets import published, recipe, settled

SOLVERS = {"Picard": Picard(), "smoothing": Picard(damping=0.7), "Anderson": Anderson(5)}
MULTIPLES = (1.0, 1.5, 2.0, 3.0, 4.0)
GRADIENTS = ("unrolled", "implicit", "truncated")
SETTLES = Tolerance(atol=0.0, rtol=1e-4, max_steps=300)


@dataclass(frozen=True, kw_only=True)
class IterationsScale(Scale):
    """Sizes of the sweep."""

    hidden: Annotated[int, "features a node inside the loop"] = 16
    epochs: Annotated[int, "steps of Adam on the whole graph"] = 200
    steps: Annotated[int, "iterations in training: K"] = 10
    last: Annotated[int, "evaluations that the truncated gradient goes through"] = 3
    drop: Annotated[float, "points that accuracy may lose from K to 4 K iterations"] = 1.0


class PignIterations(Experiment):
    """A PIGN trained for K iterations, or to its fixed point, and tested at K to 4 K of them."""

    id = "pign-iterations"
    title = "Iterations at test: accuracy and residual"
    claim = (
        "A PIGN with its input injected keeps its accuracy when it is iterated four times as long as in training, by "
        "every solver and whatever gradient it was trained with; the residual falls all the way, Anderson's fastest."
    )
    source = "Operator Learning Meets Numerical Analysis, Algorithm 1 (accuracy against iterations at test)"
    scales = {
        "smoke": IterationsScale(seeds=1, epochs=60, drop=10.0),
        "cpu": IterationsScale(seeds=5),
        "paper": IterationsScale(seeds=100, hidden=64),
    }
    scaled_down = {"smoke": "60 epochs, one seed", "cpu": "5 seeds, 16 hidden features instead of 64"}
    needs = (lambda context: SETS["cora"].task(context),)
    tables = (
        Table(
            "Test accuracy on Cora at K and 4 K iterations",
            (
                *(Column(f"{s} {m:g}K", f"{s}, {m:g} K", "%", ".1f") for s in SOLVERS for m in (1.0, 4.0)),
                Column("training evals", "Convolutions a step in training", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            caption="Weights of the epoch of the best validation accuracy; settled PIGN-GCN, injection .1. unrolled: K "
            "steps of Picard; implicit: Anderson(5) to 1e-4 and the gradient at the fixed point; truncated: the same "
            "forward pass, the gradient of the last evaluations alone; published: the paper's preset, unrolled, whose "
            "loop is damped at test by `smoothing` as in training. Solved in float64.",
        ),
        Table(
            "Residual, relative to ||P(x)||",
            tuple(Column(f"{s} residual {m:g}K", f"{s}, {m:g} K", fmt=".1e") for s in SOLVERS for m in (1.0, 4.0)),
        ),
    )
    figures = (
        Figure("Accuracy", tuple(f"{s} accuracy" for s in SOLVERS), "Test accuracy against iterations at test."),
        Figure("Residual", tuple(f"{s} residual" for s in SOLVERS), "Relative residual against iterations at test."),
    )

    def cells(self, scale: IterationsScale) -> Sequence[str]:
        return (*GRADIENTS, "published")

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale, task = context.scale, SETS["cora"].task(context)
        with seeded(self.id, "fit", cell, seed):
            model = build(cell, (task.x.shape[1], scale.hidden, classes(task)), scale).to(context.device)
            say = lambda epoch, val: context.progress(f"epoch {epoch}, validation {val:.1f} %")  # noqa: E731
            history = fit_nodes(model, task, recipe(scale.epochs), after_epoch=say)
        assert model.settle.last is not None
        spent = {"training evals": float(model.settle.last.evals.max()), "training seconds": history.seconds}
        measured, curves = _swept(model, task, scale.steps)
        return outcome({**spent, **measured, "majority": majority(task)}, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        checks, mean = [], results.mean
        for cell in GRADIENTS:
            for solver in SOLVERS:
                lost = mean(cell, f"{solver} 1K") - mean(cell, f"{solver} 4K")
                checks.append(Check.at_most(f"{cell}, {solver}: points lost from K to 4 K", lost, results.scale.drop))
                ratio = mean(cell, f"{solver} residual 4K") / mean(cell, f"{solver} residual 1K")
                checks.append(Check.at_most(f"{cell}, {solver}: residual at 4 K over that at K", ratio, 0.5))
            quick = mean(cell, "Anderson residual 4K") / mean(cell, "Picard residual 4K")
            checks.append(Check.at_most(f"{cell}: residual at 4 K, Anderson over Picard", quick, 0.1))
        settles = replace(results, records=[record for record in results.records if record.cell in GRADIENTS])
        return [*checks, *above_trivial(settles, "Picard 4K", "majority", predictor="majority class")]


def build(cell: str, channels: tuple[int, int, int], scale: IterationsScale) -> PIGN:
    """The model of a cell; weights from torch's global generator."""
    if cell == "published":
        return published(channels, steps=scale.steps, normalize=False)
    model = settled(channels, steps=scale.steps, normalize=False)
    if cell != "unrolled":
        model.settle.solver, model.settle.stop = Anderson(5), SETTLES
    by_name = {"unrolled": Unrolled(), "implicit": Implicit(Anderson(5), SETTLES), "truncated": Truncated(scale.last)}
    model.settle.adjoint = by_name[cell]
    return model


@torch.no_grad()
def _swept(model: PIGN, task: NodeTask, steps: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Accuracy and relative residual of every solver at multiples of K, in float64."""
    model, graphs = model.double().eval(), _double(task.graphs)
    u = model.encode(task.x.double(), graphs)
    eq = Equation(model.operator, context=(u, *model.context(graphs)))
    metrics, curves = {}, {}
    for name, solver in SOLVERS.items():
        scores, residuals = [], []
        for multiple in MULTIPLES:
            solution = solve(eq, u, solver, FixedSteps(round(multiple * steps), check=True))
            scores.append(accuracy(model.decode(solution.value, graphs)[task.test], task.y[task.test]))  # type: ignore[arg-type]
            residuals.append(float(solution.residual / torch.linalg.vector_norm(eq.image(solution.value))))  # type: ignore[arg-type]
        metrics |= {f"{name} {m:g}K": score for m, score in zip(MULTIPLES, scores, strict=True)}
        metrics |= {f"{name} residual {m:g}K": r for m, r in zip(MULTIPLES, residuals, strict=True)}
        label = "iterations at test, in units of K"
        curves[f"{name} accuracy"] = curve(MULTIPLES, scores, x_label=label, y_label="test accuracy (%)", group=name)
        curves[f"{name} residual"] = curve(MULTIPLES, residuals, x_label=label, log_y=True, group=name)
    return metrics, curves


def _double(graphs: Graphs) -> Graphs:
    """The same graph with A in float64, made anew."""
    links, nodes = graphs.edges.to_sparse_coo().indices(), len(graphs.index)
    return replace(graphs, edges=adjacency(links, nodes, torch.float64))


EXPERIMENT = PignIterations()
