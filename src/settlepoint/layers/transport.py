"""What a graph convolution does to the features that it carries along the edges."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from settlepoint.layers.pyg import pyg

Transport = Literal["identity", "learned", "mixed"]


class Mixed(nn.Module):
    """x -> (1 - b) x + b W x, b = sigmoid(share)        (the identity mapping of GCNII, Chen et al. 2020)

    linear: W, square. share: learned, b = 0.1 at first.
    """

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.linear = linear
        self.share = nn.Parameter(torch.tensor(0.1).logit())

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.linear(x), self.share.sigmoid().to(x.dtype))


def transported(conv: nn.Module, transport: Transport) -> nn.Module:
    """conv, changed in place in how it carries features.

    "identity": as they are; "learned": through its own weight, nothing is changed; "mixed": through a blend of both.
    "identity" and "mixed" are known for GCNConv and for GATConv with as many outputs (heads x channels) as inputs;
    TypeError for others. Raises ImportError, naming the extra, without torch-geometric.
    """
    if transport not in ("identity", "learned", "mixed"):
        raise ValueError(f"transport must be 'identity', 'learned' or 'mixed', got {transport!r}")
    if transport == "learned":
        return conv
    GATConv, GCNConv = pyg().GATConv, pyg().GCNConv

    if not isinstance(conv, GCNConv | GATConv):
        raise TypeError(
            f"transport {transport!r} is known for GCNConv and GATConv, got {type(conv).__name__}; give a conv that "
            "carries features as you wish and transport='learned'"
        )
    linear = conv.lin
    assert isinstance(linear, nn.Module)
    conv.lin = nn.Identity() if transport == "identity" else Mixed(linear)
    return conv
