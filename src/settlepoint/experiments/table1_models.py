"""The models of Table 1: one budget of parameters, a GNN without iteration, IterGNN and PIGN around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from settlepoint.data.graph_set import GraphSet
from settlepoint.layers import Activated, SparseAttention, adjacency, pyg, transported
from settlepoint.layers.weighted import csr
from settlepoint.models import PIGN, Graphs, IterGNN
from settlepoint.solvers import Picard
from settlepoint.stop import FixedSteps

Backbone = Literal["gcn", "gat", "sage"]
Channels = tuple[int, int, int]
BACKBONES: tuple[Backbone, ...] = ("gcn", "gat", "sage")


def convolution(backbone: Backbone, hidden: int) -> nn.Module:
    """GCNConv on a normalised matrix, GATConv with one head on its places, or SAGEConv (max, normalised) on edges."""
    layers = pyg()
    if backbone == "gcn":
        return layers.GCNConv(hidden, hidden, normalize=False)
    if backbone == "gat":
        return SparseAttention(layers.GATConv(hidden, hidden))
    return layers.SAGEConv(hidden, hidden, aggr="max", normalize=True)


def seen(backbone: Backbone) -> Callable[[GraphSet], Graphs]:
    """What a model with that convolution sees of a batch: the normalised matrix, or for sage the links.

    On a CPU the links are a matrix of ones: torch takes the largest neighbour in half the time of messages along edges.
    """

    def graphs(part: GraphSet) -> Graphs:
        if backbone != "sage":
            edges = adjacency(part.edges, len(part.x), part.x.dtype)
        else:
            edges = part.edges if part.edges.is_cuda else links(part.edges, len(part.x), part.x.dtype)
        return Graphs(edges, part.index, part.count)

    return graphs


def links(edges: Tensor, nodes: int, dtype: torch.dtype) -> Tensor:  # (2, E) -> sparse (N, N)
    """1 at (t, s) for every edge from s to t."""
    ones = torch.ones(edges.shape[1], dtype=dtype, device=edges.device)
    matrix = csr(torch.sparse_coo_tensor(edges.flip(0), ones, (nodes, nodes), check_invariants=False))
    matrix.values().fill_(1.0)  # an edge that comes twice is still one
    return matrix


def encoder(channels: Channels) -> nn.Module:
    """Linear, then batch normalisation."""
    return nn.Sequential(nn.Linear(channels[0], channels[1]), nn.BatchNorm1d(channels[1]))


def head(channels: Channels) -> nn.Module:
    """Three layers."""
    _, hidden, classes = channels
    hidden_layers = (nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
    return nn.Sequential(*hidden_layers, nn.Linear(hidden, classes))


class Layered(nn.Module):
    """h_k = h_{k-1} + dropout(relu(norm(conv_k(h_{k-1})))): what is not iterated, each layer with its own weights."""

    def __init__(self, backbone: Backbone, channels: Channels, layers: int, dropout: float = 0.0):
        super().__init__()
        width = channels[1]
        self.encoder, self.decoder = encoder(channels), head(channels)
        self.convs = nn.ModuleList(Activated(convolution(backbone, width), dropout, norm=width) for _ in range(layers))

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        h = self.encoder(x)
        for conv in self.convs:
            h = h + conv(h, graphs.edges)
        return self.decoder(h)


def without(backbone: Backbone, channels: Channels, layers: int, dropout: float = 0.0) -> Layered:
    """Layers of their own weights, of the width that comes nearest to the parameters of PIGN with these channels."""
    features, hidden, classes = channels
    budget = _size(lambda: published(backbone, channels, 1))
    sized = lambda width: _size(lambda: Layered(backbone, (features, width, classes), layers))  # noqa: E731
    width = min(range(1, hidden + 1), key=lambda width: abs(sized(width) - budget))
    return Layered(backbone, (features, width, classes), layers, dropout)


def _size(build: Callable[[], nn.Module]) -> int:
    """Parameters of a model that is never filled."""
    with torch.device("meta"):
        return parameters(build())


def published(backbone: Backbone, channels: Channels, steps: int, dropout: float = 0.0, damping: float = 0.7) -> PIGN:
    """One shared convolution: h = a h + (1 - a) dropout(relu(norm(conv(h)))), K times; nothing injected."""
    body = Activated(convolution(backbone, channels[1]), dropout, norm=channels[1])
    return PIGN(
        body, channels, injection=0, transport="learned", solver=Picard(damping=damping), stop=FixedSteps(steps),
        encoder=encoder(channels), decoder=head(channels),
    )  # fmt: skip


def gated(channels: Channels, steps: int) -> PIGN:
    """GCNConv with identity transport and a learned gate on the input: settles."""
    conv = transported(pyg().GCNConv(channels[1], channels[1], bias=False, normalize=False), "identity")
    return PIGN(
        conv, channels, injection="gated", transport="learned", solver=Picard(), stop=FixedSteps(steps),
        encoder=encoder(channels), decoder=head(channels),
    )  # fmt: skip


def iterated(
    backbone: Backbone, channels: Channels, steps: int, dropout: float = 0.0, *, fork: bool = False
) -> IterGNN:
    """IterGNN around the shared convolution; fork: as the authors of PIGN have it, without activation."""
    conv = convolution(backbone, channels[1])
    body = conv if fork else Activated(conv, dropout, norm=channels[1])
    model = IterGNN(body, channels, steps=steps, relu=False, ahead=fork)
    model.encoder, model.decoder = encoder(channels), head(channels)  # type: ignore[assignment]
    return model


def parameters(model: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in model.parameters())


def build(cell: str, channels: Channels, steps: int, dropout: float = 0.0) -> nn.Module:
    """The model of a row; weights from torch's global generator. Raises ValueError for another row."""
    backbone, _, how = cell.partition(" ")
    if cell == "no graph":
        return Layered("gcn", channels, 0)
    if cell == "gcn settled":
        return gated(channels, steps)
    if backbone in BACKBONES and how == "without":
        return without(backbone, channels, steps, dropout)
    if backbone in BACKBONES and how == "pign":
        return published(backbone, channels, steps, dropout)
    if backbone in BACKBONES and how in ("itergnn", "fork"):
        return iterated(backbone, channels, steps, dropout, fork=how == "fork")
    raise ValueError(f"cell must be 'no graph', 'gcn settled' or a backbone and how it is used, got {cell!r}")
