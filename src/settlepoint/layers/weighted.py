"""Graphs whose edges carry numbers: features of an edge, or the weights of what it carries."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from settlepoint.layers.normalised import Indexed, degrees


@dataclass(frozen=True, eq=False)
class Weighted:
    """Graphs with k numbers an edge, (A_k x)_t = sum of w_k x_s over the edges from s to t.

    weight: (E, k), restricted together with the graphs. Of the h features of a node, the first h/k are carried by the
    first number of each edge, the next by the second, and so on: k heads. Edges may have one direction only. Raises
    ValueError for weights that do not fit the edges, for edges that name no node, and for a sparse matrix of edges.
    """

    graphs: Indexed
    weight: Tensor

    def __post_init__(self):
        edges = self.edges
        if edges.layout != torch.strided:
            raise ValueError(f"edges must be (2, E) to carry numbers, got a matrix {edges.layout}")
        if self.weight.ndim != 2 or len(self.weight) != edges.shape[1]:
            raise ValueError(f"weight must be ({edges.shape[1]}, k), one row an edge, got {tuple(self.weight.shape)}")
        degrees(edges, len(self.index))

    @property
    def edges(self) -> Tensor:  # (2, E)
        return self.graphs.edges

    @property
    def index(self) -> Tensor:  # (N,)
        return self.graphs.index

    @property
    def count(self) -> int:
        return self.graphs.count

    def table(self, x: Tensor) -> Tensor:  # (N, h) -> (count, length, h)
        """The nodes by graph."""
        return self.graphs.table(x)

    def nodes(self, table: Tensor) -> Tensor:  # (count, length, h) -> (N, h)
        """The nodes of a table, one after the other."""
        return self.graphs.nodes(table)

    @cached_property
    def _ends(self) -> Tensor:  # (2, E k)
        """Source and target of every edge and head, of N k nodes of one head each."""
        heads = self.weight.shape[1]
        return (self.edges[:, :, None] * heads + torch.arange(heads, device=self.edges.device)).flatten(1)

    @cached_property
    def _matrix(self) -> Tensor:  # sparse (N k, N k)
        """The A_k of all heads, without gradients."""
        nodes, values = len(self.index) * self.weight.shape[1], self.weight.detach().flatten()
        return csr(torch.sparse_coo_tensor(self._ends.flip(0), values, (nodes, nodes), check_invariants=False))

    def carried(self, table: Tensor) -> Tensor:  # (count, length, h) -> (count, length, h)
        """A_k x for every head; a sparse product, several times as fast, where no gradient is recorded."""
        x, heads = self.nodes(table), self.weight.shape[1]
        parts = x.reshape(len(x) * heads, x.shape[1] // heads)
        moved = self._messages(parts) if torch.is_grad_enabled() else self._matrix @ parts
        return self.table(moved.reshape(x.shape))

    def _messages(self, parts: Tensor) -> Tensor:  # (N k, h/k) -> (N k, h/k)
        source, target = self._ends
        sent = parts.index_select(0, source) * self.weight.reshape(-1, 1)
        return torch.zeros_like(parts).index_add(0, target, sent)

    def select(self, rows: Tensor) -> Weighted:
        """The graphs in rows alone, and the numbers of their edges."""
        chosen = self.graphs.select(rows)
        if chosen is self.graphs:
            return self
        left = torch.zeros(self.count, dtype=torch.bool, device=rows.device).index_fill(0, rows, True)
        return Weighted(chosen, self.weight[left[self.index[self.edges[0]]]])


def csr(matrix: Tensor) -> Tensor:
    """A sparse matrix by rows, entries at the same place added up."""
    with warnings.catch_warnings():  # torch calls CSR a beta; it is what sparse products are made of
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return matrix.to_sparse_csr()


def incoming_softmax(scores: Tensor, targets: Tensor, nodes: int) -> Tensor:  # (E, k), (E,) -> (E, k)
    """exp(score) over its sum among the edges with the same target: weights under which no node gets more than 1."""
    place = targets[:, None].expand_as(scores)
    lowest = scores.new_full((nodes, scores.shape[1]), -torch.inf)
    highest = lowest.scatter_reduce(0, place, scores.detach(), "amax")
    share = (scores - highest.index_select(0, targets)).exp()
    total = scores.new_zeros(nodes, scores.shape[1]).index_add(0, targets, share)
    return share / total.index_select(0, targets)
