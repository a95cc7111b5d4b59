"""fit_nodes: fit a graph model, or several side by side, to the labelled nodes of one graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from settlepoint.models.graphs import Graphs
from settlepoint.training.copies import Copies


@dataclass(frozen=True)
class NodeTask:
    """One graph with classes on its nodes. x: (N, F), dense or sparse; y: (N,); train, val, test: (N,) masks.

    Raises ValueError for a mask or labels of another length, masks that overlap, an empty mask, features that are not
    finite, and a label of a masked node below 0.
    """

    x: Tensor
    y: Tensor
    graphs: Graphs
    train: Tensor
    val: Tensor
    test: Tensor

    def __post_init__(self):
        nodes, masks = len(self.x), {"train": self.train, "val": self.val, "test": self.test}
        if len(self.graphs.index) != nodes:
            raise ValueError(f"graphs must have {nodes} nodes, got {len(self.graphs.index)}")
        for name, value in ({"y": self.y} | masks).items():
            if value.shape != (nodes,):
                raise ValueError(f"{name} must be ({nodes},), one entry a node, got {tuple(value.shape)}")
        for name, value in masks.items():
            if value.dtype != torch.bool or not bool(value.any()):
                raise ValueError(f"{name} must be a boolean mask with a node in it, got {value.dtype}")
        used = torch.stack(list(masks.values())).sum(0)
        if bool((used > 1).any()):
            raise ValueError(f"train, val and test must not overlap, node {int((used > 1).nonzero()[0])} is in two")
        if bool((self.y[used > 0] < 0).any()):
            raise ValueError(f"y must be a class number >= 0 where a node is used, got {int(self.y[used > 0].min())}")
        if not bool((self.x.coalesce().values() if self.x.is_sparse else self.x).isfinite().all()):
            raise ValueError("x must be finite, got features that are not")


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

    loss: on the training nodes; val_loss: on the validation nodes. Models side by side share the seconds.
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
    return fit_copies(Copies(model, [model]), task, recipe, after_epoch=after_epoch)[0]


def fit_copies(
    copies: Copies, task: NodeTask, recipe: NodeRecipe, *, after_epoch: Callable[[int, float], None] | None = None
) -> list[NodeHistory]:
    """fit_nodes for models side by side; each of copies.narrow ends with the weights of its own chosen epoch.

    The loss is the sum over the copies, whose gradients do not mix, and Adam works entry by entry: every copy is fitted
    as if it were alone. That holds for a fixed number of steps; a tolerance would stop all of them together.
    after_epoch is told the mean validation accuracy.
    """
    model, start = copies.wide, time.process_time()
    top = int(task.y[task.train | task.val | task.test].max())
    optimizer = torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    lines = [NodeHistory([], [], [], [], 0.0) for _ in copies.narrow]
    kept: list[dict[str, Tensor]] = [{} for _ in copies.narrow]
    for epoch in range(recipe.epochs):
        model.train()
        scores = model(task.x, task.graphs)
        if top >= (classes := scores.shape[1] // len(copies)):
            raise ValueError(f"y must lie below the {classes} classes that the model scores, got {top}")
        losses = _losses(scores, task, task.train, len(copies))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        _score(copies, task, lines)
        for copy, loss in enumerate(losses.tolist()):
            lines[copy].loss.append(loss)
            if lines[copy].chosen == epoch:
                kept[copy] = copies.part(copy)
        if after_epoch is not None:
            after_epoch(epoch, sum(line.val[-1] for line in lines) / len(lines))
    return _ended(copies, lines, kept, time.process_time() - start)


def _ended(
    copies: Copies, lines: Sequence[NodeHistory], kept: Sequence[dict[str, Tensor]], seconds: float
) -> list[NodeHistory]:
    for model, state in zip(copies.narrow, kept, strict=True):
        model.load_state_dict(state)
        model.eval()
    return [replace(line, seconds=seconds / len(lines)) for line in lines]


def _losses(scores: Tensor, task: NodeTask, mask: Tensor, copies: int) -> Tensor:  # (copies,)
    """Cross-entropy on the nodes of the mask, one mean a copy."""
    by_copy = scores[mask].unflatten(1, (copies, -1)).movedim(1, 2)
    return nn.functional.cross_entropy(by_copy, task.y[mask][:, None].expand(-1, copies), reduction="none").mean(0)


@torch.no_grad()
def _score(copies: Copies, task: NodeTask, lines: Sequence[NodeHistory]) -> None:
    model, count = copies.wide.eval(), len(copies)
    scores = model(task.x, task.graphs)
    right = scores.unflatten(1, (count, -1)).argmax(2) == task.y[:, None]
    share = torch.stack([100.0 * right[mask].double().mean(0) for mask in (task.val, task.test)]).tolist()
    val_loss = _losses(scores, task, task.val, count).tolist()
    for line, loss, val, test in zip(lines, val_loss, *share, strict=True):
        line.val_loss.append(loss)
        line.val.append(val)
        line.test.append(test)
