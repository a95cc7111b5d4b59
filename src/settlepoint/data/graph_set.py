"""A set of graphs with a class or a number on every node, laid one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.data.registry import DataError

UNSCORED = -1
"""The class of a node that no loss and no score counts."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphSet:
    """`count` graphs whose nodes lie one after the other, as torch-geometric's Batch has them.

    x: (N, F) features. y: (N,), class numbers in [-1, classes), -1 for a node that is not scored, or, with classes 0,
    one number a node. edges: (2, E), source and target. index: (N,), the graph of each node, ascending. edge_x: (E, D),
    features of the edges. names: one a graph.

    Raises DataError for indices out of range, an edge between two graphs, features or numbers that are not finite, and
    labels out of range. A graph may have no edges, or no nodes.

    >>> pair = GraphSet.joined([line(2), line(3)]); len(pair), pair.take(torch.tensor([1])).edges.tolist()
    (2, [[0, 1, 1, 2], [1, 2, 0, 1]])
    """

    x: Tensor
    y: Tensor
    edges: Tensor
    index: Tensor
    count: int
    classes: int = 0
    edge_x: Tensor | None = None
    names: Sequence[str] = ()

    def __post_init__(self):
        self._check_shapes()
        self._check_edges()
        self._check_values()

    def _check_shapes(self) -> None:
        if self.x.ndim != 2 or self.edges.ndim != 2:
            raise DataError(f"x must be (N, F) and edges (2, E), got {tuple(self.x.shape)}, {tuple(self.edges.shape)}")
        nodes, links = len(self.x), self.edges.shape[1]
        for name, value in (("y", self.y), ("index", self.index)):
            if value.shape != (nodes,):
                raise DataError(f"{name} must be ({nodes},), one value a node of x, got {tuple(value.shape)}")
        if self.edges.shape != (2, links) or not _whole(self.edges):
            raise DataError(f"edges must be (2, E) of integers, got {tuple(self.edges.shape)} of {self.edges.dtype}")
        if self.edge_x is not None and (self.edge_x.ndim != 2 or len(self.edge_x) != links):
            raise DataError(f"edge_x must be ({links}, D), one row an edge, got {tuple(self.edge_x.shape)}")
        if self.names and len(self.names) != self.count:
            raise DataError(f"names must be {self.count}, one a graph, got {len(self.names)}")
        if not _whole(self.index):
            raise DataError(f"index must hold integers, the graph of each node, got {self.index.dtype}")
        if bool((self.index.diff() < 0).any()) or (
            nodes and not 0 <= int(self.index[0]) <= int(self.index[-1]) < self.count
        ):
            raise DataError(f"index must ascend within [0, {self.count}), the graph of each node")

    def _check_edges(self) -> None:
        if not self.edges.numel():
            return
        low, high = int(self.edges.min()), int(self.edges.max())
        if low < 0 or high >= len(self.x):
            raise DataError(f"edges must name nodes in [0, {len(self.x)}), got {low if low < 0 else high}")
        ends = self.index[self.edges]
        apart = (ends[0] != ends[1]).nonzero()
        if len(apart):
            edge = int(apart[0])
            raise DataError(f"edges must stay within a graph, edge {edge} joins graphs {ends[:, edge].tolist()}")

    def _check_values(self) -> None:
        for name, value in (("x", self.x), ("edge_x", self.edge_x), ("y", None if self.classes else self.y)):
            if value is not None and value.is_floating_point() and not bool(value.isfinite().all()):
                row = int((~value.isfinite()).nonzero()[0, 0])
                raise DataError(f"{name} must be finite, row {row} is not")
        if self.classes and not _whole(self.y):
            raise DataError(f"y must hold integers, since there are {self.classes} classes, got {self.y.dtype}")
        if self.classes and len(self.y):
            low, high = int(self.y.min()), int(self.y.max())
            if low < UNSCORED or high >= self.classes:
                bad = low if low < UNSCORED else high
                raise DataError(f"y must lie in [0, {self.classes}), or be {UNSCORED} for unscored, got {bad}")

    def __len__(self) -> int:
        return self.count

    def take(self, rows: Tensor | Sequence[int]) -> GraphSet:
        """The graphs at rows, in that order; one may come twice. Raises IndexError for rows out of range, or a mask."""
        if torch.as_tensor(rows).dtype == torch.bool:
            raise IndexError("rows must be numbers of graphs, got a mask; take(mask.nonzero()[:, 0])")
        rows = torch.as_tensor(rows, dtype=torch.int64, device=self.index.device)
        if len(rows) and not (0 <= int(rows.min()) and int(rows.max()) < self.count):
            raise IndexError(f"rows must lie in [0, {self.count}), got {rows.tolist()}")
        starts, sizes = _spans(self.index, self.count)
        edge_starts, edge_sizes = _spans(self.index[self.edges[0]], self.count)
        order = _edge_order(self.index[self.edges[0]])
        nodes, index = _gather(starts[rows], sizes[rows])
        links, owner = _gather(edge_starts[rows], edge_sizes[rows])
        links = links if order is None else order[links]
        shift = torch.cumsum(sizes[rows], 0) - sizes[rows] - starts[rows]
        return replace(
            self, x=self.x[nodes], y=self.y[nodes], index=index, count=len(rows),
            edges=self.edges[:, links] + shift[owner], edge_x=None if self.edge_x is None else self.edge_x[links],
            names=[self.names[row] for row in rows.tolist()] if self.names else (),
        )  # fmt: skip

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> GraphSet:
        """Everything on the device, features in dtype."""
        moved = {name: getattr(self, name).to(device) for name in ("y", "edges", "index")}
        edge_x = None if self.edge_x is None else self.edge_x.to(device, dtype)
        return replace(self, **moved, x=self.x.to(device, dtype), edge_x=edge_x)

    @classmethod
    def joined(cls, graphs: Sequence[GraphSet]) -> GraphSet:
        """Sets one after the other. Raises DataError unless features, classes and edge features agree, and for none."""
        shapes = {
            (graph.x.shape[1], graph.classes, None if graph.edge_x is None else graph.edge_x.shape[1])
            for graph in graphs
        }
        if len(shapes) != 1:
            raise DataError(f"graphs must agree in features, classes and edge features, got {list(shapes) or 'none'}")
        sizes, counts = [len(graph.x) for graph in graphs], [graph.count for graph in graphs]
        firsts = [sum(sizes[:i]) for i in range(len(sizes))]
        starts = [sum(counts[:i]) for i in range(len(counts))]
        edge_x = [graph.edge_x for graph in graphs if graph.edge_x is not None]
        return cls(
            x=torch.cat([graph.x for graph in graphs]), y=torch.cat([graph.y for graph in graphs]),
            edges=torch.cat([graph.edges + first for graph, first in zip(graphs, firsts, strict=True)], 1),
            index=torch.cat([graph.index + start for graph, start in zip(graphs, starts, strict=True)]),
            count=sum(counts), classes=graphs[0].classes, edge_x=torch.cat(edge_x) if edge_x else None,
            names=[name for graph in graphs for name in graph.names] if all(graph.names for graph in graphs) else (),
        )  # fmt: skip


def line(nodes: int) -> GraphSet:
    """A path with the number of each node as its feature: the smallest graph worth a test."""
    steps = torch.arange(nodes - 1) if nodes else torch.zeros(0, dtype=torch.int64)
    edges = torch.stack((torch.cat((steps, steps + 1)), torch.cat((steps + 1, steps))))
    edges = edges[:, edges[0].argsort(stable=True)]
    zeros = torch.zeros(nodes, dtype=torch.int64)
    return GraphSet(x=torch.arange(nodes).float()[:, None], y=zeros, edges=edges, index=zeros, count=1, classes=1)


def _whole(values: Tensor) -> bool:
    """Whether the values are integers; torch counts bool among them, and a mask is no index."""
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _spans(owner: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where the entries of each graph start once they are ordered by graph, and how many they are."""
    sizes = torch.bincount(owner, minlength=count)
    return torch.cumsum(sizes, 0) - sizes, sizes


def _edge_order(owner: Tensor) -> Tensor | None:
    """The edges by graph; None when they lie so already."""
    return owner.argsort(stable=True) if bool((owner.diff() < 0).any()) else None


def _gather(starts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """start, start + 1, ... for each span, and the number of its span."""
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    within = torch.arange(len(owner), device=sizes.device) - (torch.cumsum(sizes, 0) - sizes)[owner]
    return starts[owner] + within, owner
