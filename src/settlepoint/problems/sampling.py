"""Draws in float64 from a generator, and what may be asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Range = tuple[float, float]


def check_sampling(n: int, generator: torch.Generator) -> None:
    """Raise unless n is an integer >= 1 and generator a torch.Generator on the CPU."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be an integer >= 1, got {n!r}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU (Batch.to moves what was drawn), got {generator.device}")


def check_range(name: str, value: Range, above: float = -math.inf) -> None:
    """Raise unless value is (low, high) with above < low <= high < inf."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(v, int | float) for v in value):
        raise TypeError(f"{name} must be a pair of numbers (low, high), got {value!r}")
    low, high = value
    if not (above < low <= high < math.inf):
        least = "" if above == -math.inf else f" > {above:g}"
        raise ValueError(f"{name} must be a pair of finite numbers low <= high{least}, got {value!r}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise unless value is an integer >= least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def uniform(bounds: Range, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """U(low, high) in float64."""
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 1) in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)
