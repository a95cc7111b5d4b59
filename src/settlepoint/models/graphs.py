"""Graphs: one graph, or several side by side, as what an operator on nodes sees; one graph is one row of a solve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from settlepoint.layers.sparse import Places


class Data(Protocol):
    """What Graphs.of reads; Data and Batch of torch-geometric have it."""

    edge_index: Tensor
    batch: Tensor | None
    num_nodes: int
    num_graphs: int


@dataclass(frozen=True, eq=False)
class Graphs:
    """The edges of `count` graphs whose nodes lie one after the other, and which node belongs to which graph.

    edges: (2, E), source and target of every edge, or a sparse (N, N) matrix, of blocks along the diagonal for several
    graphs, handed to the convolution as it is. index: (N,), the graph of each node, ascending, as Data.batch of
    torch-geometric has it.

    A solve must stop graphs, not nodes: a node that stopped early would be left behind by its neighbours. `table`
    lays the nodes out as (count, length, h), padded with zeros, so that one row is one graph; `nodes` is its inverse;
    `select` restricts to some of the graphs and keeps the length, padded, of the table.

        >>> graphs = Graphs(torch.tensor([[0, 2], [1, 3]]), torch.tensor([0, 0, 1, 1, 1]), 2)
        >>> graphs.table(torch.ones(5, 4)).shape, graphs.select(torch.tensor([1])).edges.tolist()
        (torch.Size([2, 3, 4]), [[0], [1]])
    """

    edges: Tensor
    index: Tensor
    count: int
    padded: int = 0

    def __post_init__(self):
        if self.index.ndim != 1 or self.index.is_floating_point():
            raise ValueError(f"index must be a vector of integers, got {tuple(self.index.shape)} of {self.index.dtype}")
        if bool((self.index.diff() < 0).any()):
            raise ValueError("index must be ascending; order the nodes by graph, as torch-geometric's Batch does")
        if len(self.index) and not (self.index[0] >= 0 and self.index[-1] < self.count):
            raise ValueError(f"index must lie in [0, {self.count}), got up to {int(self.index[-1])}")
        if not self._sparse and (self.edges.ndim != 2 or self.edges.shape[0] != 2):
            raise ValueError(f"edges must be (2, E) or a sparse matrix, got {tuple(self.edges.shape)}")
        self._check_edges()

    def _check_edges(self) -> None:
        nodes = len(self.index)
        if self._sparse:
            if self.edges.shape != (nodes, nodes):
                raise ValueError(f"edges must be ({nodes}, {nodes}), one row a node, got {tuple(self.edges.shape)}")
        elif self.edges.numel():
            low, high = self.edges.min().item(), self.edges.max().item()
            if low < 0 or high >= nodes:
                raise ValueError(f"edges must name nodes in [0, {nodes}), got {low if low < 0 else high}")
        if self.count < 2:
            return
        ends = self.index[self.edges.to_sparse_coo().coalesce().indices() if self._sparse else self.edges]
        if not torch.equal(ends[0], ends[1]):
            edge = int((ends[0] != ends[1]).nonzero()[0])
            raise ValueError(f"edges must stay within a graph, edge {edge} joins graphs {ends[:, edge].tolist()}")

    @classmethod
    def of(cls, data: Data) -> Graphs:
        """The graphs of a torch-geometric Data or Batch."""
        if data.batch is None:
            return cls.one(data.edge_index, data.num_nodes)
        return cls(data.edge_index, data.batch, data.num_graphs)

    @classmethod
    def one(cls, edges: Tensor, nodes: int) -> Graphs:
        """A single graph with that many nodes."""
        return cls(edges, torch.zeros(nodes, dtype=torch.int64, device=edges.device), 1)

    @property
    def _sparse(self) -> bool:
        return self.edges.layout != torch.strided

    @cached_property
    def sizes(self) -> Tensor:  # (count,)
        """Nodes of each graph."""
        return torch.bincount(self.index, minlength=self.count)

    @cached_property
    def length(self) -> int:
        """Nodes of the largest graph, of those that a selection was made from."""
        return max(self.padded, int(self.sizes.max()) if self.count else 0)

    @cached_property
    def _slots(self) -> Tensor:
        starts = torch.cumsum(self.sizes, 0) - self.sizes
        within = torch.arange(len(self.index), device=self.index.device) - starts[self.index]
        return self.index * self.length + within

    def table(self, x: Tensor) -> Tensor:  # (N, h) -> (count, length, h)
        """The nodes by graph, padded with zeros, which change no norm. Raises ValueError for another number of them."""
        if len(x) != len(self.index):
            raise ValueError(f"x must have {len(self.index)} rows, one a node, got {len(x)}")
        if len(x) == self.count * self.length:
            return x.reshape(self.count, self.length, x.shape[1])
        empty = x.new_zeros(self.count * self.length, x.shape[1])
        return empty.index_copy(0, self._slots, x).reshape(self.count, self.length, x.shape[1])

    def nodes(self, table: Tensor) -> Tensor:  # (count, length, h) -> (N, h)
        """The nodes of a table, one after the other."""
        flat = table.reshape(self.count * self.length, table.shape[2])
        return flat if len(self.index) == len(flat) else flat.index_select(0, self._slots)

    def select(self, rows: Tensor) -> Graphs:
        """The graphs in rows (distinct, ascending) alone: their nodes renumbered, and the edges among them."""
        if len(rows) == self.count:
            return self
        place = torch.full((self.count,), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        kept = place[self.index] >= 0
        renumbered = torch.cumsum(kept, 0) - 1
        return Graphs(self._among(kept, renumbered), place[self.index[kept]], len(rows), self.length)

    def _among(self, kept: Tensor, renumbered: Tensor) -> Tensor:
        """The edges among the nodes that are kept, by their new numbers."""
        if not self._sparse:
            return renumbered[self.edges[:, kept[self.edges[0]]]]
        entries = self.edges.to_sparse_coo().coalesce()
        inside, nodes = kept[entries.indices()[0]], int(kept.sum())
        index, values = renumbered[entries.indices()[:, inside]], entries.values()[inside]
        part = torch.sparse_coo_tensor(index, values, (nodes, nodes), is_coalesced=True, check_invariants=False)
        return Places.of(part).matrix(values) if self.edges.layout == torch.sparse_csr else part

    def mean(self, x: Tensor) -> Tensor:  # (N, h) -> (count, h)
        """The mean over the nodes of each graph; 0 for a graph without nodes."""
        total = x.new_zeros(self.count, x.shape[1]).index_add(0, self.index, x)
        return total / self.sizes.clamp(min=1).to(x.dtype)[:, None]

    def centred(self, x: Tensor) -> Tensor:  # (N, h) -> (N, h)
        """x less its mean over the nodes of each graph."""
        if self.count == 1:
            return x - x.mean(0) if len(x) else x
        return x - self.mean(x)[self.index]
