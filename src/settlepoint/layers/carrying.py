"""The operator of implicit graph models: carry along the edges, then a cell that mixes in the input."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from settlepoint.layers.cut import Cut
from settlepoint.layers.rate import Rate


class Carrier(Protocol):
    """Graphs that know the matrix A of their edges; Normalised and Weighted are two.

    Their tables lay nodes out as models.Graphs does, one row a graph.
    """

    def table(self, x: Tensor) -> Tensor: ...

    def nodes(self, table: Tensor) -> Tensor: ...

    def carried(self, table: Tensor) -> Tensor: ...

    def select(self, rows: Tensor) -> Carrier: ...


class Cell(Protocol):
    """What happens to a node with what was carried to it and its input; rate is that of the operator it makes."""

    @property
    def rate(self) -> Rate: ...

    def __call__(self, moved: Tensor, u: Tensor) -> Tensor: ...


class Carrying(nn.Module):
    """T(x, u) = cell(A x, u)

    x, u, result: (G, length, h), one row a graph. rows: (G,), the numbers of the graphs that are left; graphs: all
    graphs, with their A. The cell is an nn.Module.
    """

    def __init__(self, cell: Cell):
        super().__init__()
        self.cell, self._cut = cell, Cut()

    @property
    def rate(self) -> Rate:
        """The proved contraction factor of T in x, whatever the graphs."""
        return self.cell.rate

    def forward(self, x: Tensor, u: Tensor, rows: Tensor, graphs: Carrier) -> Tensor:
        return self.cell(self._cut(rows, graphs).carried(x), u)
