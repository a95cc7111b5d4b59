"""The contraction factor that an operator has by construction, and the norm it holds in."""

from __future__ import annotations

from typing import NamedTuple


class Rate(NamedTuple):
    """||T(x) - T(y)|| <= value ||x - y|| for all x and y        (Banach's condition where value < 1)

    norm: "two", the 2-norm of all entries of a graph; "node", the largest 2-norm of a node; "sup", the largest entry:
    the names of certify.graph.
    """

    value: float
    norm: str


def proper(name: str, value: float) -> float:
    """value, a share between nothing and everything. Raises ValueError outside of (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value}")
    return value
