"""A convolution that takes the best message, as shortest paths and values do, and graphs whose edges reach it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from settlepoint.layers.weighted import Weighted


class Links(NamedTuple):
    """Edges with what is known of them. ends: (2, E), source and target; x: (E, D), features."""

    ends: Tensor
    x: Tensor


@dataclass(frozen=True, eq=False)
class Featured:
    """Graphs whose `edges` are Links: a convolution inside PIGN or IterGNN sees the features of the edges with them.

    weighted: the graphs and the features, checked there, restricted together as graphs of a batch finish. It goes to
    the model in the place of Graphs; conv is then called as conv(h, Links).
    """

    weighted: Weighted

    @cached_property
    def edges(self) -> Links:
        """Both ends and the features of every edge."""
        return Links(self.weighted.edges, self.weighted.weight)

    @property
    def index(self) -> Tensor:  # (N,)
        return self.weighted.index

    @property
    def count(self) -> int:
        return self.weighted.count

    def table(self, x: Tensor) -> Tensor:  # (N, h) -> (count, length, h)
        """The nodes by graph."""
        return self.weighted.table(x)

    def nodes(self, table: Tensor) -> Tensor:  # (count, length, h) -> (N, h)
        """The nodes of a table, one after the other."""
        return self.weighted.nodes(table)

    def centred(self, x: Tensor) -> Tensor:  # (N, h) -> (N, h)
        """x less its mean over the nodes of each graph."""
        return self.weighted.graphs.centred(x)

    def select(self, rows: Tensor) -> Featured:
        """The graphs in rows alone, and the features of their edges."""
        chosen = self.weighted.select(rows)
        return self if chosen is self.weighted else Featured(chosen)


class PathConv(nn.Module):
    """h_i' = max over the edges from j to i of h_j + V relu(S h_j + T h_i + E e_ij)        (after PathGNN, Tang 2020)

    Without biases, hence homogeneous: a h and a e give a h', for a > 0, and what was learned for short distances says
    something of long ones. h_j is added to the published message, and V starts at 0: at first the features are carried
    as they are, which does not expand in the largest entry. Bellman's operators are of this form, h_j - e for distances
    with their sign changed, gamma h_j + e for values.

    links: Links, as Featured graphs have them. loops: every node is a neighbour of its own, with an edge of features 0.
    A node that no edge reaches gets 0. Raises ValueError for features of another number than edge_features.
    """

    def __init__(self, hidden: int, edge_features: int, *, loops: bool = False):
        super().__init__()
        for name, value in (("hidden", hidden), ("edge_features", edge_features)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.source, self.target = nn.Linear(hidden, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        self.edge, self.message = nn.Linear(edge_features, hidden, bias=False), nn.Linear(hidden, hidden, bias=False)
        nn.init.zeros_(self.message.weight)
        self.loops = loops

    def extra_repr(self) -> str:
        return f"loops={self.loops}"

    def forward(self, h: Tensor, links: Links) -> Tensor:  # (N, hidden) -> (N, hidden)
        (source, target), known = links.ends, links.x
        if known.shape[1] != self.edge.in_features:
            raise ValueError(f"links must have {self.edge.in_features} features an edge, got {known.shape[1]}")
        seen, asked = self.source(h), self.target(h)
        inner = seen.index_select(0, source) + asked.index_select(0, target) + self.edge(known)
        sent = h.index_select(0, source) + self.message(inner.relu())
        place = target[:, None].expand_as(sent)
        if self.loops:
            return (h + self.message((seen + asked).relu())).scatter_reduce(0, place, sent, "amax")
        return torch.zeros_like(h).scatter_reduce(0, place, sent, "amax", include_self=False)
