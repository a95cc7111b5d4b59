"""Dropout whose masks come from a stream of the caller's own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16


def mask(like: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """0 with probability p and 1 / (1 - p) otherwise, in the shape and type of `like`.

    p is rounded to a multiple of 2^-16: four entries are cut out of each number that is drawn, which is several times
    as fast as one number an entry.
    """
    dropped = round(p * _LEVELS)
    if not dropped:
        return torch.ones_like(like)
    words = torch.empty(math.ceil(like.numel() / 4), dtype=torch.int64, device=like.device)
    words.random_(-(1 << 63), (1 << 63) - 1, generator=generator)
    levels = words.view(torch.int16)[: like.numel()].view(like.shape)
    return (levels >= dropped - _LEVELS // 2).to(like.dtype) * (_LEVELS / (_LEVELS - dropped))


class CopiedDropout(nn.Dropout):
    """Dropout of `copies` networks side by side, (..., copies * h), each by masks of its own stream.

    streams: one generator a copy; torch's global one for all until it is set, see training.copies.
    """

    def __init__(self, p: float = 0.5, copies: int = 1):
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), got {p}")
        super().__init__(p)
        self.copies = copies
        self.streams: list[torch.Generator | None] = [None] * copies

    def extra_repr(self) -> str:
        return f"p={self.p}, copies={self.copies}"

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.p):
            return input
        parts = input.chunk(self.copies, -1)
        return torch.cat([part * mask(part, self.p, g) for part, g in zip(parts, self.streams, strict=True)], -1)
