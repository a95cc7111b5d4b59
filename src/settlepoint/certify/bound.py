"""`Bound`: how an intermediate value of an operator depends on its state, in numbers that are upper bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import scipy.sparse as sparse
import torch
from torch import Tensor


@dataclass(frozen=True)
class Bound:
    """What is known of y(x) for all x in the ball of `radius` around the point, row by row (R,), or (1,) for all rows.

    two: ||y(a) - y(b)||_2 <= two ||a - b||_2. node: the same in the largest 2-norm along the last dimension (of a node,
    a token). sup: in the largest entry. entry: the largest entry of y(a) - y(b) by the 2-norm of a - b. bend: the
    Lipschitz constant of the Jacobian in the 2-norm. cap: |y| <= cap. total: ||y||_2 <= total, of every row. All
    float64, inf where unknown.
    table: (entries of y, entries of x), |J| <= table entrywise in every row, for states of one dimension. mixing: A,
    where y = A z over the nodes, and the bound of z, kept until all linear steps are known. free: True where the values
    are arbitrary, as those of arguments that were not given. least: like y, below every entry of it, where more is
    known than from the value at the point. wrapped: the bound before circular padding, and the sizes then.
    """

    two: Tensor
    node: Tensor
    sup: Tensor
    entry: Tensor
    bend: Tensor
    cap: Tensor
    radius: Tensor
    table: Tensor | None = None
    mixing: Mixing | None = None
    total: float = math.inf
    free: bool = False
    least: Tensor | None = None
    wrapped: tuple[Bound, tuple[int, ...]] | None = None

    @classmethod
    def of_state(cls, radius: Tensor, width: int | None = None) -> Bound:
        """y = x. width: of a state of one dimension a row, where a table is to be kept."""
        one = torch.ones_like(radius)
        table = None if width is None else torch.eye(width, dtype=torch.float64, device=radius.device)
        return cls(one, one, one, one, 0 * one, one * torch.inf, radius, table)

    @property
    def constant(self) -> bool:
        """True when y does not depend on x."""
        return not self.free and not bool(self.two.any())

    @property
    def rows(self) -> int:
        return len(self.two)

    def collapsed(self) -> Bound:
        """One bound for all rows, where rows and entries of y no longer match."""
        if self.rows == 1:
            return replace(self, table=None, mixing=None)
        largest = {f.name: getattr(self, f.name).amax(0, keepdim=True) for f in fields(self) if f.name in _NUMBERS}
        return replace(self, table=None, mixing=None, wrapped=None, total=self.total * math.sqrt(self.rows), **largest)

    def linear(
        self,
        two: float | Tensor,
        node: float | Tensor,
        sup: float | Tensor,
        entry: float | Tensor = torch.inf,
        table: Tensor | None = None,
    ) -> Bound:
        """Behind a linear map with these norms; entry: from the 2-norm to the largest entry."""
        return Bound(
            times(self.two, two),
            times(self.node, node),
            times(self.sup, sup),
            torch.minimum(times(self.entry, sup), times(self.two, entry)),
            times(self.bend, two),
            torch.full_like(self.cap, torch.inf),
            self.radius,
            table,
        )

    def mapped(self, slope: Tensor | float, bend: Tensor | float, cap: Tensor | float = torch.inf) -> Bound:
        """Behind a function of every entry by itself, |s'| <= slope, |s''| <= bend:

        ||diag(s'(a)) J(a) - diag(s'(b)) J(b)|| <= bend entry two ||a - b|| + slope ||J(a) - J(b)||.
        """
        slope, bend = (torch.as_tensor(v, dtype=torch.float64, device=self.two.device) for v in (slope, bend))
        table = None if self.table is None else times(self.table, slope.amax())
        return Bound(
            times(self.two, slope),
            times(self.node, slope),
            times(self.sup, slope),
            times(self.entry, slope),
            times(bend, times(self.entry, self.two)) + times(slope, self.bend),
            torch.full_like(self.cap, torch.inf).clamp(max=torch.as_tensor(cap, dtype=torch.float64)),
            self.radius,
            table,
        )

    def without_node(self) -> Bound:
        """Where the last dimension is another one."""
        return replace(
            self, node=torch.full_like(self.node, torch.inf), table=None, mixing=None, least=None, wrapped=None
        )

    def kept(
        self,
        *,
        two: Tensor | None = None,
        bend: Tensor | None = None,
        cap: Tensor | None = None,
        table: Tensor | None = None,
        mixing: Mixing | None = None,
    ) -> Bound:
        """The same numbers, but for those given, for another shape: no table and no mixing unless given."""
        two, bend, cap = (a if b is None else b for a, b in ((self.two, two), (self.bend, bend), (self.cap, cap)))
        return replace(self, two=two, bend=bend, cap=cap, table=table, mixing=mixing, least=None, wrapped=None)

    def uncapped(self) -> Bound:
        """The same numbers and table, where the values may be anything."""
        return replace(self.kept(cap=torch.full_like(self.cap, torch.inf), table=self.table), total=math.inf)


Mixing = tuple[sparse.csr_matrix, Bound]
_NUMBERS = ("two", "node", "sup", "entry", "bend", "cap", "radius")


def times(a: Tensor | float, b: Tensor | float) -> Tensor:
    """a b, with 0 times inf = 0: what does not move is not moved by an unbounded map."""
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    return torch.where((a == 0) | (b == 0), torch.zeros_like(a * b), a * b)


def sums(bounds: list[Bound]) -> Bound:
    """Of y_1 + ... + y_k."""
    bounds = level([b for b in bounds if bool(b.two.any())] or bounds[:1])
    add = lambda name: torch.stack([getattr(b, name) for b in bounds]).sum(0)  # noqa: E731
    tables = [b.table for b in bounds if b.table is not None]
    table = torch.stack(tables).sum(0) if len(tables) == len(bounds) else None
    return Bound(add("two"), add("node"), add("sup"), add("entry"), add("bend"), add("cap"), bounds[0].radius, table)


def joined(bounds: list[Bound], along_last: bool) -> Bound:
    """Of y_1, ..., y_k side by side. along_last: along the last dimension, where a node's entries lie."""
    bounds = level(bounds)
    table = lambda name: torch.stack([getattr(b, name) for b in bounds])  # noqa: E731
    root = lambda name: torch.linalg.vector_norm(table(name), dim=0)  # noqa: E731
    return Bound(
        root("two"),
        root("node") if along_last else table("node").amax(0),
        table("sup").amax(0),
        table("entry").amax(0),
        root("bend"),
        table("cap").amax(0),
        bounds[0].radius,
    )


def level(bounds: list[Bound]) -> list[Bound]:
    """All by row, or all for all rows together."""
    if len({b.rows for b in bounds}) == 1:
        return bounds
    return [b.collapsed() for b in bounds]
