"""fit_graphs: fit a graph model to the nodes of many graphs, in mini-batches of graphs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from settlepoint.data.graph_set import GraphSet
from settlepoint.models.graphs import Graphs

Loss = Callable[[Tensor, Tensor], Tensor]
Seen = Callable[[GraphSet], object]


@dataclass(frozen=True, kw_only=True)
class GraphRecipe:
    """Adam on mini-batches of graphs.

    batch: graphs a step. weight_decay: an L2 penalty in the gradient. eps: of Adam. schedule: "onecycle" raises the
    rate to lr over the first pct_start of all steps and lowers it to nearly 0 by a cosine. clip: the gradient of all
    parameters together is shortened to this norm.
    """

    epochs: int
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    eps: float = 1e-8
    schedule: Literal["constant", "onecycle"] = "constant"
    pct_start: float = 0.2
    clip: float = float("inf")

    def __post_init__(self):
        for name, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.schedule not in ("constant", "onecycle"):
            raise ValueError(f"schedule must be 'constant' or 'onecycle', got {self.schedule!r}")


@dataclass(frozen=True)
class GraphHistory:
    """loss: mean over the steps of each epoch; val: score after each; seconds: CPU time of this process.

    diverged: the epoch, counted from 0, in which a loss was not finite, which ended the fit; None for a whole one.
    """

    loss: list[float]
    val: list[float]
    seconds: float
    diverged: int | None = None


def batched(part: GraphSet) -> Graphs:
    """The graphs of a set, as models take them."""
    return Graphs(part.edges, part.index, part.count)


def fit_graphs(
    model: nn.Module,
    train: GraphSet,
    val: GraphSet,
    recipe: GraphRecipe,
    *,
    generator: torch.Generator | None = None,
    loss: Loss | None = None,
    score: Callable[[Tensor, Tensor], float] | None = None,
    seen: Seen = batched,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[int, float], None] = lambda epoch, val: None,
) -> GraphHistory:
    """Fit model(x, seen(part)) in place; the weights are those of the last epoch, as the published tables have them.

    generator draws the order of the graphs. loss: `balanced` where the set has classes, else the mean squared error;
    score: `macro_f1`, else minus the mean absolute error. seen: what the model sees of a batch besides x. after_step:
    after each step of the optimiser (a projection). The model ends in evaluation mode.
    """
    if not len(train):
        raise ValueError("train must hold graphs, got an empty set")
    loss = loss or (balanced if train.classes else nn.functional.mse_loss)
    optimizer = torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, eps=recipe.eps)
    schedule = _schedule(optimizer, recipe, steps=recipe.epochs * -(-len(train) // recipe.batch))
    start, course, scores = time.process_time(), [], []
    diverged = None
    for epoch in range(recipe.epochs):
        total, steps = 0.0, 0
        model.train()
        for rows in torch.randperm(len(train), generator=generator).split(recipe.batch):
            part = train.take(rows)
            value = loss(*_scored(model(part.x, seen(part)), part))
            total, steps = total + value.item(), steps + 1
            if not value.isfinite():
                diverged = epoch
                break
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            after_step()
        course.append(total / steps)
        scores.append(evaluated(model, val, score=score, seen=seen) if diverged is None else float("nan"))
        after_epoch(epoch, scores[-1])
        if diverged is not None:
            break
    model.eval()
    return GraphHistory(course, scores, time.process_time() - start, diverged)


@torch.no_grad()
def evaluated(
    model: nn.Module,
    data: GraphSet,
    *,
    score: Callable[[Tensor, Tensor], float] | None = None,
    seen: Seen = batched,
    batch: int = 64,
) -> float:
    """The score of a model on a set, all nodes that are scored taken together; the model is left in evaluation mode."""
    model.eval()
    score = score or (macro_f1 if data.classes else _accuracy_of_numbers)
    found = []
    for rows in torch.arange(len(data)).split(batch):
        part = data.take(rows)
        found.append(_scored(model(part.x, seen(part)), part))
    if not found:
        raise ValueError("data must hold graphs, got an empty set")
    outputs, targets = zip(*found, strict=True)
    return score(torch.cat(outputs), torch.cat(targets))


def balanced(scores: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in which class c weighs (n - n_c) / n, n_c its nodes among the n of the batch; 0 for absent ones

    The weighted cross-entropy of the Long Range Graph Benchmark, a weighted mean. 0 for a batch of a single class.
    """
    sizes = torch.bincount(y, minlength=scores.shape[1])
    weight = (len(y) - sizes) / max(len(y), 1) * (sizes > 0)
    if not bool((weight > 0).any()):
        return 0.0 * scores.sum()
    return nn.functional.cross_entropy(scores, y, weight.to(scores.dtype))


def macro_f1(scores: Tensor, y: Tensor) -> float:
    """Mean over the classes that occur, in y or among the predictions, of F1 = 2 tp / (2 tp + fp + fn).

    Scores that are not finite predict nothing right.

    >>> macro_f1(torch.tensor([[2.0, 1.0], [0.0, 3.0], [4.0, 0.0]]), torch.tensor([0, 1, 1]))
    0.6666666666666666
    """
    count = scores.shape[1]
    named = torch.where(scores.isfinite().all(1), scores.argmax(1), count)
    hit = torch.bincount(y[named == y], minlength=count).double()
    told, true = (torch.bincount(each[each < count], minlength=count).double() for each in (named, y))
    occurs = told + true > 0
    return float((2 * hit / (told + true))[occurs].mean()) if bool(occurs.any()) else 0.0


def commonest(train: GraphSet, data: GraphSet) -> float:
    """Macro-F1 on data of always naming the most frequent class of train: the trivial predictor."""
    y = data.y[data.y >= 0]
    scores = torch.zeros(len(y), data.classes)
    scores[:, torch.bincount(train.y[train.y >= 0]).argmax()] = 1.0
    return macro_f1(scores, y)


def _scored(outputs: Tensor, part: GraphSet) -> tuple[Tensor, Tensor]:
    """Outputs and targets of the nodes that count."""
    if not part.classes:
        return outputs.squeeze(-1), part.y
    kept = part.y >= 0
    return outputs[kept], part.y[kept]


def _accuracy_of_numbers(outputs: Tensor, y: Tensor) -> float:
    return -float((outputs - y).abs().mean())


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: GraphRecipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=recipe.pct_start)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
