"""IGNN: a graph layer with ReLU whose weight is kept so small that it always settles."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from settlepoint.layers.carrying import Carrying
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.normalised import Indexed, Normalised
from settlepoint.layers.rate import Rate, proper
from settlepoint.layers.row_norm import RowBounded, rows_projected
from settlepoint.models.graph_equilibrium import GraphEquilibrium
from settlepoint.solve import FixedPoint


class IGNN(GraphEquilibrium):
    """y = C X,  X = relu(A X W^T + b(U))        (Gu et al. 2020, with nodes as rows), b(U) = U B^T + c

    Well posed for ||W||_inf <= kappa / lam(A), lam the Perron-Frobenius eigenvalue; here A is normalised, lam = 1.
    The state is D^{-1/2} X, D the degrees, which relu allows since it is positively homogeneous: in the largest entry
    of that state T contracts by ||W||_inf; of X itself only a norm that knows the degrees would do.

    channels: (features, hidden, classes). kappa: in (0, 1). parametrised: W is scaled to its bound in every call;
    otherwise call `project` after every step of the optimiser, as published. solver, stop, adjoint: by default those of
    FixedPoint.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        kappa: float = 0.8,
        parametrised: bool = False,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        features, hidden, classes = channels
        cell = Rectified(hidden, kappa, parametrised)
        settle = FixedPoint(Carrying(cell), solver, stop, adjoint, inject="input")  # type: ignore[arg-type]
        super().__init__(SparseLinear(features, hidden), settle, nn.Linear(hidden, classes))

    def injected(self, x: Tensor, graphs: Indexed) -> tuple[Tensor, Normalised]:
        b = self.encoder(x)
        here = Normalised(graphs, b.dtype, by_degree=True)
        return here.table(b), here

    def project(self) -> None:
        """W to the nearest matrix with ||W||_inf <= kappa, in place; to be called after every step of the optimiser."""
        self.operator.cell.project()  # type: ignore[attr-defined]


class Rectified(nn.Module):
    """(m, u) -> relu(m W^T + u), ||W||_inf <= kappa from the start"""

    def __init__(self, hidden: int, kappa: float, parametrised: bool):
        super().__init__()
        self.kappa, self.linear = proper("kappa", kappa), nn.Linear(hidden, hidden, bias=False)
        self.project()
        if parametrised:
            parametrize.register_parametrization(self.linear, "weight", RowBounded(kappa))

    def extra_repr(self) -> str:
        return f"kappa={self.kappa}"

    @torch.no_grad()
    def project(self) -> None:
        """W to its bound; a parametrised W keeps to it by itself."""
        if not parametrize.is_parametrized(self.linear):
            self.linear.weight.copy_(rows_projected(self.linear.weight, self.kappa))

    @property
    def rate(self) -> Rate:
        """||W||_inf as it is now."""
        return Rate(float(self.linear.weight.detach().abs().sum(1).max()), "sup")

    def forward(self, moved: Tensor, u: Tensor) -> Tensor:
        return (self.linear(moved) + u).relu()
