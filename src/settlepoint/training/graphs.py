"""fit_graphs: fit a graph model to the nodes of many graphs, in mini-batches of graphs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from settlepoint.data.graph_set import GraphSet
from settlepoint.models.graphs import Graphs

Loss = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], float]
Seen = Callable[[GraphSet], object]


@dataclass(frozen=True, kw_only=True)
class GraphRecipe:
    """Adam on mini-batches of graphs.

    batch: graphs a step. weight_decay: an L2 penalty in the gradient, or with decoupled AdamW's. eps: of Adam.
    schedule: "onecycle" raises the rate to lr over the first pct_start of all steps and lowers it to nearly 0 by a
    cosine, while the first momentum goes from .95 to .85 and back, as torch has it. clip: the gradient of all
    parameters together is shortened to this norm.

    Raises ValueError, naming the field, for a value that trains nothing.
    """

    epochs: int
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    decoupled: bool = False
    eps: float = 1e-8
    schedule: Literal["constant", "onecycle"] = "constant"
    pct_start: float = 0.2
    clip: float = math.inf

    def __post_init__(self):
        for name, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in (("lr", self.lr), ("eps", self.eps), ("clip", self.clip)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.pct_start < 1:
            raise ValueError(f"pct_start must lie in [0, 1), got {self.pct_start}")
        if self.schedule not in ("constant", "onecycle"):
            raise ValueError(f"schedule must be 'constant' or 'onecycle', got {self.schedule!r}")


@dataclass(frozen=True)
class GraphHistory:
    """loss: mean over the steps of each epoch; val: score after each; seconds: CPU time of this process.

    diverged: the epoch, counted from 0, in which a loss or a weight was no longer finite, which ended the fit; None for
    a whole one. The score of that epoch is nan.
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
    val: GraphSet | None,
    recipe: GraphRecipe,
    *,
    generator: torch.Generator | None = None,
    loss: Loss | None = None,
    score: Score | None = None,
    seen: Seen = batched,
    after_step: Callable[[], None] = lambda: None,
    after_epoch: Callable[[int, float], None] = lambda epoch, val: None,
) -> GraphHistory:
    """Fit model(x, seen(part)) in place; the weights are those of the last epoch, as the published tables have them.

    val: scored after every epoch; None for no scores, nan in their place. generator draws the order of the graphs.
    loss: `balanced` where the set has classes, else the mean squared error; score: `macro_f1`, else minus the mean
    absolute error. seen: what the model sees of a batch besides x. after_step: after each step of the optimiser (a
    projection). The model ends in evaluation mode.

    Raises ValueError for sets without graphs or that differ in classes or features, and for a model whose outputs do
    not fit them.
    """
    _check(train, val)
    step = _Step(model, recipe, -(-len(train) // recipe.batch), loss or (balanced if train.classes else _squared), seen)
    start, losses, scores, diverged = time.process_time(), [], [], None
    for epoch in range(recipe.epochs):
        model.train()
        order = torch.randperm(len(train), generator=generator).split(recipe.batch)
        losses.append(_epoch(step, train, order, after_step))
        whole = math.isfinite(losses[-1]) and all(bool(weight.isfinite().all()) for weight in model.parameters())
        scores.append(evaluated(model, val, score=score, seen=seen) if val is not None and whole else math.nan)
        after_epoch(epoch, scores[-1])
        if not whole:
            diverged = epoch
            break
    model.eval()
    return GraphHistory(losses, scores, time.process_time() - start, diverged)


def _check(train: GraphSet, val: GraphSet | None) -> None:
    for name, part in (("train", train), ("val", val)):
        if part is not None and not len(part):
            raise ValueError(f"{name} must hold graphs, got an empty set")
    if val is not None and (val.classes, val.x.shape[1]) != (train.classes, train.x.shape[1]):
        raise ValueError(
            f"val must have the {train.classes} classes and {train.x.shape[1]} features of train, got {val.classes} "
            f"and {val.x.shape[1]}"
        )


class _Step:
    """One step of the optimiser on one batch."""

    def __init__(self, model: nn.Module, recipe: GraphRecipe, steps: int, loss: Loss, seen: Seen):
        self.model, self.loss, self.seen, self.clip = model, loss, seen, recipe.clip
        kind = torch.optim.AdamW if recipe.decoupled else torch.optim.Adam
        weights = model.parameters()
        self.optimizer = kind(weights, recipe.lr, weight_decay=recipe.weight_decay, eps=recipe.eps)
        self.schedule = _schedule(self.optimizer, recipe, steps * recipe.epochs)

    def __call__(self, part: GraphSet) -> float:
        """The loss before the step, which is not made where it is not finite."""
        outputs, targets = _scored(self.model(part.x, self.seen(part)), part)
        value = self.loss(outputs, targets) if len(targets) else 0.0 * outputs.sum()
        if value.isfinite():
            self.optimizer.zero_grad()
            value.backward()
            if math.isfinite(self.clip):
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
        return value.item()


def _epoch(step: _Step, train: GraphSet, order: Sequence[Tensor], after_step: Callable[[], None]) -> float:
    """The mean loss over the batches, up to the first that is not finite."""
    losses = []
    for rows in order:
        losses.append(step(train.take(rows)))
        if not math.isfinite(losses[-1]):
            break
        after_step()
    return math.fsum(losses) / len(losses) if math.isfinite(losses[-1]) else losses[-1]


@torch.no_grad()
def evaluated(
    model: nn.Module,
    data: GraphSet,
    *,
    score: Score | None = None,
    seen: Seen = batched,
    batch: int = 64,
) -> float:
    """The score of a model on a set, all nodes that are scored taken together; the model is left in evaluation mode."""
    if not len(data):
        raise ValueError("data must hold graphs, got an empty set")
    model.eval()
    parts = [data.take(rows) for rows in torch.arange(len(data)).split(batch)]
    outputs, targets = zip(*(_scored(model(part.x, seen(part)), part) for part in parts), strict=True)
    return (score or (macro_f1 if data.classes else _nearness))(torch.cat(outputs), torch.cat(targets))


def balanced(scores: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in which class c weighs (n - n_c) / n, n_c its nodes among the n of the batch; 0 for absent ones

    sum_i w(y_i) l_i / sum_i w(y_i), the weighted cross-entropy of the Long Range Graph Benchmark. All weights of a
    batch of a single class are 0, and so is its loss, where the benchmark's is nan.
    """
    sizes = torch.bincount(y, minlength=scores.shape[1])
    weight = (len(y) - sizes).to(scores.dtype) / max(len(y), 1) * (sizes > 0)
    if not bool((weight > 0).any()):
        return 0.0 * scores.sum()
    return nn.functional.cross_entropy(scores, y, weight)


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
    scores = torch.zeros(len(y), data.classes, device=y.device)
    scores[:, torch.bincount(train.y[train.y >= 0]).argmax()] = 1.0
    return macro_f1(scores, y)


def _scored(outputs: Tensor, part: GraphSet) -> tuple[Tensor, Tensor]:
    """Outputs and targets of the nodes that count."""
    wanted = (len(part.x), part.classes or 1)
    if not part.classes and outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.shape != wanted:
        what = f"a score for each of {part.classes} classes" if part.classes else "a number"
        raise ValueError(f"model must give {wanted}, {what} a node, got {tuple(outputs.shape)}")
    if not part.classes:
        return outputs[:, 0], part.y
    kept = part.y >= 0
    return outputs[kept], part.y[kept]


def _squared(outputs: Tensor, y: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs, y)


def _nearness(outputs: Tensor, y: Tensor) -> float:
    return -float((outputs - y).abs().mean())


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: GraphRecipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    rise = recipe.pct_start if recipe.pct_start * steps > 1 else 0.0  # torch divides by 0 where it is one step long
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=rise)
