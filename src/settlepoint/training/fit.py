"""fit: the loop that fits a model to samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
Objective = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is fitted: AdamW in mini-batches.

    epochs: passes over the samples. batch: samples a step. lr: learning rate at the start. schedule: "cosine" lowers
    it to 0 over the whole fit. warmup: steps in which it first rises linearly. weight_decay: of AdamW (decoupled), the
    same for all parameters. clip: the gradient of all parameters together is shortened to this norm; an implicit
    gradient is long where a row hardly settles.
    """

    epochs: int
    batch: int = 100
    lr: float = 3e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 0
    weight_decay: float = 1e-4
    clip: float = float("inf")

    def __post_init__(self):
        for name, value in (("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {self.warmup}")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule must be 'constant' or 'cosine', got {self.schedule!r}")


@dataclass(frozen=True)
class History:
    """Course of a fit. loss: mean over the samples of each epoch; seconds: CPU time of this process."""

    loss: list[float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What else happens. after_step: after each step of the optimiser (a projection); after_epoch: (epoch, loss)."""

    after_step: Callable[[], None] = lambda: None
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None


def fit(
    model: nn.Module,
    samples: tuple[Tensor, Tensor],
    recipe: Recipe,
    *,
    generator: torch.Generator | None = None,
    loss: Loss = nn.functional.cross_entropy,
    objective: Objective | None = None,
    hooks: Hooks | None = None,
) -> History:
    """Fit model to (x, y) in place, minimising loss(model(x), y); generator draws the order of the samples.

    objective: what is minimised instead, of the model itself, x and y; see training.AllIterates. The model is in
    training mode meanwhile and in evaluation mode afterwards.

    Raises ValueError for samples of two lengths or that are not finite, and FloatingPointError when loss or gradient
    of a step is not finite; the model then keeps the weights from before that step.
    """
    x, y = samples
    _check_samples(x, y)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    schedule = _schedule(optimizer, recipe, steps=recipe.epochs * -(-len(x) // recipe.batch))
    hooks, start, course = hooks or Hooks(), time.process_time(), []
    model.train()
    for epoch in range(recipe.epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=generator).to(x.device).split(recipe.batch):
            value = loss(model(x[rows]), y[rows]) if objective is None else objective(model, x[rows], y[rows])
            optimizer.zero_grad()
            value.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            found = finite(model, value, norm, f"epoch {epoch}")
            optimizer.step()
            schedule.step()
            hooks.after_step()
            total += found * len(rows)
        course.append(total / len(x))
        hooks.after_epoch(epoch, course[-1])
    model.eval()
    return History(course, time.process_time() - start)


def _check_samples(x: Tensor, y: Tensor) -> None:
    if len(x) != len(y):
        raise ValueError(f"samples must be as many inputs as targets, got {len(x)} and {len(y)}")
    for name, value in (("inputs", x), ("targets", y)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"samples must be finite, got NaN or Inf in the {name}")


def finite(model: nn.Module, loss: Tensor, norm: Tensor, where: str) -> float:
    """The loss of a step, in one read with the norm of its gradient; model goes into evaluation mode before it raises.

    Raises FloatingPointError, which names where, when one of them is not finite: before the optimiser takes the step.
    """
    read = dict(zip(("loss", "gradient"), torch.stack((loss.detach(), norm.to(loss))).tolist(), strict=True))
    for what, value in read.items():
        if not math.isfinite(value):
            model.eval()
            raise FloatingPointError(f"{what} must stay finite, got {value} in {where}; lower lr or clip")
    return read["loss"]


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    rising, cosine = recipe.warmup, recipe.schedule == "cosine"
    if cosine and not rising:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))

    def factor(done: int) -> float:
        if done < rising:
            return (done + 1) / rising
        return 0.5 + 0.5 * math.cos(math.pi * (done - rising) / max(1, steps - rising)) if cosine else 1.0

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@torch.no_grad()
def accuracy(scores: Tensor, y: Tensor) -> float:
    """Share of rows whose largest score is at y, in per cent.

    >>> accuracy(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    50.0
    """
    return 100.0 * (scores.argmax(1) == y).double().mean().item()


def majority(train_y: Tensor, y: Tensor) -> float:
    """Accuracy on y, in per cent, of always naming the most frequent class of train_y: the trivial predictor."""
    return 100.0 * (y == train_y.bincount().argmax()).double().mean().item()
