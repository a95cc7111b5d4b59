"""The graphs that a solve still works on, cut out once instead of in every call of the operator."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from torch import Tensor


class Selectable(Protocol):
    """Graphs that can be restricted to those in rows."""

    def select(self, rows: Tensor) -> Any: ...


G = TypeVar("G", bound=Selectable)


class Cut:
    """graphs.select(rows), remembered until rows or graphs are others; a solve asks again until it gathers anew.

    All graphs are the graphs themselves, and not remembered. What is remembered belongs to one solve: a copied or
    unpickled operator starts without.
    """

    def __init__(self):
        self._last: tuple[Tensor, Any, Any] | None = None

    def __call__(self, rows: Tensor, graphs: G) -> G:
        last = self._last
        if last is None or last[0] is not rows or last[1] is not graphs:
            chosen = graphs.select(rows)
            if chosen is graphs:
                return graphs
            last = self._last = (rows, graphs, chosen)
        return last[2]

    def __reduce__(self):
        return Cut, ()
