"""What table1 and table1-camvid share: rows, how each is trained on raw and standardised features, checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from settlepoint.data.graph_set import GraphSet
from settlepoint.data.standardisation import standardised
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    curve,
    outcome,
)
from settlepoint.experiments.table1_models import BACKBONES, Backbone, build, parameters, seen
from settlepoint.runs import generator_from, seeded
from settlepoint.training.graphs import GraphHistory, GraphRecipe, commonest, evaluated, fit_graphs

NINE = tuple(f"{backbone} {how}" for backbone in BACKBONES for how in ("without", "itergnn", "pign"))
ROWS = ("no graph", *NINE, "gcn fork", "gcn settled")
FEATURES = ("raw", "standardised")
SPLITS = ("train", "val", "test")

COLUMNS = (
    Column("floor", "Commonest class", fmt=".3f"),
    Column("raw diverged", "Diverged, raw", "share of seeds", ".2f"),
    Column("standardised diverged", "Diverged, standardised", "share of seeds", ".2f"),
    Column("standardised val", "Validation, standardised", fmt=".3f"),
    Column("parameters", "Parameters", fmt=",.0f"),
    Column("evals", "Convolutions", fmt=".0f"),
    Column("training seconds", "Training, both", "CPU s", ".0f"),
)
"""What stands beside the two columns of scores."""

CAPTION = (
    "Macro-F1 over the nodes of all test graphs with the weights of the last epoch; nothing is chosen on the test "
    "graphs. Every model: linear encoder and batch normalisation, head of three layers, class-weighted cross-entropy a "
    "batch, the same recipe and, but for no graph and settled, the same number of parameters within 5 %. no graph: "
    "encoder and head alone. without: as many convolutions as iterations, each with weights of its own, narrower for "
    "it, with skip connections. itergnn: with batch normalisation and ReLU in the loop; fork: as the authors of PIGN "
    "ran it, without. pign: as published, one shared convolution, damping .7, nothing injected. settled: identity "
    "transport and a learned gate on the input. A seed diverges when a loss or a weight is no longer finite; it counts "
    "with the score of the weights that it ended with."
)
FIGURES = (
    Figure("Training", ("loss",), "Mean loss of each epoch, standardised features."),
    Figure("By model", FEATURES, "Macro-F1 on the test graphs.", kind="bars"),
)


@dataclass(frozen=True, kw_only=True)
class SuperpixelScale(Scale):
    """Sizes of a table on superpixel graphs; the recipe is the published one where nothing else is said."""

    hidden: Annotated[int, "features a node inside the loop, for gcn and gat"] = 400
    sage_hidden: Annotated[int, "the same for sage, which has two weights a convolution"] = 348
    train: Annotated[int, "graphs to train on, spread evenly over the split"] = 367
    val: Annotated[int, "graphs to validate on"] = 101
    test: Annotated[int, "graphs to test on"] = 233
    steps: Annotated[int, "iterations, or convolutions of their own: K, published as 6 to 18"] = 12
    epochs: Annotated[int, "passes over the training graphs"] = 300
    batch: Annotated[int, "graphs a step"] = 32
    lr: Annotated[float, "highest learning rate of OneCycle"] = 1e-3
    dropout: Annotated[float, "share of the features dropped behind each convolution, published without its value"] = (
        0.0
    )
    models: Annotated[tuple[str, ...], "rows of the table"] = ROWS


class SuperpixelTable(Experiment):
    """Three convolutions without iteration, in IterGNN and in PIGN, on superpixel graphs, with their controls."""

    @abstractmethod
    def load(self, folder: Path | None, split: str) -> GraphSet:
        """All graphs of "train", "val" or "test"."""

    def sets(self, context: Context) -> tuple[GraphSet, ...]:
        """Train, val and test, as many graphs as the scale asks for, raw."""
        scale = context.scale
        return _sets(self.load, context.data_dir, (scale.train, scale.val, scale.test))

    def cells(self, scale: SuperpixelScale) -> Sequence[str]:
        unknown = [name for name in scale.models if name not in ROWS]
        if unknown:
            raise ValueError(f"models must be of {', '.join(ROWS)}, got {unknown[0]!r}")
        return scale.models

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        raw = self.sets(context)
        metrics: dict[str, float] = {"floor": commonest(raw[0], raw[2]), "training seconds": 0.0}
        curves, notes = {}, []
        for kind, sets in (("raw", raw), ("standardised", standardised(*raw))):
            train, val, test = (part.to(context.device) for part in sets)
            model, history = self._fitted(cell, seed, train, context, kind)
            metrics |= {
                kind: evaluated(model, test, seen=seen(backbone(cell))),
                f"{kind} val": evaluated(model, val, seen=seen(backbone(cell))),
                f"{kind} diverged": float(history.diverged is not None),
                "training seconds": metrics["training seconds"] + history.seconds,
                "parameters": float(parameters(model)),
                "evals": 0.0 if cell == "no graph" else float(context.scale.steps),
            }
            curves["loss"] = curve(range(1, len(history.loss) + 1), history.loss, x_label="epoch", y_label="loss")
            if history.diverged is not None:
                notes.append(f"diverged on {kind} features in epoch {history.diverged + 1}")
        return outcome(metrics, curves, notes)

    def _fitted(
        self, cell: str, seed: int, train: GraphSet, context: Context, kind: str
    ) -> tuple[nn.Module, GraphHistory]:
        """The model of a cell and how it was fitted; the seed draws the same weights and order for both features."""
        scale: SuperpixelScale = context.scale
        recipe = GraphRecipe(epochs=scale.epochs, batch=scale.batch, lr=scale.lr, eps=1e-5, schedule="onecycle")
        with seeded(self.id, "fit", cell, seed):
            width = scale.sage_hidden if backbone(cell) == "sage" else scale.hidden
            channels = (train.x.shape[1], width, train.classes)
            model = build(cell, channels, scale.steps, scale.dropout).to(context.device)
            history = fit_graphs(
                model, train, None, recipe, generator=generator_from(self.id, "order", seed),
                seen=seen(backbone(cell)), after_epoch=lambda epoch, _: context.progress(f"{kind}, epoch {epoch}"),
            )  # fmt: skip
        return model, history

    def checks(self, results: Results) -> Sequence[Check]:
        """Every row that was asked for is there, on both features, and better than naming the commonest class."""
        return [
            Check.at_least(f"{cell}, {kind} features: over the commonest class", _over(results, cell, kind), 0.0)
            for cell in results.scale.models
            for kind in FEATURES
        ]


def backbone(cell: str) -> Backbone:
    """The convolution of a row; no graph takes none, and is shown what gcn is."""
    found: list[Backbone] = [name for name in BACKBONES if name == cell.split()[0]]
    return found[0] if found else "gcn"


def spread(graphs: GraphSet, count: int, split: str = "graphs") -> GraphSet:
    """So many of the graphs, at even distances. Raises ValueError when there are fewer."""
    if not 1 <= count <= len(graphs):
        raise ValueError(f"{split} must lie in [1, {len(graphs)}], the graphs that there are, got {count}")
    return graphs.take(torch.arange(count) * len(graphs) // count)


def _over(results: Results, cell: str, kind: str) -> float:
    return results.mean(cell, kind) - results.mean(cell, "floor")


@lru_cache(maxsize=1)
def _sets(
    load: Callable[[Path | None, str], GraphSet], folder: Path | None, counts: tuple[int, ...]
) -> tuple[GraphSet, ...]:
    return tuple(spread(load(folder, split), count, split) for split, count in zip(SPLITS, counts, strict=True))
