"""What graph models that settle have in common: features in, one row of a solve a graph, scores of every node out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from settlepoint.layers.carrying import Carrier, Carrying
from settlepoint.layers.held import release
from settlepoint.layers.normalised import Indexed
from settlepoint.layers.rate import Rate
from settlepoint.solve import FixedPoint


class GraphEquilibrium(nn.Module, ABC):
    """y = D h,  h = T(h, u),  started at u = E x, with T = cell(A h, u) of layers.Carrying.

    settle: the FixedPoint layer over T, with inject="input"; its `last` is the report of the latest pass, one row a
    graph. A model says with `injected` what u and A are. Graphs are models.Graphs.
    """

    def __init__(self, encoder: nn.Module, settle: FixedPoint, decoder: nn.Module):
        super().__init__()
        self.encoder, self.settle, self.decoder = encoder, settle, decoder

    @abstractmethod
    def injected(self, x: Tensor, graphs: Indexed) -> tuple[Tensor, Carrier]:
        """u, (count, length, hidden), and the graphs with their A."""

    @property
    def operator(self) -> Carrying:
        """T(h, u, rows, graphs)."""
        return self.settle.operator  # type: ignore[return-value]

    @property
    def rate(self) -> Rate:
        """The contraction factor of T, proved for all graphs, and the norm it holds in."""
        return self.operator.rate

    def posed(self, x: Tensor, graphs: Indexed):
        """The equation that forward solves, and where it starts: what certify.graph asks for."""
        u, here = self.injected(x, graphs)
        return self.settle.posed(u, u, _context(u, here))

    def forward(self, x: Tensor, graphs: Indexed) -> Tensor:  # (N, features) -> (N, classes)
        release(self.operator)
        u, here = self.injected(x, graphs)
        h = self.settle(u, u, _context(u, here))
        return self.decoder(here.nodes(h))


def _context(u: Tensor, here: Carrier) -> tuple[Tensor, Carrier]:
    """What T sees besides x and u: the numbers of the graphs, gathered as they finish, and the graphs."""
    return torch.arange(len(u), device=u.device), here
