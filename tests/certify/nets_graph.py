"""Graph operators on all nodes (N, h) of a random graph, with isolated nodes and edges that are there twice."""

from __future__ import annotations

import torch
from tests.certify.nets import Draw, Function, Net, chained
from tests.certify.nets_vector import SIMPLE
from torch import Tensor, nn

from settlepoint.layers import adjacency, pyg


def edges_of(draw: Draw, nodes: int) -> Tensor:  # (2, E)
    """Some in both directions, some of them twice; the last node has none."""
    count = draw.integer(0, 2 * nodes)
    ends = torch.randint(0, max(1, nodes - 1), (2, count), generator=draw.generator)
    return torch.cat((ends, ends.flip(0), ends[:, : count // 3]), 1)


def convolution(draw: Draw, h: int, edges: Tensor, nodes: int) -> tuple[Function, int]:
    out, bias = draw.integer(1, 3), draw.pick((True, False))
    g = pyg()
    weights = draw.normal(edges.shape[1]).abs()
    mlp = nn.Sequential(nn.Linear(h, 3), nn.Tanh(), nn.Linear(3, out))
    ways = (
        g.GCNConv(h, out, bias=bias),
        g.GCNConv(h, out, normalize=False, bias=bias),
        g.GCNConv(h, out, add_self_loops=False, bias=bias),
        g.SAGEConv(h, out, aggr="mean", bias=bias),
        g.SAGEConv(h, out, aggr="sum", bias=bias),
        g.SAGEConv(h, out, aggr="max", bias=bias),
        g.SAGEConv(h, out, aggr="max", project=True, root_weight=False),
        g.GraphConv(h, out, aggr=draw.pick(("add", "mean", "max")), bias=bias),
        g.GINConv(mlp, eps=0.3),
    )
    conv = draw.filled(draw.pick(ways))
    if isinstance(conv, g.GCNConv | g.GraphConv) and draw.integer(0, 1):
        return lambda x: conv(x, edges, weights), out
    return lambda x: conv(x, edges), out


def sparse(draw: Draw, h: int, edges: Tensor, nodes: int) -> tuple[Function, int]:
    """Products with a matrix that is made once."""
    both = torch.cat((edges, edges.flip(0)), 1)
    A, B = adjacency(both, nodes, torch.float64), draw.scaled(nodes, nodes)
    W = draw.scaled(h, h)
    ways = (
        lambda x: A @ x,
        lambda x: torch.sparse.mm(A, x @ W),
        lambda x: A @ (A @ x),
        lambda x: B @ x @ W,
        lambda x: A.to_sparse_coo() @ x,
    )
    return draw.pick(ways), h


def messages(draw: Draw, h: int, edges: Tensor, nodes: int) -> tuple[Function, int]:
    """Gather, weigh and scatter by hand."""
    c, W = draw.normal(edges.shape[1], 1), draw.scaled(h, h)
    at = edges[1][:, None].expand(-1, h)
    ways = (
        lambda x: x.new_zeros(x.shape).index_add_(0, edges[1], c * torch.index_select(x, 0, edges[0])),
        lambda x: x.new_zeros(x.shape).scatter_add_(0, at, torch.tanh(torch.index_select(x, 0, edges[0]) @ W)),
        lambda x: x.new_zeros(x.shape).scatter_add_(0, at, torch.index_select(x, 0, edges[0]) - x[edges[1]]),
        lambda x: x + x.new_zeros(x.shape).scatter_add(0, at, (x @ W)[edges[0]]) / 3,
        lambda x: x.new_zeros(x.shape).scatter_reduce_(
            0, at, c * torch.index_select(x, 0, edges[0]), "amax", include_self=False
        ),
    )
    return draw.pick(ways), h


def pointwise(draw: Draw, h: int, edges: Tensor, nodes: int) -> tuple[Function, int]:
    W = draw.scaled(h, h)
    ways = (
        SIMPLE[draw.pick(tuple(SIMPLE))],
        lambda x: x + torch.tanh(x @ W),
        draw.filled(nn.LayerNorm(h, eps=0.1)),
        draw.filled(nn.BatchNorm1d(h)),
        lambda x: -0.5 * x,
    )
    return draw.pick(ways), h


PIECES = (convolution, convolution, convolution, sparse, messages, pointwise)


def graph_net(draw: Draw) -> Net:
    """1 to 3 pieces on one graph of 1 to 6 nodes."""
    nodes, h = draw.integer(1, 6), draw.integer(1, 3)
    edges = edges_of(draw, nodes)
    x, functions, names = draw.normal(nodes, h) * draw.pick((0.1, 1.0, 3.0)), [], []
    for _ in range(draw.integer(1, 3)):
        piece = draw.pick(PIECES)
        f, h = piece(draw, h, edges, nodes)
        names.append(piece.__name__)
        functions.append(f)
    return Net(tuple(names), chained(functions), x, whole=True, radii=draw.balls())
