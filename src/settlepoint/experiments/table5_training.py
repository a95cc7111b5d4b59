"""How a row of Table 5 is trained on one of its data sets: all seeds by one loop, side by side where they can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from settlepoint.experiments.citations import Citations, classes
from settlepoint.experiments.scale import Context
from settlepoint.experiments.table5_models import Row
from settlepoint.models import GAT, GCN, DeepGCN
from settlepoint.runs import generator_from, seeded
from settlepoint.training import NodeHistory, NodeRecipe
from settlepoint.training.copies import Copies
from settlepoint.training.nodes import NodeTask, fit_copies

Say = Callable[[str], None]


def trained(
    name: str, row: Row, settings: Mapping[str, Any], seeds: Sequence[int | str], wanted: Citations, context: Context
) -> tuple[list[nn.Module], list[NodeHistory]]:
    """The models of all seeds with the weights of their chosen epochs, and how each was fitted.

    Weights and dropout masks of a seed come from its name, that of the row and its number, whoever trains beside it.
    Features are dropped as published, half of them, where they are sparse; noisy features are dense and are not: a new
    mask of all N x F entries a step and seed would cost more than the model.
    """
    task = wanted.task(context)
    inputs = 0.5 if task.x.is_sparse else 0.0
    channels = (task.x.shape[1], context.scale.hidden, classes(task))
    recipe = NodeRecipe(epochs=context.scale.epochs, lr=settings["lr"], weight_decay=settings["weight_decay"])
    build = lambda copies: row.model(channels, copies, inputs, settings).to(context.device)  # noqa: E731
    narrow = []
    for seed in seeds:
        with seeded("table5", "weights", name, seed):
            narrow.append(build(1))
    streams = [generator_from("table5", "masks", name, seed, device=context.device) for seed in seeds]
    say = lambda epoch, val: context.progress(f"epoch {epoch}, validation {val:.1f} %")  # noqa: E731
    return narrow, fit_copies(Copies(build(len(seeds)), narrow, streams), task, recipe, after_epoch=say)


def choice(chosen: Mapping[str, Any], row: Row, name: str, column: str) -> Mapping[str, Any]:
    """The settings of a row in a column: its fixed ones, or those that a selection recorded.

    Raises ValueError, saying how to make one, when the selection has none.
    """
    if row.own is None:
        return row.fixed
    try:
        return chosen[column][name]["settings"]
    except KeyError:
        raise ValueError(
            f"no settings were chosen for {name!r} on {column!r}; make them with: settle run table5 --select "
            f'--set "models={name}" --set datasets={column}'
        ) from None


@torch.no_grad()
def evaluations(model: nn.Module, task: NodeTask) -> float:
    """Convolutions in one pass of a model."""
    model.eval()(task.x, task.graphs)
    if isinstance(model, DeepGCN):
        return float(len(model.convs))
    if isinstance(model, GCN | GAT):
        return 2.0
    return float(model.settle.last.evals)  # type: ignore[union-attr]
