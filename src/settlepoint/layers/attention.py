"""Self-attention that has Lipschitz constants: by distances, and the cubic form without soft-max."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from settlepoint.layers.linear import uniform_


def l2_attention(x: Tensor, query: Tensor, value: Tensor) -> Tensor:  # (B, n, d) -> (B, n, h k)
    """softmax_j(-||(x_i - x_j) W_Q||^2 / sqrt(k)) X A W_V with A = W_Q W_Q^T / sqrt(k), head by head, side by side.

    query: W_Q (h, d, k), of queries and keys alike. value: W_V (h, d, k). Unlike soft-max of dot products it is
    Lipschitz on the whole space (Kim, Papamakarios and Mnih 2021).
    """
    if has_torch_function_unary(x):
        return handle_torch_function(l2_attention, (x,), x, query, value)
    return composed_l2_attention(x, query, value)


def composed_l2_attention(x: Tensor, query: Tensor, value: Tensor) -> Tensor:
    """`l2_attention` step by step."""
    scale = math.sqrt(query.shape[-1])
    q = x.unsqueeze(-3) @ query  # (B, h, n, k)
    squares = q.square().sum(-1, keepdim=True)
    distance = squares + squares.transpose(-2, -1) - 2 * (q @ q.transpose(-2, -1))
    mixed = torch.softmax(distance * (-1 / scale), -1) @ (x.unsqueeze(-3) @ (query @ query.transpose(-2, -1) / scale))
    return (mixed @ value).movedim(-3, -2).flatten(-2)


class L2Attention(nn.Module):
    """X -> l2_attention(X) W_O on tokens (B, n, width); `heads` must divide width."""

    def __init__(self, width: int, heads: int = 1, *, generator: torch.Generator | None = None):
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads must divide width, got {heads} and {width}")
        size = (heads, width, width // heads)
        self.query, self.value = nn.Parameter(torch.empty(size)), nn.Parameter(torch.empty(size))
        self.out = nn.Parameter(torch.empty(width, width))
        for parameter in self.parameters():
            uniform_(parameter, 1 / math.sqrt(width), generator)

    def extra_repr(self) -> str:
        return f"width={len(self.out)}, heads={len(self.query)}"

    def forward(self, x: Tensor) -> Tensor:
        return l2_attention(x, self.query, self.value) @ self.out


class CubicAttention(nn.Module):
    """X -> (X W_Q) (X W_K)^T (X W_V), the attention of Operator Learning Meets Numerical Analysis, Lemma 2.

    No soft-max, scale, residual or norm; the order of products of Galerkin attention gives the same. On ||X||_F <= r it
    has the Lipschitz constant 3 r^2 ||W_Q|| ||W_K|| ||W_V||, and none on the whole space. tokens (B, n, width).
    """

    def __init__(self, width: int, *, generator: torch.Generator | None = None):
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.query, self.key, self.value = (nn.Parameter(torch.empty(width, width)) for _ in range(3))
        for parameter in self.parameters():
            uniform_(parameter, 1 / math.sqrt(width), generator)

    def extra_repr(self) -> str:
        return f"width={len(self.query)}"

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.query) @ (x @ self.key).transpose(-2, -1) @ (x @ self.value)
