"""Transformer blocks against attention written out, and what makes theirs local and parallel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from settlepoint.layers import SelfAttention, TransformerBlock


def by_hand(layer: SelfAttention, x: torch.Tensor, scale: torch.Tensor, masked: bool) -> torch.Tensor:
    width = x.shape[-1]
    q, k, v = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in layer.qkv(x).split(width, -1))
    scores = q @ k.transpose(-2, -1) * scale
    if masked:
        scores = scores.masked_fill(torch.eye(x.shape[1], dtype=torch.bool), -torch.inf)
    return layer.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("local", [False, True])
def test_attention_is_that_of_its_formula(local: bool) -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(6, 2, local=local).double(), torch.randn(3, 5, 6, dtype=torch.float64)
    scale = torch.full((2, 1, 1), 1 / math.sqrt(3), dtype=torch.float64)
    assert torch.allclose(layer(x), by_hand(layer, x, scale, local), atol=1e-12)
    if local:
        assert layer.log_scale is not None
        nn.init.constant_(layer.log_scale, 0.7)
        assert torch.allclose(layer(x), by_hand(layer, x, layer.log_scale.exp(), True), atol=1e-12)


def test_branches_are_added() -> None:
    torch.manual_seed(0)
    block, x = TransformerBlock(4, 2, branches=2), torch.randn(2, 3, 4)
    y = x + block.attention[0](x) + block.attention[1](x)
    assert torch.allclose(block(x), y + block.mlp[0](y) + block.mlp[1](y), atol=1e-6)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(block) == 2 * count(TransformerBlock(4, 2))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide width, got 4 and 6"):
        SelfAttention(6, 4)
    with pytest.raises(ValueError, match="branches must be at least 1, got 0"):
        TransformerBlock(4, 2, branches=0)
    with pytest.raises(ValueError, match="x must have at least two tokens"):
        SelfAttention(4, 2, local=True)(torch.zeros(1, 1, 4))
