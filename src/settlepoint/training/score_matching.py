"""ScoreMatching: what a noise-conditional score is trained by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ScoreMatching:
    """E ||sigma s(y + sigma n, sigma) + n||^2 / 2,  n ~ N(0, 1)           (Vincent 2011; Song and Ermon 2019, Eq. 6)

    log sigma is uniform between the levels (highest, lowest). Least at the score of the images under noise; never 0.
    generator draws, on the CPU. An objective of training.fit.
    """

    highest: float
    lowest: float
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self):
        if not 0 < self.lowest < self.highest < math.inf:
            raise ValueError(f"lowest must be above 0 and below highest, got {self.lowest} and {self.highest}")

    def __call__(self, model: Score, x: Tensor, y: Tensor) -> Tensor:
        share = torch.rand(len(y), dtype=y.dtype, generator=self.generator)
        sigma = self.lowest * (self.highest / self.lowest) ** share
        return matched(model, y, sigma.to(y.device), self.generator).mean()


def matched(score: Score, y: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:  # (B, D) -> (B,)
    """||sigma s(y + sigma n, sigma) + n||^2 / 2 of every row; sigma: 0-d or (B,)."""
    n = torch.randn(y.shape, dtype=y.dtype, generator=generator).to(y.device)
    scale = sigma.reshape(-1, 1)
    return 0.5 * (scale * score(y + scale * n, sigma) + n).square().sum(1)
