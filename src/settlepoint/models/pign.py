"""PIGN: one graph convolution iterated to a fixed point."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.blocks import Blocks
from settlepoint.layers.held import release
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.propagation import Injection, Propagation
from settlepoint.layers.transport import Transport, transported
from settlepoint.models.graphs import Graphs
from settlepoint.solve import FixedPoint


class PIGN(nn.Module):
    """y = D h,  h = (1 - g) conv(h) + g u,  u = E x, started at u        (Picard iterated graph network: Algorithm 1)

    conv: a torch-geometric layer, or any module conv(h, edges) on (N, hidden). channels: (features, hidden, classes).
    injection: g, see layers.Propagation. transport: what conv does to the features, see layers.transported. center:
    subtract from u its mean over the nodes of each graph, which takes an offset common to all nodes out of noisy
    features. solver, stop, adjoint: by default those of FixedPoint.smoothed, Picard(damping=0.7), which weights the OLD
    state, FixedSteps(10), and the gradient that goes with the stop. encoder, decoder: E and D, linear unless given.
    copies: networks side by side with weights of their own, see training.copies; conv is then one for
    copies * hidden features, and y holds the classes of one copy after another.
    training.presets holds `published` and `settled`.

    One graph is one row of the solve: the graphs of a batch stop on their own, nodes never do. settle.last is the
    report of the latest pass. Dropout of the features: model.encoder.dropout.
    """

    def __init__(
        self,
        conv: nn.Module,
        channels: tuple[int, int, int],
        *,
        injection: Injection = 0.1,
        transport: Transport = "identity",
        center: bool = False,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        copies: int = 1,
    ):
        super().__init__()
        features, hidden, classes = channels
        self.encoder = SparseLinear(features, copies * hidden, copies=copies) if encoder is None else encoder
        self.decoder = Blocks(hidden, classes, copies) if decoder is None else decoder
        operator = Propagation(transported(conv, transport), hidden, injection, copies)
        self.settle = FixedPoint.smoothed(operator, inject="input", solver=solver, stop=stop, adjoint=adjoint)  # type: ignore[arg-type]
        self.center = center

    def extra_repr(self) -> str:
        return f"center={self.center}"

    @property
    def operator(self) -> nn.Module:
        """T(x, u, rows, graphs) of layers.Propagation."""
        return self.settle.operator  # type: ignore[return-value]

    def encode(self, x: Tensor, graphs: Graphs) -> Tensor:  # (N, features) -> (count, length, hidden)
        """u, one row a graph; x may be sparse."""
        u = self.encoder(x)
        return graphs.table(graphs.centred(u) if self.center else u)

    def decode(self, h: Tensor, graphs: Graphs) -> Tensor:  # (count, length, hidden) -> (N, classes)
        """D h of every node."""
        return self.decoder(graphs.nodes(h))

    def context(self, graphs: Graphs) -> tuple[Tensor, Graphs]:
        """What T sees besides x and u: the numbers of the graphs, gathered as they finish, and the graphs."""
        return torch.arange(graphs.count, device=graphs.index.device), graphs

    def posed(self, x: Tensor, graphs: Graphs):
        """The equation that forward solves, and where it starts: what certify.verdict and certify.graph ask for."""
        u = self.encode(x, graphs)
        return self.settle.posed(u, u, self.context(graphs))

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        release(self.operator)
        u = self.encode(x, graphs)
        return self.decode(self.settle(u, u, self.context(graphs)), graphs)
