"""Graphs that carry features by their normalised adjacency."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from settlepoint.layers.adjacency import adjacency


class Indexed(Protocol):
    """What a carrier must know of its graphs; models.Graphs is one."""

    @property
    def edges(self) -> Tensor: ...

    @property
    def index(self) -> Tensor: ...

    @property
    def count(self) -> int: ...

    def nodes(self, table: Tensor) -> Tensor: ...

    def table(self, x: Tensor) -> Tensor: ...

    def select(self, rows: Tensor) -> Indexed: ...

    def centred(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Normalised:
    """Graphs with A = D^{-1/2} (L + I) D^{-1/2} of layers.adjacency, ||A||_2 <= 1 and A D^{1/2} 1 = D^{1/2} 1.

    by_degree: tables hold D^{-1/2} x for the nodes x, so that what is carried is (D^{-1/2} A D^{1/2}) (D^{-1/2} x), by
    a matrix with rows of sum 1: A does not expand in the largest entry of such a table. nodes gives x back.

    The edges of graphs may be the sparse A itself, taken as it is; not with by_degree. Raises ValueError where edges
    name no node, or where a node has more links in than out: A would not be symmetric.
    """

    graphs: Indexed
    dtype: torch.dtype
    by_degree: bool = False

    def __post_init__(self):
        edges = self.graphs.edges
        if edges.layout == torch.strided:
            out, into = degrees(edges, len(self.graphs.index))
            uneven = (out != into).nonzero()
            if len(uneven):
                node = int(uneven[0])
                raise ValueError(
                    f"edges must hold both directions of every link, got {int(out[node])} out of node {node} and "
                    f"{int(into[node])} into it"
                )
        elif self.by_degree:
            raise ValueError(f"edges must be (2, E) where nodes are measured by degree, got a matrix {edges.layout}")

    @cached_property
    def matrix(self) -> Tensor:  # sparse (N, N)
        """A, or D^{-1/2} A D^{1/2} with by_degree."""
        edges, nodes = self.graphs.edges, len(self.graphs.index)
        if edges.layout != torch.strided:
            return edges
        a = adjacency(edges, nodes, self.dtype)
        if not self.by_degree:
            return a
        row = torch.arange(nodes, device=edges.device).repeat_interleave(a.crow_indices().diff())
        values = a.values() * self.roots[a.col_indices(), 0] / self.roots[row, 0]
        return torch.sparse_csr_tensor(a.crow_indices(), a.col_indices(), values, a.shape, check_invariants=False)

    @cached_property
    def roots(self) -> Tensor:  # (N, 1)
        """D^{1/2}."""
        edges = self.graphs.edges
        out, _ = degrees(edges[:, edges[0] != edges[1]], len(self.graphs.index))
        return (out + 1).to(self.dtype).sqrt()[:, None]

    def table(self, x: Tensor) -> Tensor:  # (N, h) -> (count, length, h)
        """The nodes by graph, in the units of tables."""
        return self.graphs.table(x / self.roots if self.by_degree else x)

    def nodes(self, table: Tensor) -> Tensor:  # (count, length, h) -> (N, h)
        """The nodes of a table, in their own units."""
        x = self.graphs.nodes(table)
        return x * self.roots if self.by_degree else x

    def carried(self, table: Tensor) -> Tensor:  # (count, length, h) -> (count, length, h)
        """A x, in the units of tables."""
        return self.graphs.table(self.matrix @ self.graphs.nodes(table))

    def select(self, rows: Tensor) -> Normalised:
        """The graphs in rows alone."""
        chosen = self.graphs.select(rows)
        return self if chosen is self.graphs else Normalised(chosen, self.dtype, self.by_degree)


def degrees(edges: Tensor, nodes: int) -> tuple[Tensor, Tensor]:  # (2, E) -> (N,), (N,)
    """Edges out of every node and into it. Raises ValueError where edges name no node."""
    low, high = (int(edges.min()), int(edges.max())) if edges.numel() else (0, -1)
    if low < 0 or high >= nodes:
        raise ValueError(f"edges must name nodes in [0, {nodes}), got {low if low < 0 else high}")
    return torch.bincount(edges[0], minlength=nodes), torch.bincount(edges[1], minlength=nodes)
