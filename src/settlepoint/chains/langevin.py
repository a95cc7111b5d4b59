"""Annealed Langevin dynamics: an iteration whose step falls from level to level, and what it is without noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Score = Callable[[Tensor, Tensor], Tensor]
"""s(x, sigma) ~ grad log p_sigma(x), from (B, ...) and a 0-d sigma to (B, ...)."""


@dataclass(frozen=True)
class Denoised:
    """T(x) = x + sigma^2 s(x, sigma): the mean of the clean x, given the noisy one           (Tweedie; Robbins 1956)

    `Equation(Denoised(score, sigma))` has the stationary points of p_sigma as its fixed points, and Picard ascends it:
    for a kernel density it is mean shift, which always does.
    """

    score: Score
    sigma: float

    def __post_init__(self):
        _positive(self.sigma, "sigma")

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.sigma**2 * self.score(x, x.new_tensor(self.sigma))


@dataclass(frozen=True)
class Annealing:
    """Where a chain of Langevin dynamics ended.

    value: like x. residual: (L, B), ||T(x) - x|| of the noise-free map T = Denoised(score, sigma) where the last score
    of each level was taken. evals: of the score, each on the whole batch.
    """

    value: Tensor
    residual: Tensor
    evals: int


@torch.no_grad()
def langevin(
    score: Score,
    x: Tensor,
    levels: Sequence[float],
    steps: int,
    *,
    rate: float = 0.1,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Annealing:
    """At each level sigma, `steps` times  x <- x + a s(x, sigma) + sqrt(2 a temperature) n,  a = rate sigma^2

    SMLD (Song and Ermon 2019, Algorithm 1, their epsilon = 2 rate sigma_L^2). In terms of T = Denoised(score, sigma),
    x <- (1 - rate) x + rate T(x) + noise: without noise (temperature = 0) a damped Picard step of x = T(x) at every
    level, gradient ascent whose fixed points are modes; the next level starts where the last one ended.

    The step is finite: where p_sigma is N(0, s^2) it keeps the variance s^2 / (1 - rate sigma^2 / 2 s^2), too wide by
    half of rate where s is sigma. No p_sigma curves more than that, so that an exact score is stable for rate < 2; a
    learned one may not be. Samples keep the noise of the last level; `Denoised(score, levels[-1])` takes it away.

    levels: falling, above 0. generator draws on the CPU, torch's global one without it.
    Raises ValueError for levels that do not fall, steps < 1, a rate outside (0, 2) and a start that is not finite.
    """
    levels = _checked(x, levels, steps, rate, temperature)
    residuals = []
    for sigma in levels:
        a, at = rate * sigma**2, x.new_tensor(sigma)
        noise, s = math.sqrt(2 * a * temperature), torch.zeros_like(x)
        for _ in range(steps):
            s = score(x, at)
            x = x + a * s
            if noise:
                x = x + noise * torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device)
        residuals.append(sigma**2 * torch.linalg.vector_norm(s.flatten(1), dim=1))
    return Annealing(x, torch.stack(residuals), len(levels) * steps)


def noise_ladder(highest: float, lowest: float, count: int) -> tuple[float, ...]:
    """`count` levels that fall by one factor, both ends among them.

    >>> [round(level, 9) for level in noise_ladder(1.0, 0.01, 3)]
    [1.0, 0.1, 0.01]
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    if not 0 < lowest < highest < math.inf:
        raise ValueError(f"lowest must be above 0 and below highest, got {lowest} and {highest}")
    return tuple(highest * (lowest / highest) ** (k / (count - 1)) for k in range(count))


def _checked(x: Tensor, levels: Sequence[float], steps: int, rate: float, temperature: float) -> tuple[float, ...]:
    falling = tuple(float(level) for level in levels)
    if not falling or any(b >= a for a, b in pairwise(falling)):
        raise ValueError(f"levels must fall, and be at least one, got {list(levels)}")
    for level in falling:
        _positive(level, "levels")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    if not 0 < rate < 2:
        raise ValueError(f"rate must lie in (0, 2), got {rate}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a finite number >= 0, got {temperature}")
    if x.ndim < 2:
        raise ValueError(f"x must be rows (B, ...), got {tuple(x.shape)}")
    if lost := int((~x.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(f"x must be finite, got {lost} of {len(x)} rows that are not")
    return falling


def _positive(value: float, name: str) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and above 0, got {value}")
