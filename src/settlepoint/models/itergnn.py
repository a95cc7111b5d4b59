"""IterGNN: a graph convolution repeated until the graph itself is sure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.activated import Activated
from settlepoint.layers.blocks import Blocks
from settlepoint.layers.halting import Halting
from settlepoint.layers.held import release
from settlepoint.layers.inputs import SparseLinear
from settlepoint.models.graphs import Graphs
from settlepoint.solve import FixedPoint


class IterGNN(nn.Module):
    """y_i = D sum_k l_k c_k h_k,  h_k = relu(conv(h_{k-1})),  h_0 = E x,  l_{k+1} = l_k (1 - c_k)   (Tang et al. 2020)

    c_k = sigmoid(linear(max over the nodes of h_k)), one number a graph, says how sure the graph is that it may end;
    l_0 = 1. A graph ends at l <= 1e-7, or after `steps`; what is then left over is not added. Graphs end on their own:
    a slow one changes no other.

    conv: a torch-geometric layer, or any module conv(h, edges) on (N, hidden). channels: (features, hidden, classes).
    decay: y and l shrink by 1 - decay a step; 1e-4 is the published decaying variant. relu: behind conv. ahead: c_k is
    read from h_{k-1}. `fork` is the variant that PIGN was compared with. copies: see models.PIGN.

    steps evaluations are always spent; of a graph that has ended they change nothing. settle.last.value[2] is what was
    left over of each graph.
    """

    def __init__(
        self,
        conv: nn.Module,
        channels: tuple[int, int, int],
        *,
        steps: int = 30,
        decay: float = 0.0,
        relu: bool = True,
        ahead: bool = False,
        copies: int = 1,
    ):
        super().__init__()
        features, hidden, classes = channels
        self.copies = copies
        self.encoder = SparseLinear(features, copies * hidden, copies=copies)
        self.decoder = Blocks(hidden, classes, copies)
        loop = Activated(conv, dropout=0.0, copies=copies) if relu else conv
        body = Halting(loop, hidden, decay=decay, ahead=ahead, copies=copies)
        self.settle = FixedPoint.smoothed(body, steps, damping=0.0, inject="init")

    @classmethod
    def fork(
        cls, conv: nn.Module, channels: tuple[int, int, int], *, steps: int = 30, decay: float = 0.0, copies: int = 1
    ) -> IterGNN:
        """The variant in the code of PIGN: c_k is read from h_{k-1}, and no activation follows conv."""
        return cls(conv, channels, steps=steps, decay=decay, relu=False, ahead=True, copies=copies)

    @property
    def operator(self) -> Halting:
        """(h, y, l) -> the same after one more step."""
        return self.settle.operator  # type: ignore[return-value]

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:  # (N, features) -> (N, classes)
        release(self.operator)
        h = graphs.table(self.encoder(x))
        start = h, torch.zeros_like(h), h.new_ones(graphs.count, self.copies)
        rows = torch.arange(graphs.count, device=h.device)
        _, y, _ = self.settle(start, context=(rows, graphs))
        return self.decoder(graphs.nodes(y))
