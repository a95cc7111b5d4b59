"""Linear layers whose weights come from a generator that the caller holds."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def linear(
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Linear:
    """`nn.Linear` with w, b ~ U(-1/sqrt(inputs), 1/sqrt(inputs)), torch's own distribution, drawn with generator.

    >>> linear(3, 2, generator=torch.Generator().manual_seed(0)).weight.shape
    torch.Size([2, 3])
    """
    if inputs < 1:
        raise ValueError(f"inputs must be at least 1, got {inputs}")
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, dtype=dtype)
    assert isinstance(layer, nn.Linear)
    for parameter in layer.parameters():
        uniform_(parameter, 1 / math.sqrt(inputs), generator)
    return layer


@torch.no_grad()
def uniform_(parameter: Tensor, bound: float, generator: torch.Generator | None) -> Tensor:
    """parameter, filled in place with U(-bound, bound)."""
    return parameter.uniform_(-bound, bound, generator=generator)
