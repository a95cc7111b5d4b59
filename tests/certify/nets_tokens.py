"""Pieces on tokens (R, n, d): attention of every kind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.certify.nets import Draw, Function, Net, chained
from tests.certify.nets_vector import SIMPLE
from torch import Tensor, nn

from settlepoint.layers import CubicAttention, L2Attention


def dot_product(draw: Draw, n: int, d: int) -> Function:
    """Self-attention by the function, with the masks it takes."""
    Q, K, V = (draw.scaled(d, d) for _ in range(3))
    hidden = torch.tensor([[j > i for j in range(n)] for i in range(n)])
    options = draw.pick(
        (
            {},
            {"is_causal": True},
            {"scale": 0.7},
            {"attn_mask": ~hidden},
            {"attn_mask": draw.normal(n, n)},
        )
    )
    return lambda x: F.scaled_dot_product_attention(x @ Q, x @ K, x @ V, **options)


def by_hand(draw: Draw, n: int, d: int) -> Function:
    """Heads in a loop, and memories that do not move."""
    Q, V, memory = draw.scaled(2, d, d), draw.scaled(d, d), draw.normal(3, d)
    ways = (
        lambda x: torch.stack([torch.softmax(x @ q @ x.mT, -1) @ x for q in Q]).mean(0) @ V,
        lambda x: torch.softmax(x @ memory.T, -1) @ memory,
        lambda x: (torch.softmax((x[:, None] @ Q) @ x[:, None].mT / d, -1) @ x[:, None]).sum(1) @ V,
        lambda x: torch.einsum("bij,bjk->bik", torch.softmax(x @ V @ x.mT, 1), x),
        lambda x: torch.sigmoid(x @ V @ x.mT) @ torch.tanh(x),
    )
    return draw.pick(ways)


def multihead(draw: Draw, n: int, d: int) -> Function:
    """The module, with and without masks, biases and the weights that it gives back."""
    heads = draw.pick([h for h in (1, 2) if d % h == 0])
    first = draw.integer(0, 1) == 0
    attention = draw.filled(nn.MultiheadAttention(d, heads, bias=draw.pick((True, False)), batch_first=first))
    wanted = draw.pick((False, True))
    options: dict[str, Tensor] = {}
    if draw.integer(0, 1):
        options["attn_mask"] = draw.pick((torch.ones(n, n, dtype=torch.bool).triu(1), draw.normal(n, n)))

    def call(x: Tensor) -> Tensor:
        z = x if first else x.transpose(0, 1)
        y = attention(z, z, z, need_weights=wanted, **options)[0]
        return y if first else y.transpose(0, 1)

    return call


def encoder(draw: Draw, n: int, d: int) -> Function:
    heads = draw.pick([h for h in (1, 2) if d % h == 0])
    layer = nn.TransformerEncoderLayer(
        d, heads, 3, 0.0, draw.pick(("relu", "gelu")), layer_norm_eps=0.1, batch_first=True,
        norm_first=draw.pick((True, False)),
    )  # fmt: skip
    layer, mask = draw.filled(layer), draw.pick((None, torch.ones(n, n, dtype=torch.bool).triu(1)))
    return lambda x: layer(x, src_mask=mask)


def cubic(draw: Draw, n: int, d: int) -> Function:
    return draw.filled(CubicAttention(d))


def distances(draw: Draw, n: int, d: int) -> Function:
    return draw.filled(L2Attention(d, draw.pick([h for h in (1, 2) if d % h == 0])))


def other(draw: Draw, n: int, d: int) -> Function:
    W, A = draw.scaled(d, d), draw.scaled(n, n)
    norm = draw.filled(draw.pick((nn.LayerNorm(d, eps=0.1), nn.RMSNorm(d, eps=0.1))))
    ways = (
        norm,
        lambda x: x + torch.tanh(x @ W),
        lambda x: A @ x,
        lambda x: torch.tanh(x).mT.contiguous().mT,
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: F.softmax(x, -1),
        lambda x: x[:, torch.arange(n).flip(0)],
        lambda x: (x @ W).softmax(1) * x,
        SIMPLE[draw.pick(tuple(SIMPLE))],
    )
    return draw.pick(ways)


PIECES = (dot_product, by_hand, multihead, encoder, cubic, distances, other)


def token_net(draw: Draw) -> Net:
    """1 to 3 pieces on two states of 1 to 4 tokens of 1 to 4 entries."""
    n, d = draw.integer(1, 4), draw.integer(1, 4)
    pieces = [draw.pick(PIECES) for _ in range(draw.integer(1, 3))]
    x = draw.normal(2, n, d) * draw.pick((0.0, 0.3, 1.0))
    return Net(tuple(p.__name__ for p in pieces), chained([p(draw, n, d) for p in pieces]), x, radii=draw.balls())
