"""Spaces say what a row is, and lay any state out as a flat (R, W) view.

Solvers, their states and compaction know only the flat view. A `Space` (`Rows`, `Segments`) is made by the user; its
frozen `Layout` belongs to one solve and knows the shapes, the dtype and the norm of one state.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]  # what an operator takes and gives: one tensor or several

_LOW_PRECISION = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Layout:
    """Flat view (R, W) of one state, and the norm of its rows.

    rows: R; trailing: shape of each tensor behind its leading dimension; tensors: False when the state is one bare
    tensor; batched: False when a state of at most one dimension is a single row; dtype: of the state; weights: (W,) or
    None; slots: for segments, the place of every leading entry in the padded (R * length) table, else None.
    """

    rows: int
    trailing: tuple[tuple[int, ...], ...]
    several: bool
    batched: bool
    dtype: torch.dtype
    weights: Tensor | None = None
    slots: Tensor | None = None
    length: int = 1

    @cached_property
    def identity(self) -> bool:
        """True when the state is its own flat view."""
        one_matrix = not self.several and self.batched and len(self.trailing[0]) == 1
        return one_matrix and self.slots is None and self.dtype == self.working_dtype

    @cached_property
    def working_dtype(self) -> torch.dtype:
        """dtype of the flat view: real, and float32 for half precisions."""
        return torch.float32 if self.dtype in _LOW_PRECISION else self.dtype.to_real()

    @cached_property
    def eps(self) -> float:
        """Rounding unit of the state (not of the flat view): what a residual can be trusted to."""
        return torch.finfo(self.dtype).eps

    def with_rows(self, rows: int) -> "Layout":
        """The same layout for another number of rows."""
        return replace(self, rows=rows)

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape every tensor of the state must have."""
        lead = (self.rows if self.slots is None else len(self.slots),) if self.batched else ()
        return [lead + t for t in self.trailing]

    def check(self, x: State, name: str) -> None:
        """Raise if x has not the structure, shapes and dtype of this layout; name says whose value it is."""
        parts = x if self.several else (x,)
        if not isinstance(parts, tuple) or len(parts) != len(self.trailing):
            raise TypeError(f"{name} must be a tuple of {len(self.trailing)} tensors, got {type(x).__name__}")
        for part, shape in zip(parts, self.shapes, strict=True):
            if not isinstance(part, Tensor):
                raise TypeError(f"{name} must be a tensor of shape {shape}, got {type(part).__name__}")
            if tuple(part.shape) != shape:
                raise ValueError(f"{name} must have the shape of x, {shape}, got {tuple(part.shape)}")
            if part.dtype != self.dtype:
                raise ValueError(f"{name} must have the dtype of x, {self.dtype}, got {part.dtype}")

    def flatten(self, x: State, name: str = "the state") -> Tensor:  # -> (R, W)
        """Flat view of x; raises when x does not fit this layout."""
        if self.identity and isinstance(x, Tensor) and x.shape == self.shapes[0] and x.dtype == self.dtype:
            return x  # the hot path of every iteration
        self.check(x, name)
        parts = [self._flat(p) for p in (x if self.several else (x,))]  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _flat(self, part: Tensor) -> Tensor:
        part = torch.view_as_real(part) if part.is_complex() else part.to(self.working_dtype)
        if self.slots is None:
            return part.reshape(self.rows, part.numel() // self.rows if self.rows else _size(part.shape[1:]))
        flat = part.reshape(len(self.slots), _size(part.shape[1:]))
        table = flat.new_zeros(self.rows * self.length, flat.shape[1]).index_copy(0, self.slots, flat)
        return table.reshape(self.rows, self.length * flat.shape[1])

    def restore(self, z: Tensor) -> State:  # (R, W) ->
        """The state whose flat view is z."""
        if self.identity:
            return z
        widths = [self.length * _size(t) * (2 if self.dtype.is_complex else 1) for t in self.trailing]
        pieces = z.split(widths, dim=1) if self.several else (z,)
        parts = tuple(self._shaped(p, s) for p, s in zip(pieces, self.shapes, strict=True))
        return parts if self.several else parts[0]

    def _shaped(self, piece: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self.slots is not None:
            width = piece.shape[1] // self.length if self.length else 0
            piece = piece.reshape(self.rows * self.length, width).index_select(0, self.slots)
        if self.dtype.is_complex:
            return torch.view_as_complex(piece.reshape(*shape, 2).contiguous())
        return piece.reshape(shape).to(self.dtype)

    @cached_property
    def rounded(self) -> bool:
        """True when the state is coarser than its flat view."""
        return self.dtype in _LOW_PRECISION

    def settle(self, z: Tensor) -> Tensor:
        """z rounded to what the state's dtype can hold, so that a residual speaks of the value that is returned."""
        return z.to(self.dtype).to(self.working_dtype) if self.rounded else z

    @cached_property
    def _roots(self) -> Tensor:
        assert self.weights is not None
        return self.weights.sqrt()

    def norm(self, z: Tensor) -> Tensor:  # (R, W) -> (R,)
        """sqrt(sum_i w_i z_i^2) of every row."""
        if self.weights is None:
            return torch.linalg.vector_norm(z, dim=1)
        return torch.linalg.vector_norm(self._roots * z, dim=1)

    def measure(self, z: Tensor) -> Tensor:  # (R, W) -> (R,) float64
        """The same norm in float64, which neither overflows nor vanishes where the dtype's own squares do."""
        weighted = z if self.weights is None else self._roots * z
        return torch.linalg.vector_norm(weighted, dim=1, dtype=torch.float64)

    def gram(self, u: Tensor, v: Tensor) -> Tensor:  # (R, m, W), (R, k, W) -> (R, m, k)
        """Inner products of the space between two sets of vectors in every row."""
        return (u if self.weights is None else u * self.weights) @ v.mT


class Space(ABC):
    """What a row is, and how rows are measured."""

    @abstractmethod
    def layout(self, x0: State) -> Layout:
        """Layout of the states that look like x0."""

    @abstractmethod
    def relaid(self, layout: Layout) -> Layout:
        """layout of a selection of rows, as wide as the layout it was selected from."""

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """One value a row (R,) as one value for every leading entry of a state."""


class Rows(Space):
    """The first dimension counts rows; a state of at most one dimension is a single row.

    ||x||^2 = sum_i w_i x_i^2 over everything behind the first dimension. weights: quadrature weights, positive, of the
    shape of one row (one tensor for every tensor of the state), or None for ones.
    """

    def __init__(self, weights: State | None = None):
        for w in _parts(weights) if weights is not None else ():
            if not bool((w > 0).all()):
                raise ValueError(f"weights must be positive, got a smallest weight of {w.min().item():g}")
        self.weights = weights

    def __repr__(self) -> str:
        return "Rows()" if self.weights is None else f"Rows(weights={self.weights!r})"

    def layout(self, x0: State) -> Layout:
        parts = _checked_parts(x0)
        batched = any(p.ndim >= 2 for p in parts)
        if batched and len({p.shape[:1] for p in parts}) != 1:
            raise ValueError(f"all tensors of x0 need the same number of rows, got {[tuple(p.shape) for p in parts]}")
        trailing = tuple(tuple(p.shape[1:] if batched else p.shape) for p in parts)
        rows = parts[0].shape[0] if batched else 1
        layout = Layout(rows, trailing, isinstance(x0, tuple), batched, parts[0].dtype)
        return replace(layout, weights=self._flat_weights(layout, parts[0]))

    def _flat_weights(self, layout: Layout, like: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        given = _parts(self.weights)
        if len(given) != len(layout.trailing):
            raise ValueError(f"weights must hold {len(layout.trailing)} tensors as the state does, got {len(given)}")
        for w, t in zip(given, layout.trailing, strict=True):
            try:
                w.expand(t)
            except RuntimeError:
                raise ValueError(f"weights must broadcast to one row, {t}, got {tuple(w.shape)}") from None
        flat = [w.expand(t).reshape(-1) for w, t in zip(given, layout.trailing, strict=True)]
        if layout.dtype.is_complex:
            flat = [w.repeat_interleave(2) for w in flat]
        return torch.cat(flat).to(device=like.device, dtype=layout.working_dtype)

    def relaid(self, layout: Layout) -> Layout:
        raise AssertionError("rows are selected by Equation.rows, which keeps the layout")

    def spread(self, values: Tensor) -> Tensor:
        return values


class Segments(Space):
    """Rows are runs of entries, as the nodes of a graph: entry i belongs to row index[i].

    index: (N,) integers in [0, count); count: number of rows, empty ones allowed. Rows are padded with zeros to the
    longest one, which changes no norm and no Gram matrix; more than eightfold padding is refused.
    """

    def __init__(self, index: Tensor, count: int):
        if index.ndim != 1 or index.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"index must be a vector of integers, got {tuple(index.shape)} of {index.dtype}")
        if index.numel() and not (0 <= int(index.min()) and int(index.max()) < count):
            raise ValueError(f"index must lie in [0, {count}), got [{int(index.min())}, {int(index.max())}]")
        self.index, self.count = index.long(), count
        sizes = torch.bincount(self.index, minlength=count)
        self.length = int(sizes.max()) if count else 0
        padded = self.length * count
        if index.numel() and padded > 8 * index.numel():
            raise ValueError(
                f"segments must need at most 8 x padding, got {padded} places for {index.numel()} entries (the longest "
                f"row has {self.length}); batch rows of similar length together, or solve the long row on its own"
            )

    def __repr__(self) -> str:
        return f"Segments(index=<{self.index.numel()} entries>, count={self.count})"

    def _slots(self, length: int) -> Tensor:
        order = torch.argsort(self.index, stable=True)
        sizes = torch.bincount(self.index, minlength=self.count)
        starts = torch.cumsum(sizes, 0) - sizes
        within = torch.empty_like(order)
        within[order] = torch.arange(order.numel(), device=order.device) - starts[self.index[order]]
        return self.index * length + within

    def layout(self, x0: State) -> Layout:
        parts = _checked_parts(x0)
        for p in parts:
            if p.ndim == 0 or p.shape[0] != self.index.numel():
                raise ValueError(
                    f"x0 must have {self.index.numel()} leading entries as index has, got {tuple(p.shape)}"
                )
        trailing = tuple(tuple(p.shape[1:]) for p in parts)
        several = isinstance(x0, tuple)
        slots = self._slots(self.length)
        return Layout(self.count, trailing, several, True, parts[0].dtype, slots=slots, length=self.length)

    def relaid(self, layout: Layout) -> Layout:
        return replace(layout, rows=self.count, slots=self._slots(layout.length))

    def spread(self, values: Tensor) -> Tensor:
        return values.index_select(0, self.index)


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _parts(x: State) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


def _checked_parts(x0: State) -> tuple[Tensor, ...]:
    parts = _parts(x0)
    if not parts or not all(isinstance(p, Tensor) for p in parts):
        raise TypeError(f"x0 must be a tensor or a tuple of tensors, got {type(x0).__name__}")
    kinds = {p.dtype for p in parts}
    if len(kinds) != 1:
        raise ValueError(f"all tensors of x0 need one dtype, got {sorted(map(str, kinds))}")
    if not (parts[0].is_floating_point() or parts[0].is_complex()):
        raise ValueError(f"x0 must be of a floating or complex dtype, got {parts[0].dtype}")
    return parts
