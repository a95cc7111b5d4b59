"""Shortest paths on generated graphs: the distance of every node from one source, exact, and as far as the graph."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import Delaunay, KDTree
from torch import Tensor

from settlepoint.data.graph_set import GraphSet

Kind = Literal["planar", "nearest", "random"]


def shortest_paths(
    count: int,
    generator: torch.Generator,
    *,
    nodes: tuple[int, int] = (4, 33),
    kind: Kind = "planar",
    degree: int = 4,
    lengths: tuple[float, float] = (0.5, 1.5),
) -> GraphSet:
    """y_i = min over the paths from the source to i of the sum of their lengths        (the task of Tang et al. 2020)

    nodes: least and most, uniform. kind: of graph, see `connected_links`. lengths: of the links, uniform between both,
    the same in both directions. x: (N, 1), 1 at the source, a node at random, elsewhere 0. edges: both directions;
    edge_x: (E, 1), the length. y by SciPy's Dijkstra. The farthest node is some .6 sqrt(nodes) away in planar graphs.

    Every node is reached: links that leave a graph in several parts are joined. Raises ValueError for a number that
    makes no such graph.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    if not 1 <= nodes[0] <= nodes[1]:
        raise ValueError(f"nodes must be (least, most) with 1 <= least <= most, got {nodes}")
    if not 0 < lengths[0] <= lengths[1] < float("inf"):
        raise ValueError(f"lengths must be (least, most) with 0 < least <= most, got {lengths}")
    sizes = torch.randint(nodes[0], nodes[1] + 1, (count,), generator=generator).tolist()
    graphs = [_graph(connected_links(kind, size, generator, degree=degree), size, lengths, generator) for size in sizes]
    return GraphSet.joined(graphs) if graphs else _empty()


def distances(edges: Tensor, lengths: Tensor, source: int, nodes: int) -> Tensor:  # (2, E), (E,) -> (N,)
    """The distance of each node from source along directed edges, in float64, by SciPy's Dijkstra.

    Of edges between the same two nodes the shortest counts. Raises ValueError for a source or edges that name no node,
    lengths not positive, and nodes that the source does not reach: they have no distance.
    """
    if not 0 <= source < nodes:
        raise ValueError(f"source must be a node in [0, {nodes}), got {source}")
    check_edges(edges, lengths, nodes, "lengths")
    if not bool((lengths > 0).all()):
        raise ValueError(f"lengths must be positive, got {float(lengths.min())}")
    found = torch.as_tensor(dijkstra(_shortest(edges, lengths.double(), nodes), indices=source))
    missed = found.isinf().nonzero()[:, 0]
    if len(missed):
        raise ValueError(f"source {source} must reach every node, got {len(missed)} unreached, first {int(missed[0])}")
    return found


def check_edges(edges: Tensor, numbers: Tensor, nodes: int, name: str) -> None:
    """Raises ValueError unless edges are (2, E) between nodes and come with as many finite numbers, called name."""
    if edges.ndim != 2 or len(edges) != 2:
        raise ValueError(f"edges must be (2, E), source and target, got {tuple(edges.shape)}")
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes:
        raise ValueError(f"edges must name nodes in [0, {nodes}), got {int(edges.min())} to {int(edges.max())}")
    if numbers.shape != edges.shape[1:]:
        raise ValueError(f"{name} must be ({edges.shape[1]},), one an edge, got {tuple(numbers.shape)}")
    if not bool(numbers.isfinite().all()):
        raise ValueError(f"{name} must be finite, edge {int((~numbers.isfinite()).nonzero()[0])} is not")


def connected_links(kind: Kind, nodes: int, generator: torch.Generator, *, degree: int = 4) -> Tensor:  # (2, L)
    """The links of a random graph in one part, each once, in ascending order.

    "planar": the sides of the Delaunay triangles of random points in a square. "nearest": every point and the `degree`
    points nearest to it. "random": Erdos-Renyi, any two nodes with probability degree / (nodes - 1). The last two may
    fall apart, and then a node at random of each further part is linked to one of what is joined already.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if nodes < 1 or degree < 1:
        raise ValueError(f"nodes and degree must be at least 1, got {nodes} and {degree}")
    if kind == "random":
        pairs = torch.triu_indices(nodes, nodes, 1)
        links = pairs[:, torch.rand(pairs.shape[1], generator=generator) < degree / max(nodes - 1, 1)]
    else:
        points = torch.rand(nodes, 2, generator=generator, dtype=torch.float64)
        links = _planar(points) if kind == "planar" else neighbours(points, min(degree, nodes - 1))
    return _joined(links.sort(0).values.unique(dim=1), nodes, generator)


def neighbours(points: Tensor, degree: int) -> Tensor:  # (N, 2) -> (2, N degree)
    """Each of the points, which are distinct, in order, with the `degree` points nearest to it, nearest first."""
    nodes = len(points)
    if not 0 <= degree < nodes:
        raise ValueError(f"degree must lie in [0, {nodes}), the number of points, got {degree}")
    _, near = KDTree(points.numpy()).query(points.numpy(), degree + 1)
    others = torch.as_tensor(near).reshape(nodes, degree + 1)[:, 1:]
    return torch.stack((torch.arange(nodes).repeat_interleave(degree), others.flatten()))


def _planar(points: Tensor) -> Tensor:
    if len(points) < 4:
        return torch.triu_indices(len(points), len(points), 1)
    triangles = torch.as_tensor(Delaunay(points.numpy()).simplices, dtype=torch.int64)
    return torch.cat([triangles[:, [i, j]] for i, j in ((0, 1), (1, 2), (0, 2))]).T


def _joined(links: Tensor, nodes: int, generator: torch.Generator) -> Tensor:
    """The links and those that join the parts, each part to one before it."""
    ones = np.ones(links.shape[1])
    parts, part = connected_components(coo_array((ones, links.numpy()), (nodes, nodes)), directed=False)
    part = torch.as_tensor(part)
    bridges = [[_any(part == number, generator), _any(part < number, generator)] for number in range(1, parts)]
    return torch.cat((links, torch.tensor(bridges, dtype=torch.int64).reshape(-1, 2).T.sort(0).values), 1).unique(dim=1)


def _any(mask: Tensor, generator: torch.Generator) -> int:
    among = mask.nonzero()[:, 0]
    return int(among[torch.randint(len(among), (), generator=generator)])


def _shortest(edges: Tensor, lengths: Tensor, nodes: int) -> csr_array:
    """The matrix of lengths; SciPy would add up edges between the same two nodes."""
    place, which = (edges[0] * nodes + edges[1]).unique(return_inverse=True)
    least = lengths.new_full((len(place),), float("inf")).scatter_reduce(0, which, lengths, "amin")
    return csr_array((least.numpy(), (place.numpy() // nodes, place.numpy() % nodes)), (nodes, nodes))


def _graph(links: Tensor, nodes: int, lengths: tuple[float, float], generator: torch.Generator) -> GraphSet:
    drawn = torch.rand(links.shape[1], generator=generator, dtype=torch.float64)
    length = (lengths[0] + (lengths[1] - lengths[0]) * drawn).repeat(2)
    source = int(torch.randint(nodes, (), generator=generator))
    edges = torch.cat((links, links.flip(0)), 1)
    order = (edges[0] * nodes + edges[1]).argsort()
    x = torch.zeros(nodes, 1).index_fill(0, torch.tensor([source]), 1.0)
    return GraphSet(
        x=x, y=distances(edges, length, source, nodes).float(), edges=edges[:, order],
        index=torch.zeros(nodes, dtype=torch.int64), count=1, edge_x=length[order, None].float(),
    )  # fmt: skip


def _empty() -> GraphSet:
    none = torch.zeros(0, dtype=torch.int64)
    return GraphSet(
        x=torch.zeros(0, 1), y=torch.zeros(0), edges=none.expand(2, 0), index=none, count=0, edge_x=torch.zeros(0, 1)
    )
