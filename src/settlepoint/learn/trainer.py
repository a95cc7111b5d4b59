"""The contract of every trainer: many starts in, a better weight vector for each out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Errors = Callable[[Tensor], Tensor]  # weights (p,) -> errors (M,), whose squared length is the loss
Report = Callable[[int, int, float], None]  # iteration, of how many, best loss so far


@dataclass(frozen=True)
class Trained:
    """theta: (S, p), what each start came to. loss: (S,). history: an entry an iteration, with the best loss."""

    theta: Tensor
    loss: Tensor
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer(ABC):
    """Minimises |errors(theta)|^2 from several starting points at once.

    starts: how many; the first is the solver's own weights, the others scatter around them by `spread`.
    """

    starts: int
    spread: float

    @abstractmethod
    def train(self, errors: Errors, theta: Tensor, report: Report) -> Trained:
        """theta: (S, p), float64."""

    def scattered(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # (p,) -> (S, p)
        """theta itself, and starts - 1 points theta + spread * N(0, 1)."""
        noise = torch.randn(self.starts, len(theta), dtype=theta.dtype, generator=generator)
        noise[0] = 0
        return theta + self.spread * noise.to(theta.device)


def losses(errors: Errors, theta: Tensor) -> Tensor:  # (S, p) -> (S,)
    """|errors|^2 at every start; differentiable."""
    return torch.func.vmap(lambda t: errors(t).square().sum())(theta)


def check_starts(starts: int, spread: float) -> None:
    """Refuses what no trainer can use."""
    if isinstance(starts, bool) or not isinstance(starts, int) or starts < 1:
        raise ValueError(f"starts must be an integer >= 1, got {starts!r}")
    if not spread >= 0:
        raise ValueError(f"spread must be >= 0, got {spread}")
