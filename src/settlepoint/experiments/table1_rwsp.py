"""table1-rwsp: labels that come from hundreds of links away, by a random walk whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import torch
from torch import nn

from settlepoint import FixedSteps, Picard
from settlepoint.data.graph_set import GraphSet
from settlepoint.data.random_walk import random_walks
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
from settlepoint.experiments.table1_models import parameters
from settlepoint.layers import Activated, pyg, transported
from settlepoint.layers.weighted import csr
from settlepoint.models import PIGN, Graphs
from settlepoint.runs import generator_from, seeded
from settlepoint.training.graphs import GraphRecipe, commonest, evaluated, fit_graphs

ITERATED = ("published", "constant", "gated")
MULTIPLES = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class RwspScale(Scale):
    """Sizes of the experiment."""

    nodes: Annotated[int, "nodes of a graph"] = 477
    train: Annotated[int, "graphs to train on"] = 24
    test: Annotated[int, "graphs to test on"] = 12
    hidden: Annotated[int, "features a node inside the loop"] = 64
    steps: Annotated[int, "iterations in training: K"] = 40
    epochs: Annotated[int, "passes over the training graphs"] = 80
    batch: Annotated[int, "graphs a step"] = 4
    lr: Annotated[float, "learning rate of Adam"] = 3e-3
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class Table1Rwsp(Experiment):
    """Layers of their own weights beside PIGN, trained for K iterations and tested at up to 4 K."""

    id = "table1-rwsp"
    title = "Long-range labels on RW-SP"
    claim = (
        "Where a label lies many links away, a PIGN with a gated input finds it and two or eight layers do not; four "
        "times as many iterations at test take nothing away, since it settles to the answer."
    )
    source = "Stands in for Operator Learning Meets Numerical Analysis, Table 1; generated (RW-SP)"
    scales = {
        "smoke": RwspScale(seeds=1, nodes=60, train=4, test=2, hidden=24, steps=8, epochs=4, thresholds=False),
        "cpu": RwspScale(seeds=3),
        "paper": RwspScale(seeds=5, train=500, test=100, hidden=128, epochs=100, batch=16),
    }
    scaled_down = {
        "smoke": "60 nodes, 4 graphs, 4 epochs",
        "cpu": "24 training and 12 test graphs, where PascalVOC-SP has 8,498 and 1,429",
    }
    tables = (
        Table(
            "Macro-F1 on test graphs",
            (
                Column("f1", "At K", fmt=".3f", better="high"),
                Column("f1 at 4K", "At 4 K", fmt=".3f"),
                Column("accuracy", "Accuracy at K", "%", ".1f"),
                Column("train f1", "Training graphs", fmt=".3f"),
                Column("floor", "Commonest class", fmt=".3f"),
                Column("parameters", "Parameters", fmt=",.0f"),
                Column("evals", "Convolutions", fmt=".0f"),
                Column("diverged", "Diverged", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", ".0f"),
            ),
            caption="Weights of the last epoch; every model sees the conductances as the entries of the normalised "
            "matrix, and is trained by the same loop. no graph: encoder and head alone; 2 and 8 layers: convolutions "
            "of their own with a skip connection; published: one shared convolution with activation, damping .7, "
            "nothing injected; constant: identity transport, injection .1; gated: the same with a learned gate. Every "
            "seed draws graphs of its own. The label is the seed that a random walk meets first, by a sparse solve.",
            command='settle run table1-rwsp --scale {scale} --seeds {seeds}',
        ),
    )  # fmt: skip
    figures = (
        Figure(
            "Iterations at test", ("f1 by iterations",), "Macro-F1 at multiples of the K of training.", rows=ITERATED
        ),
        Figure("By model", ("f1",), "Macro-F1 at K.", kind="bars"),
    )

    def cells(self, scale: RwspScale) -> Sequence[str]:
        return ("no graph", "2 layers", "8 layers", *ITERATED)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale = context.scale
        train, test = _graphs(scale, seed, context.device)
        channels = (train.x.shape[1], scale.hidden, train.classes)
        with seeded(self.id, "fit", cell, seed):
            model = build(cell, channels, scale.steps).to(context.device)
            say = lambda epoch, _: context.progress(f"epoch {epoch}")  # noqa: E731
            order = generator_from(self.id, "order", seed)
            recipe = GraphRecipe(epochs=scale.epochs, batch=scale.batch, lr=scale.lr, schedule="onecycle", clip=1.0)
            history = fit_graphs(model, train, None, recipe, generator=order, seen=seen, after_epoch=say)
        metrics = {
            "f1": evaluated(model, test, seen=seen),
            "accuracy": evaluated(model, test, seen=seen, score=_share),
            "train f1": evaluated(model, train, seen=seen),
            "floor": commonest(train, test),
            "parameters": parameters(model),
            "diverged": float(history.diverged is not None),
            "training seconds": history.seconds,
            "evals": {"no graph": 0, "2 layers": 2, "8 layers": 8}.get(cell, scale.steps),
        }
        if not isinstance(model, PIGN):
            return outcome(metrics)
        scores = []
        for multiple in MULTIPLES:
            model.settle.stop = FixedSteps(round(multiple * scale.steps))
            scores.append(evaluated(model, test, seen=seen))
        label = "iterations at test, in units of K"
        found = curve(MULTIPLES, scores, x_label=label, y_label="macro-F1", group=cell)
        return outcome({**metrics, "f1 at 4K": scores[-1]}, {"f1 by iterations": found})

    def checks(self, results: Results) -> Sequence[Check]:
        mean, floor = results.mean, results.mean("gated", "floor")
        above = [Check.at_least("gated over the commonest class", mean("gated", "f1") - floor, 0.0)]
        if not results.scale.thresholds:
            return above
        return [
            Check.at_least("gated PIGN, macro-F1", mean("gated", "f1"), 0.62),
            Check.at_most("8 layers, macro-F1", mean("8 layers", "f1"), 0.55),
            Check.at_most("2 layers, macro-F1", mean("2 layers", "f1"), 0.35),
            Check.at_most("gated, lost from K to 4 K", mean("gated", "f1") - mean("gated", "f1 at 4K"), 0.01),
            *above,
        ]


def build(cell: str, channels: tuple[int, int, int], steps: int) -> nn.Module:
    """The model of a cell; weights from torch's global generator."""
    if cell in ("no graph", "2 layers", "8 layers"):
        return Plain(channels, {"no graph": 0, "2 layers": 2, "8 layers": 8}[cell])
    hidden, stop = channels[1], FixedSteps(steps)
    conv = pyg().GCNConv(hidden, hidden, bias=cell == "published", normalize=False)
    if cell == "published":
        body, injection, solver = Activated(conv, 0.0), 0, Picard(damping=0.7)
    else:
        body, injection, solver = transported(conv, "identity"), {"constant": 0.1, "gated": "gated"}[cell], Picard()
    model = PIGN(
        body, channels, injection=injection, transport="learned", solver=solver, stop=stop, decoder=head(channels)
    )  # type: ignore[arg-type]
    return model


class Plain(nn.Module):
    """h_k = h_{k-1} + relu(conv_k(h_{k-1})) between a linear encoder and the head."""

    def __init__(self, channels: tuple[int, int, int], layers: int):
        super().__init__()
        hidden = channels[1]
        self.encoder, self.decoder = nn.Linear(channels[0], hidden), head(channels)
        self.convs = nn.ModuleList(pyg().GCNConv(hidden, hidden, normalize=False) for _ in range(layers))

    def forward(self, x: torch.Tensor, graphs: Graphs) -> torch.Tensor:
        h = self.encoder(x)
        for conv in self.convs:
            h = h + conv(h, graphs.edges).relu()
        return self.decoder(h)


def head(channels: tuple[int, int, int]) -> nn.Module:
    """Layer normalisation, which takes the size of a faint signal away, and two layers."""
    _, hidden, classes = channels
    return nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def seen(part: GraphSet) -> Graphs:
    """One step of the random walk, lazy by a loop of conductance 1: the matrix D^{-1} (C + I), rows of sum 1."""
    assert part.edge_x is not None
    nodes, conductance = len(part.x), part.edge_x[:, 0]
    loops = torch.arange(nodes, device=part.x.device).expand(2, nodes)
    ends = torch.cat((part.edges.flip(0), loops), 1)
    weights = torch.cat((conductance, conductance.new_ones(nodes)))
    degree = conductance.new_zeros(nodes).index_add(0, ends[0], weights)
    walk = torch.sparse_coo_tensor(ends, weights / degree[ends[0]], (nodes, nodes), check_invariants=False)
    return Graphs(csr(walk), part.index, part.count)


def _share(scores: torch.Tensor, y: torch.Tensor) -> float:
    return 100.0 * float((scores.argmax(1) == y).double().mean())


@cache
def _graphs(scale: RwspScale, seed: int, device: str) -> tuple[GraphSet, GraphSet]:
    """Graphs to train and to test on, the same for every cell."""
    draw = generator_from("table1-rwsp", "graphs", seed)
    counts = (scale.train, scale.test)
    return tuple(random_walks(n, draw, nodes=scale.nodes).to(device) for n in counts)  # type: ignore[return-value]


EXPERIMENT = Table1Rwsp()
