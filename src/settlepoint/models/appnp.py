"""APPNP: predictions spread by personalised PageRank."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.blocks import Blocks
from settlepoint.layers.carrying import Carrying
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.masks import CopiedDropout
from settlepoint.layers.normalised import Indexed, Normalised
from settlepoint.layers.rate import Rate, proper
from settlepoint.models.graph_equilibrium import GraphEquilibrium
from settlepoint.solve import FixedPoint


class APPNP(GraphEquilibrium):
    """Z = (1 - a) A Z + a H,  H = MLP(X)        (Gasteiger, Bojchevski and Guennemann 2019), A normalised with loops

    Z = a (I - (1 - a) A)^{-1} H: what is spread are the scores of the classes. Contracts by 1 - a in the 2-norm, since
    ||A||_2 <= 1. channels: (features, hidden, classes). alpha: a in (0, 1). dropout: of the features and of the hidden
    layer, in training; inputs: of the features, where it differs. center: subtract from the scores their mean over the
    nodes of each graph. copies: see models.PIGN. solver, stop, adjoint: by default the published ten steps of Picard.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        alpha: float = 0.1,
        dropout: float = 0.5,
        inputs: float | None = None,
        center: bool = False,
        copies: int = 1,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        features, hidden, classes = channels
        share = dropout if inputs is None else inputs
        first = SparseLinear(features, copies * hidden, dropout=share, copies=copies)
        last = Blocks(hidden, classes, copies)
        encoder = nn.Sequential(first, nn.ReLU(), CopiedDropout(dropout, copies), last)
        operator = Carrying(Teleport(alpha))
        settle = FixedPoint.smoothed(operator, 10, 0.0, "input", solver=solver, stop=stop, adjoint=adjoint)  # type: ignore[arg-type]
        super().__init__(encoder, settle, nn.Identity())
        self.center = center

    def injected(self, x: Tensor, graphs: Indexed) -> tuple[Tensor, Normalised]:
        h = self.encoder(x)
        h = graphs.centred(h) if self.center else h
        here = Normalised(graphs, h.dtype)
        return here.table(h), here


class Teleport(nn.Module):
    """(m, u) -> (1 - alpha) m + alpha u"""

    def __init__(self, alpha: float):
        super().__init__()
        self.alpha = proper("alpha", alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    @property
    def rate(self) -> Rate:
        """1 - alpha in the 2-norm."""
        return Rate(1 - self.alpha, "two")

    def forward(self, moved: Tensor, u: Tensor) -> Tensor:
        return torch.lerp(moved, u, self.alpha)
