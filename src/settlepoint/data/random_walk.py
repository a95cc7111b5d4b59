"""RW-SP: graphs whose labels are those of a random walker, exact, generated, and far from where they come from."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import splu
from scipy.spatial import Delaunay
from torch import Tensor

from settlepoint.data.graph_set import GraphSet


def random_walks(
    count: int, generator: torch.Generator, *, nodes: int = 477, classes: int = 21, seeds: int = 9
) -> GraphSet:
    """Labels by the random walker (Grady 2006): y_i names the seed that a walk from node i is likeliest to reach first

    L_UU P_U = -L_US,  y_i = class of argmax_s P_is        (the Dirichlet problem on the nodes U that are no seeds)

    L: the Laplacian of the Delaunay graph of `nodes` random points in the unit square, each link with a conductance
    exp(n), n normal. seeds: as many nodes, of different classes, drawn from those nearest to the left and to the right
    side, a twentieth of all: most labels are decided many links away. x: (N, classes + 1), at a seed its class as a
    unit vector and a 1, elsewhere 0. edges: both directions; edge_x: (E, 1), the conductance. Solved by SciPy's sparse
    LU in float64.

    Raises ValueError for a number that makes no such graph.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    if not 1 <= seeds <= min(nodes, classes):
        raise ValueError(f"seeds must lie in [1, min(nodes, classes)] = [1, {min(nodes, classes)}], got {seeds}")
    if nodes < 4:
        raise ValueError(f"nodes must be at least 4, for a Delaunay graph, got {nodes}")
    if not count:
        return _empty(classes)
    return GraphSet.joined([_walk(generator, nodes, classes, seeds) for _ in range(count)])


def _walk(generator: torch.Generator, nodes: int, classes: int, seeds: int) -> GraphSet:
    points = torch.rand(nodes, 2, generator=generator, dtype=torch.float64)
    links = _links(points)
    conductance = torch.randn(links.shape[1], generator=generator, dtype=torch.float64).exp()
    outside = (points[:, 0] - 0.5).abs().argsort(descending=True)[: max(nodes // 20, seeds)]
    chosen = outside[torch.randperm(len(outside), generator=generator)[:seeds]]
    named = torch.randperm(classes, generator=generator)[:seeds]
    x = torch.zeros(nodes, classes + 1)
    x[chosen, named], x[chosen, classes] = 1.0, 1.0
    edges, both = torch.cat((links, links.flip(0)), 1), torch.cat((conductance, conductance))
    order = (edges[0] * nodes + edges[1]).argsort()
    y = named[reached(edges, both, chosen, nodes).argmax(1)]
    index = torch.zeros(nodes, dtype=torch.int64)
    edge_x = both[order, None].float()
    return GraphSet(x=x, y=y, edges=edges[:, order], index=index, count=1, classes=classes, edge_x=edge_x)


def _links(points: Tensor) -> Tensor:  # (2, L)
    """The sides of the Delaunay triangles, each once."""
    triangles = torch.as_tensor(Delaunay(points.numpy()).simplices, dtype=torch.int64)
    sides = torch.cat([triangles[:, [i, j]] for i, j in ((0, 1), (1, 2), (0, 2))]).sort(1).values
    return sides.unique(dim=0).T


def reached(edges: Tensor, conductance: Tensor, seeds: Tensor, nodes: int) -> Tensor:  # (N, S)
    """The probability that a walk from each node meets each seed before the others; 1 at the seed itself."""
    weights = coo_array((conductance.numpy(), edges.numpy()), (nodes, nodes)).tocsr()
    matrix = diags_array(weights.sum(axis=1)).tocsc() - weights
    free = np.setdiff1d(np.arange(nodes), seeds.numpy())
    inside, outside = matrix[free][:, free], matrix[free][:, seeds.numpy()]
    found = np.zeros((nodes, len(seeds)))
    found[seeds.numpy()] = np.eye(len(seeds))
    if len(free):
        found[free] = splu(inside.tocsc()).solve(-outside.toarray())
    return torch.as_tensor(found)


def _empty(classes: int) -> GraphSet:
    none = torch.zeros(0, dtype=torch.int64)
    x, edge_x = torch.zeros(0, classes + 1), torch.zeros(0, 1)
    return GraphSet(
        x=x, y=none, edges=torch.zeros(2, 0, dtype=torch.int64), index=none, count=0, classes=classes, edge_x=edge_x
    )
