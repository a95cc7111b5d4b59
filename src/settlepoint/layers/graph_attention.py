"""GATConv on a graph given as a sparse matrix: the same numbers, several times as fast on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from settlepoint.layers.masks import CopiedDropout
from settlepoint.layers.sparse import Places, PlacesOf, spread
from settlepoint.layers.weighted import incoming_softmax


class SparseAttention(nn.Module):
    """conv, a GATConv, with its forward replaced by `attended` where the edges are a sparse CSR matrix.

    copies: networks side by side, whose heads lie one copy after another, see training.copies.
    """

    def __init__(self, conv: nn.Module, copies: int = 1):
        super().__init__()
        if conv.edge_dim is not None or getattr(conv, "residual", False):
            raise ValueError("conv must have neither edge_dim nor residual, which a sparse matrix does not carry")
        self.conv, self.dropout = conv, CopiedDropout(float(conv.dropout), copies)  # type: ignore[arg-type]
        self._places = PlacesOf()

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        if edges.layout != torch.sparse_csr:
            return self.conv(h, edges)
        return attended(self.conv, h, self._places(edges), self.dropout)


def attended(conv: Any, h: Tensor, places: Places, dropout: nn.Module | None = None) -> Tensor:
    """What the GATConv `conv` makes of h (N, inputs) where `places` are those of the links in an (N, N) matrix

    y_i = sum_j a_ij W h_j,  a_i. = softmax_j LeakyReLU(s . W h_j + d . W h_i)        (Velickovic et al. 2018)

    for every head, j over the entries of row i; loops are those of the matrix. The sum is a sparse product a head,
    forward and back, instead of a message along every edge. dropout: of the a_ij.
    """
    values = conv.lin(h).view(len(h), conv.heads, conv.out_channels)
    share = _shares(conv, values, places)
    y = spread(share if dropout is None else dropout(share), values, places)
    y = y.flatten(1) if conv.concat else y.mean(1)
    return y if conv.bias is None else y + conv.bias


def _shares(conv: Any, values: Tensor, places: Places) -> Tensor:  # (E, heads)
    """The softmax over every row of its matrix."""
    source, target = (torch.einsum("nhd,hd->nh", values, att[0]) for att in (conv.att_src, conv.att_dst))
    scores = source.index_select(0, places.columns) + target.index_select(0, places.owners)
    return incoming_softmax(nn.functional.leaky_relu(scores, conv.negative_slope), places.owners, len(values))
