"""Attention without soft-max on points of a domain, a sum that stands for an integral."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GalerkinAttention(nn.Module):
    """Q (norm(K)^T norm(V)) / n on n points (B, n, width), head by head        (Galerkin attention, Cao 2021)

    The mean over the points stands for the integral of a kernel over the domain, at a cost linear in n. dropout: of
    K^T V / n; in_evaluation: drop there too, a fault that a published code has.

    Raises ValueError when heads does not divide width.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0, in_evaluation: bool = False):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads must divide width, got {heads} and {width}")
        self.heads, self.dropout, self.in_evaluation = heads, dropout, in_evaluation
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.key_norm, self.value_norm = nn.LayerNorm(width // heads), nn.LayerNorm(width // heads)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, dropout={self.dropout}, in_evaluation={self.in_evaluation}"

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, n, d)
        table = self.key_norm(k).transpose(-2, -1) @ self.value_norm(v) / x.shape[1]
        table = nn.functional.dropout(table, self.dropout, self.training or self.in_evaluation)
        return self.out((q @ table).transpose(1, 2).flatten(2))


class GalerkinBlock(nn.Module):
    """y = norm(x + attention(x)),  z = norm(y + mlp(y)): the norm behind, as the first transformers had it."""

    def __init__(self, attention: GalerkinAttention, width: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.attention, self.drop = attention, nn.Dropout(dropout)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x + self.drop(self.attention(x)))
        return self.norms[1](y + self.drop(self.mlp(y)))


def coordinates(*sizes: int) -> Tensor:  # (prod(sizes), len(sizes))
    """The points of a grid on [0, 1) along each axis, the last axis running fastest.

    >>> coordinates(2, 2).tolist()
    [[0.0, 0.0], [0.0, 0.5], [0.5, 0.0], [0.5, 0.5]]
    """
    return torch.cartesian_prod(*(torch.arange(size) / size for size in sizes)).view(-1, len(sizes))
