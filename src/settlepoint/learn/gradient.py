"""Adam and L-BFGS over many starts, with the settings of the R2N2 paper as defaults."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.learn.trainer import Errors, Report, Trained, Trainer, check_starts, losses

_EVERY = 100  # epochs between two entries of the history


@dataclass(frozen=True)
class Adam(Trainer):
    """Adam on the sum of the losses of all starts, which does not mix them; the best weights seen are returned."""

    starts: int = 1
    epochs: int = 25_000
    learning_rate: float = 1e-3
    spread: float = 0.5

    def __post_init__(self):
        check_starts(self.starts, self.spread)
        _check_settings(self.epochs, self.learning_rate)

    def train(self, errors: Errors, theta: Tensor, report: Report) -> Trained:
        theta = theta.clone().requires_grad_()
        best = _Best(theta.detach())
        rule = torch.optim.Adam([theta], lr=self.learning_rate)
        for epoch in range(self.epochs + 1):
            loss = losses(errors, theta)
            best.offer(theta.detach(), loss.detach())
            if epoch % _EVERY == 0 or epoch == self.epochs:
                best.note(epoch, report, self.epochs)
            if epoch == self.epochs:
                break
            rule.zero_grad()
            loss.sum().backward()
            assert theta.grad is not None
            theta.grad = theta.grad.nan_to_num(0.0, 0.0, 0.0)  # a start that failed stands still
            rule.step()
        return best.trained()


@dataclass(frozen=True)
class LBFGS(Trainer):
    """torch's L-BFGS on one start after the other; the best weights seen are returned."""

    starts: int = 1
    epochs: int = 5_000
    learning_rate: float = 1e-2
    spread: float = 0.5

    def __post_init__(self):
        check_starts(self.starts, self.spread)
        _check_settings(self.epochs, self.learning_rate)

    def train(self, errors: Errors, theta: Tensor, report: Report) -> Trained:
        results = [self._one(errors, start[None], report) for start in theta]
        history = min(results, key=lambda r: float(r.loss)).history
        return Trained(torch.cat([r.theta for r in results]), torch.cat([r.loss for r in results]), history)

    def _one(self, errors: Errors, theta: Tensor, report: Report) -> Trained:
        theta = theta.clone().requires_grad_()
        best = _Best(theta.detach())
        rule = torch.optim.LBFGS([theta], lr=self.learning_rate, max_iter=1)

        def closure() -> Tensor:
            rule.zero_grad()
            loss = losses(errors, theta)
            best.offer(theta.detach(), loss.detach())
            loss.sum().backward()
            return loss.sum()

        for epoch in range(self.epochs + 1):
            rule.step(closure)
            if epoch % _EVERY == 0 or epoch == self.epochs:
                best.note(epoch, report, self.epochs)
            if not bool(torch.isfinite(theta).all()):
                break
        return best.trained()


class _Best:
    """The best weights of every start so far."""

    def __init__(self, theta: Tensor):
        self.theta = theta.clone()
        self.loss = theta.new_full((len(theta),), torch.inf)
        self.history: list[dict[str, float]] = []

    def offer(self, theta: Tensor, loss: Tensor) -> None:
        better = loss < self.loss
        self.theta = torch.where(better[:, None], theta, self.theta)
        self.loss = torch.where(better, loss, self.loss)

    def note(self, epoch: int, report: Report, epochs: int) -> None:
        self.history.append({"iteration": epoch, "loss": float(self.loss.min())})
        report(epoch, epochs, self.history[-1]["loss"])

    def trained(self) -> Trained:
        return Trained(self.theta, self.loss, self.history)


def _check_settings(epochs: int, learning_rate: float) -> None:
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs must be an integer >= 0, got {epochs!r}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be > 0, got {learning_rate}")
