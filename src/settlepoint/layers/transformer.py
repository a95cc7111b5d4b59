"""The block of a vision transformer: attention and a perceptron, before each the layer norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """softmax(q k^T / tau) v W_O on tokens (B, n, width), head by head                          (Vaswani et al. 2017)

    tau: the square root of the width of a head; with `local` it is learned, one a head, started there, and no token
    attends to itself (locality self-attention, Lee, Lee and Song 2021).

    Raises ValueError when heads does not divide width, and with local for a single token.
    """

    def __init__(self, width: int, heads: int, *, local: bool = False):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads must divide width, got {heads} and {width}")
        self.heads, self.local = heads, local
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        start = -0.5 * math.log(width // heads)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), start)) if local else None

    def extra_repr(self) -> str:
        return f"heads={self.heads}, local={self.local}"

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, n, k)
        mask, scale = None, None
        if self.log_scale is not None:
            if x.shape[1] < 2:
                raise ValueError(f"x must have at least two tokens, since none attends to itself, got {x.shape[1]}")
            q, scale = q * self.log_scale.exp(), 1.0
            mask = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        y = nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scale)
        return self.out(y.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """y = x + sum_i attention_i(norm x),  z = y + sum_i mlp_i(norm y)

    branches: of each kind, with norms and weights of their own; two are the parallel transformer of Touvron et al.
    (2022). hidden: width of the perceptrons, 4 width unless given. local: see SelfAttention. dropout: of what each
    branch adds.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int | None = None,
        branches: int = 1,
        local: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        if branches < 1:
            raise ValueError(f"branches must be at least 1, got {branches}")
        wide, drop = hidden or 4 * width, nn.Dropout(dropout)
        self.attention, self.mlp = (
            nn.ModuleList(nn.Sequential(nn.LayerNorm(width), part, drop) for part in parts)
            for parts in (
                [SelfAttention(width, heads, local=local) for _ in range(branches)],
                [nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width)) for _ in range(branches)],
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        for branches in (self.attention, self.mlp):
            x = sum((branch(x) for branch in branches), x)
        return x
