"""shortest-path: distances learned on small graphs and asked for on graphs of hundreds of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint import FixedSteps, Picard, Tolerance
from settlepoint.data.graph_set import GraphSet
from settlepoint.data.shortest_paths import Kind, shortest_paths
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
from settlepoint.layers import Weighted
from settlepoint.layers.halting import SPENT
from settlepoint.layers.path import Featured, PathConv
from settlepoint.models import PIGN, IterGNN
from settlepoint.runs import generator_from, seeded
from settlepoint.training.graphs import GraphRecipe, batched, fit_graphs

TRIVIAL = "mean"
SERVED = Tolerance(atol=0.0, rtol=1e-6, max_steps=400, growth=1e9, window=400)
ITERATIONS = (5, 10, 20, 40, 80)


@dataclass(frozen=True, kw_only=True)
class PathScale(Scale):
    """Sizes of the experiment."""

    kind: Annotated[Kind, "planar (Delaunay), nearest (neighbours) or random (Erdos-Renyi) graphs"] = "planar"
    train: Annotated[int, "graphs of 4 to 33 nodes to train on"] = 400
    small: Annotated[int, "graphs of 4 to 33 nodes to test on"] = 100
    large: Annotated[int, "larger graphs to test on"] = 8
    nodes: Annotated[int, "nodes of a larger graph"] = 500
    hidden: Annotated[int, "features a node"] = 16
    steps: Annotated[int, "iterations in training, and layers of the network of fixed depth"] = 16
    longest: Annotated[int, "iterations that IterGNN may take at test"] = 100
    epochs: Annotated[int, "passes over the training graphs"] = 40
    lr: Annotated[float, "largest learning rate of Adam"] = 5e-3
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class ShortestPath(Experiment):
    """One convolution that takes the best message, iterated in four ways, and the mean beside them."""

    id = "shortest-path"
    title = "Shortest paths, from small graphs to large ones"
    claim = (
        "A PIGN that is trained on graphs of at most 33 nodes and iterated at test until it settles finds distances in "
        "graphs of 500 nodes within some per cent. As many layers with weights of their own are closer on small graphs "
        "and several times as far off on large ones, and so is IterGNN, which says itself when to end."
    )
    source = "Tang et al. (2020), weighted shortest paths; generated anew"
    scales = {
        "smoke": PathScale(seeds=1, train=8, small=4, large=2, nodes=40, hidden=4, steps=3, epochs=2, thresholds=False),
        "cpu": PathScale(seeds=3),
        "paper": PathScale(seeds=10, train=10_000, small=1000, large=100, nodes=1000, hidden=64, steps=30),
    }
    scaled_down = {
        "smoke": "8 graphs, 2 epochs, 40 nodes instead of 1000",
        "cpu": "400 training graphs, 500 nodes instead of 1000, 16 features instead of 64, 3 seeds",
    }
    tables = (
        Table(
            "Mean relative error of the distance",
            (
                Column("small", "4 to 33 nodes", "%", ".1f", better="low"),
                Column("large", "Larger graphs", "%", ".1f", better="low"),
                Column("small iterations", "Iterations, 4 to 33 nodes", fmt=".1f"),
                Column("large iterations", "Iterations, larger graphs", fmt=".1f"),
                Column("settled", "Larger graphs that settled", "%", ".0f"),
                Column("evals", "Convolutions, larger graphs", fmt=".0f"),
                Column("diverged", "Diverged", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            caption="Mean over all nodes but the source, of graphs that no model has seen. Every model iterates a "
            "PathConv with loops, is trained by the same loop and keeps the weights of the last epoch. itergnn: ends "
            "when each graph is sure, after `longest` iterations at most, all of which are computed; fork: the variant "
            "PIGN was compared with; pign: gated injection, trained for `steps` iterations, at test Picard to a "
            "relative residual of 1e-6 for each graph; untied: `steps` layers with weights of their own; mean: the "
            "mean distance of the training nodes. At test in float64.",
        ),
    )
    figures = (
        Figure(
            "Larger graphs", ("large by iterations",), "Error on the larger graphs, whatever the model would choose.",
            rows=("itergnn", "fork", "pign"),
        ),
    )  # fmt: skip

    def cells(self, scale: PathScale) -> Sequence[str]:
        return ("itergnn", "fork", "pign", "untied", TRIVIAL)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale = context.scale
        train, watched, small, large = sets(scale, seed, context.device)
        trivial = {f"{TRIVIAL} small": mean_error(train, small), f"{TRIVIAL} large": mean_error(train, large)}
        if cell == TRIVIAL:
            return outcome({"small": trivial["mean small"], "large": trivial["mean large"], "evals": 0, **trivial})
        with seeded(self.id, "fit", cell, seed):
            model = build(cell, scale).to(context.device)
        say = lambda epoch, score: context.progress(f"epoch {epoch}, error {-score:.1f} %")  # noqa: E731
        history = fit_graphs(
            model, train, watched, GraphRecipe(epochs=scale.epochs, lr=scale.lr, schedule="onecycle", clip=1.0),
            generator=generator_from(self.id, "order", seed), seen=featured,
            score=lambda found, y: -error(found, y), after_epoch=say,
        )  # fmt: skip
        spent = {"training seconds": history.seconds, "diverged": float(history.diverged is not None)}
        near, far = served(model.double(), small, scale), served(model, large, scale)
        metrics = {
            **{"small": near["error"], "small iterations": near["iterations"]},
            **{"large": far["error"], "large iterations": far["iterations"], "evals": far["evals"]},
            **({"settled": far["settled"]} if isinstance(model, PIGN) else {}),
        }
        return outcome(metrics | spent | trivial, by_iterations(model, large, cell))

    def checks(self, results: Results) -> Sequence[Check]:
        mean = results.mean
        fitted = replace(results, records=[record for record in results.records if record.cell != TRIVIAL])
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        over = {cell: mean(cell, "large") / mean("pign", "large") for cell in ("itergnn", "fork", "untied")}
        return [
            Check.at_most("pign, error on small graphs (%)", mean("pign", "small"), 3.0),
            Check.at_most("pign, error on larger graphs (%)", mean("pign", "large"), 8.0),
            Check.at_least("pign, larger graphs that settled (%)", mean("pign", "settled"), 100.0),
            Check.at_most("untied, error on small graphs (%)", mean("untied", "small"), 1.0),
            Check.at_least("untied over pign, error on larger graphs", over["untied"], 3.0),
            Check.at_least("itergnn over pign, error on larger graphs", over["itergnn"], 2.0),
            Check.at_least("fork over pign, error on larger graphs", over["fork"], 2.0),
            *above_trivial(fitted, "small", f"{TRIVIAL} small", predictor="mean distance", lower=True),
            *above_trivial(fitted, "large", f"{TRIVIAL} large", predictor="mean distance", lower=True),
        ]


class Untied(nn.Module):
    """h_k = conv_k(h_{k-1}) for as many layers, between a linear encoder and a linear decoder."""

    def __init__(self, channels: tuple[int, int, int], layers: int, edge_features: int = 1):
        super().__init__()
        features, hidden, outputs = channels
        self.encoder, self.decoder = nn.Linear(features, hidden), nn.Linear(hidden, outputs)
        self.convs = nn.ModuleList(PathConv(hidden, edge_features, loops=True) for _ in range(layers))

    def forward(self, x: Tensor, graphs: Featured) -> Tensor:
        h = self.encoder(x)
        for conv in self.convs:
            h = conv(h, graphs.edges)
        return self.decoder(h)


def build(cell: str, scale: PathScale) -> nn.Module:
    """The model of a cell; weights from torch's global generator."""
    channels = (1, scale.hidden, 1)
    if cell == "untied":
        return Untied(channels, scale.steps)
    conv = PathConv(scale.hidden, 1, loops=True)
    if cell == "pign":
        return PIGN(
            conv, channels, injection="gated", transport="learned", solver=Picard(), stop=FixedSteps(scale.steps)
        )
    return {"itergnn": IterGNN, "fork": IterGNN.fork}[cell](conv, channels, steps=scale.steps)


def weighted(part: GraphSet) -> Weighted:
    """A batch with the features of its edges."""
    assert part.edge_x is not None
    return Weighted(batched(part), part.edge_x)


def featured(part: GraphSet) -> Featured:
    """The same for a PathConv inside of a model."""
    return Featured(weighted(part))


def error(found: Tensor, y: Tensor) -> float:
    """Mean of |found - y| / y in per cent over the nodes with y > 0: all but the source."""
    asked = y > 0
    return 100.0 * float(((found - y).abs() / y)[asked].mean())


def mean_error(train: GraphSet, data: GraphSet) -> float:
    """`error` of the mean over the training nodes with y > 0."""
    return error(train.y[train.y > 0].mean().expand(len(data.y)), data.y)


@torch.no_grad()
def served(model: nn.Module, data: GraphSet, scale: PathScale) -> dict[str, float]:
    """error (%), iterations a graph, evals (all that were computed), and settled (% of the graphs), as it is used."""
    if isinstance(model, PIGN):
        model.settle.stop = SERVED
    elif isinstance(model, IterGNN):
        model.settle.stop = FixedSteps(scale.longest)
    with working(model) as steps:
        found = predicted(model, data)
    if not isinstance(model, PIGN | IterGNN):
        return {"error": error(found, data.y), "iterations": scale.steps, "evals": scale.steps}
    last = model.settle.last
    assert last is not None
    iterations = sum(steps) if isinstance(model, IterGNN) else float(last.steps.double().mean())
    settled = 100.0 * float(last.converged.double().mean())
    evals = float(last.evals.max())
    return {"error": error(found, data.y), "iterations": iterations, "evals": evals, "settled": settled}


def predicted(model: nn.Module, data: GraphSet) -> Tensor:  # (N,)
    """What a model in float64 says of every node, all graphs in one batch."""
    data = data.to(data.x.device, torch.float64)
    return model.eval()(data.x, featured(data))[:, 0].to(data.y.dtype)


@contextmanager
def working(model: nn.Module) -> Iterator[list[float]]:
    """The share of graphs that had not yet ended, before each evaluation; their sum is the mean steps of a graph."""
    shares: list[float] = []
    if not isinstance(model, IterGNN):
        yield shares
        return
    note: Callable[[nn.Module, Any], None] = lambda _, given: shares.append(  # noqa: E731
        float((given[0][2] > SPENT).double().mean())
    )
    hook = model.operator.register_forward_pre_hook(note)
    try:
        yield shares
    finally:
        hook.remove()


@torch.no_grad()
def by_iterations(model: nn.Module, data: GraphSet, cell: str) -> dict[str, Any]:
    """The error for fixed numbers of iterations."""
    if not isinstance(model, PIGN | IterGNN):
        return {}
    errors = []
    for steps in ITERATIONS:
        model.settle.stop = FixedSteps(steps)
        errors.append(error(predicted(model, data), data.y))
    label = {"x_label": "iterations at test", "y_label": "relative error (%)"}
    return {"large by iterations": curve(ITERATIONS, errors, **label, log_y=True, group=cell)}


@cache
def sets(scale: PathScale, seed: int, device: str) -> tuple[GraphSet, ...]:
    """Graphs to train on, to watch, small and large ones to test on; the same for every cell."""
    draw = generator_from("shortest-path", "graphs", seed)
    some = lambda count, **size: shortest_paths(count, draw, kind=scale.kind, **size).to(device)  # noqa: E731
    return some(scale.train), some(10), some(scale.small), some(scale.large, nodes=(scale.nodes, scale.nodes))


EXPERIMENT = ShortestPath()
