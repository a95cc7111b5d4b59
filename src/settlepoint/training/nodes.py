"""fit_nodes: fit a graph model to the labelled nodes of one graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from settlepoint.models.graphs import Graphs
from settlepoint.training.fit import accuracy


@dataclass(frozen=True)
class NodeTask:
    """One graph with classes on its nodes. x: (N, F), dense or sparse; y: (N,); train, val, test: (N,) masks."""

    x: Tensor
    y: Tensor
    graphs: Graphs
    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True, kw_only=True)
class NodeRecipe:
    """Adam on the whole graph. weight_decay: an L2 penalty in the gradient, as graph papers have it, not AdamW's."""

    epochs: int = 200
    lr: float = 0.01
    weight_decay: float = 5e-4

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")


@dataclass(frozen=True)
class NodeHistory:
    """Accuracies in per cent after each epoch; seconds: CPU time of this process, evaluations included.

    loss: on the training nodes; val_loss: on the validation nodes.
    """

    loss: list[float]
    val_loss: list[float]
    val: list[float]
    test: list[float]
    seconds: float

    @property
    def chosen(self) -> int:
        """The epoch of the highest validation accuracy; among equals that of the lowest validation loss."""
        return max(range(len(self.val)), key=lambda epoch: (self.val[epoch], -self.val_loss[epoch]))


def fit_nodes(
    model: nn.Module, task: NodeTask, recipe: NodeRecipe, *, after_epoch: Callable[[int, float], None] | None = None
) -> NodeHistory:
    """Fit model(x, graphs) in place to the training nodes; it ends with the weights of the chosen epoch.

    Dropout draws from torch's global generator, which the caller seeds. Test nodes are scored, and never chosen by.
    """
    optimizer = torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    start, lines, kept = time.process_time(), NodeHistory([], [], [], [], 0.0), {}
    for epoch in range(recipe.epochs):
        model.train()
        loss = _loss(model(task.x, task.graphs), task, task.train)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _score(model, task, lines)
        lines.loss.append(loss.item())
        if lines.chosen == epoch:
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        if after_epoch is not None:
            after_epoch(epoch, lines.val[-1])
    model.load_state_dict(kept)
    return NodeHistory(lines.loss, lines.val_loss, lines.val, lines.test, time.process_time() - start)


def _loss(scores: Tensor, task: NodeTask, mask: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores[mask], task.y[mask])


@torch.no_grad()
def _score(model: nn.Module, task: NodeTask, lines: NodeHistory) -> None:
    model.eval()
    scores = model(task.x, task.graphs)
    lines.val_loss.append(_loss(scores, task, task.val).item())
    lines.val.append(accuracy(scores[task.val], task.y[task.val]))
    lines.test.append(accuracy(scores[task.test], task.y[task.test]))
