"""Convergent graph solvers: a linear system on every graph, whose matrix is learned from the graph."""

from __future__ import annotations

from torch import Tensor, nn

from settlepoint.layers.carrying import Carrying
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.normalised import Indexed
from settlepoint.layers.rate import Rate, proper
from settlepoint.layers.weighted import Weighted, incoming_softmax
from settlepoint.models.graph_equilibrium import GraphEquilibrium
from settlepoint.solve import FixedPoint


class CGS(GraphEquilibrium):
    """y = D H,  H = gamma A_k(G) H + b(G) for every head k        (Park, Choo and Park 2022), b(G) = E x

    A_k(G) is the softmax, over the edges into a node, of a score of both its ends and of the features of the edge: rows
    of sum 1, or 0 where no edge comes in, so that H contracts by gamma in the largest entry. A and b are made once a
    pass. The equation is linear, and so is the one of its gradient, with the transpose of A.

    channels: (features, hidden, classes). heads: they share hidden evenly. gamma: in (0, 1). edge_features: numbers an
    edge, 0 for none; forward then takes layers.Weighted(graphs, features) in the place of graphs. solver, stop,
    adjoint: by default those of FixedPoint.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        heads: int = 4,
        gamma: float = 0.8,
        edge_features: int = 0,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        features, hidden, classes = channels
        if heads < 1 or hidden % heads:
            raise ValueError(f"heads must divide the {hidden} hidden channels, got {heads}")
        settle = FixedPoint(Carrying(Discounted(gamma)), solver, stop, adjoint, inject="input")  # type: ignore[arg-type]
        super().__init__(SparseLinear(features, hidden), settle, nn.Linear(hidden, classes))
        self.scores = EdgeScores(hidden, heads, edge_features)

    def injected(self, x: Tensor, graphs: Indexed) -> tuple[Tensor, Weighted]:
        b = self.encoder(x)
        given = graphs if isinstance(graphs, Weighted) else Weighted(graphs, b.new_zeros(graphs.edges.shape[-1], 0))
        weight = incoming_softmax(self.scores(b, given), given.edges[1], len(b))
        here = Weighted(given.graphs, weight)
        return here.table(b), here


class EdgeScores(nn.Module):
    """leaky_relu(S b_s + T b_t + E e + c) of every edge from s to t and every head"""

    def __init__(self, hidden: int, heads: int, edge_features: int):
        super().__init__()
        self.source, self.target = nn.Linear(hidden, heads), nn.Linear(hidden, heads, bias=False)
        self.edge = nn.Linear(edge_features, heads, bias=False) if edge_features else None
        self.edge_features = edge_features

    def forward(self, b: Tensor, graphs: Weighted) -> Tensor:  # (N, hidden) -> (E, heads)
        if graphs.weight.shape[1] != self.edge_features:
            raise ValueError(f"graphs must have {self.edge_features} numbers an edge, got {graphs.weight.shape[1]}")
        source, target = graphs.edges
        scores = self.source(b)[source] + self.target(b)[target]
        return nn.functional.leaky_relu(scores if self.edge is None else scores + self.edge(graphs.weight))


class Discounted(nn.Module):
    """(m, u) -> gamma m + u"""

    def __init__(self, gamma: float):
        super().__init__()
        self.gamma = proper("gamma", gamma)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"

    @property
    def rate(self) -> Rate:
        """gamma in the largest entry."""
        return Rate(self.gamma, "sup")

    def forward(self, moved: Tensor, u: Tensor) -> Tensor:
        return self.gamma * moved + u
