"""The operator of PIGN: one graph convolution, and the input injected into it."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from settlepoint.layers.blocks import Blocks
from settlepoint.layers.cut import Cut

Injection = float | Literal["gated"]


class Topology(Protocol):
    """What the operator must know of its graphs; models.Graphs is one."""

    edges: Tensor

    def nodes(self, table: Tensor) -> Tensor: ...

    def table(self, x: Tensor) -> Tensor: ...

    def select(self, rows: Tensor) -> Topology: ...


class Propagation(nn.Module):
    """T(x, u) = (1 - g) conv(x) + g u        (lam T(x) + f of Operator Learning Meets Numerical Analysis, Theorem 4)

    x, u, result: (G, length, h), one row a graph. rows: (G,), the numbers of the graphs that are left; graphs: all
    graphs. injection: g, a number in [0, 1), or "gated": g = sigmoid(A u + c), learned, one value a node and feature.
    A conv that does not expand makes T a contraction of rate 1 - g for g > 0; g = 0 is the published model, which
    forgets its input when it settles. copies: networks side by side, h = copies * hidden.
    """

    def __init__(self, conv: nn.Module, hidden: int, injection: Injection = 0.1, copies: int = 1):
        super().__init__()
        gated = isinstance(injection, str)
        if injection != "gated" if gated else not 0 <= injection < 1:
            raise ValueError(f"injection must lie in [0, 1) or be 'gated', got {injection!r}")
        self.conv, self.share = conv, 0.0 if gated else float(injection)
        self.gate = Blocks(hidden, hidden, copies) if gated else None
        self._cut = Cut()

    def extra_repr(self) -> str:
        return "injection='gated'" if self.gate is not None else f"injection={self.share}"

    def forward(self, x: Tensor, u: Tensor, rows: Tensor, graphs: Topology) -> Tensor:
        here = self._cut(rows, graphs)
        moved = here.table(self.conv(here.nodes(x), here.edges))
        if self.gate is not None:
            return torch.lerp(moved, u, self.gate(u).sigmoid())
        return torch.lerp(moved, u, self.share) if self.share else moved
