"""EIGNN: a linear implicit graph layer, which sees infinitely far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.carrying import Carrying
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.linear import linear
from settlepoint.layers.normalised import Indexed, Normalised
from settlepoint.layers.rate import Rate, proper
from settlepoint.models.graph_equilibrium import GraphEquilibrium
from settlepoint.solve import FixedPoint


class EIGNN(GraphEquilibrium):
    """y = D Z,  Z = gamma S Z g(F) + E x,  g(F) = F^T F / (||F^T F||_F + 1e-12)        (Liu et al. 2021; nodes as rows)

    S is normalised with loops. Contracts by gamma in the 2-norm, since ||S||_2 <= 1 and ||g(F)||_2 <= ||g(F)||_F < 1.
    channels: (features, hidden, classes). gamma: in (0, 1). solver, stop, adjoint: by default those of FixedPoint.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        gamma: float = 0.8,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        features, hidden, classes = channels
        settle = FixedPoint(Carrying(Gram(hidden, gamma)), solver, stop, adjoint, inject="input")  # type: ignore[arg-type]
        super().__init__(SparseLinear(features, hidden), settle, nn.Linear(hidden, classes))

    def injected(self, x: Tensor, graphs: Indexed) -> tuple[Tensor, Normalised]:
        u = self.encoder(x)
        here = Normalised(graphs, u.dtype)
        return here.table(u), here


class Gram(nn.Module):
    """(m, u) -> gamma m g(F) + u"""

    def __init__(self, hidden: int, gamma: float):
        super().__init__()
        self.gamma, self.factor = proper("gamma", gamma), linear(hidden, hidden, bias=False).weight

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"

    @property
    def g(self) -> Tensor:  # (hidden, hidden)
        """g(F), symmetric, with eigenvalues in [0, 1); 0 for F = 0."""
        gram = self.factor.T @ self.factor
        return gram / (torch.linalg.matrix_norm(gram) + 1e-12)

    @property
    def rate(self) -> Rate:
        """gamma in the 2-norm."""
        return Rate(self.gamma, "two")

    def forward(self, moved: Tensor, u: Tensor) -> Tensor:
        return self.gamma * (moved @ self.g) + u
