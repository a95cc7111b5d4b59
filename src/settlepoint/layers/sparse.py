"""Products with sparse matrices whose entries change while their places stay: dropped features, attention."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_AT_A_TIME = 1024


class Places:
    """Where the entries of a sparse (N, M) matrix lie, row by row, and in which order they are its transpose's.

    rows: (N + 1,), where each row starts; columns: (E,).
    """

    def __init__(self, rows: Tensor, columns: Tensor, width: int):
        self.rows, self.columns, self.width = rows, columns, width

    @classmethod
    def of(cls, x: Tensor) -> Places:
        """Those of a CSR or coalesced COO matrix."""
        if x.layout == torch.sparse_csr:
            return cls(x.crow_indices(), x.col_indices(), x.shape[1])
        rows, columns = x.indices()
        return cls(_starts(rows, x.shape[0]), columns, x.shape[1])

    @property
    def height(self) -> int:
        """N."""
        return len(self.rows) - 1

    @cached_property
    def owners(self) -> Tensor:  # (E,)
        """The row of each entry."""
        return torch.repeat_interleave(torch.arange(self.height, device=self.rows.device), self.rows.diff())

    @cached_property
    def order(self) -> Tensor:  # (E,)
        """The entries column by column."""
        return self.columns.argsort(stable=True)

    @cached_property
    def transposed(self) -> Places:
        """The places of the transpose, whose entries are those of the matrix in `order`."""
        return Places(_starts(self.columns, self.width), self.owners[self.order], self.height)

    def matrix(self, entries: Tensor) -> Tensor:
        """The CSR matrix with these entries, (E,)."""
        size = (self.height, self.width)
        with warnings.catch_warnings():  # torch calls CSR a beta
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(self.rows, self.columns, entries, size, check_invariants=False)


class PlacesOf:
    """Places.of the latest matrix asked for: a network sees the same graph, the same features, call after call."""

    def __init__(self):
        self._seen: tuple[Tensor, Places] | None = None

    def __call__(self, x: Tensor) -> Places:
        if self._seen is None or self._seen[0] is not x:
            self._seen = (x, Places.of(x))
        return self._seen[1]


def spread(entries: Tensor, x: Tensor, places: Places) -> Tensor:  # (E, H), (M, H, d) -> (N, H, d)
    """y_i = sum_e entries_e x_{column(e)} over the entries e of row i, for H matrices at the same places.

    Differentiable in both, to any order: back it goes as the product with the transpose, and of the entries that the
    matrix has, not of all N x M.
    """
    return _Spread.apply(entries, x, places)  # type: ignore[return-value]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, entries: Tensor, x: Tensor, places: Places) -> Tensor:
        ctx.save_for_backward(entries, x)
        ctx.places = places
        return torch.stack([places.matrix(head) @ x[:, i] for i, head in enumerate(entries.T.contiguous())], 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (entries, x), places, (grad,) = ctx.saved_tensors, ctx.places, grads
        needs_entries, needs_x, _ = ctx.needs_input_grad
        to_entries = _paired(grad, x, places) if needs_entries else None
        to_x = spread(entries.index_select(0, places.order), grad, places.transposed) if needs_x else None
        return to_entries, to_x, None


def _paired(y: Tensor, x: Tensor, places: Places) -> Tensor:  # (E, H)
    """y_i . x_j for every entry (i, j); a few entries at a time, which stay in the cache."""
    pairs = zip(places.owners.split(_AT_A_TIME), places.columns.split(_AT_A_TIME), strict=True)
    parts = [torch.linalg.vecdot(y.index_select(0, i), x.index_select(0, j)) for i, j in pairs]
    return torch.cat(parts) if parts else y.new_zeros(0, x.shape[1])


def _starts(owners: Tensor, count: int) -> Tensor:
    ends = torch.cumsum(torch.bincount(owners, minlength=count), 0)
    return torch.cat((ends.new_zeros(1), ends))
