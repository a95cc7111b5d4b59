"""Problems with known answers, and instruments that count: what the tests of the core stand on.

Every problem is seeded by the generator it is given, and comes with an answer from outside the library
(`torch.linalg.solve`, or a closed form).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from settlepoint import Equation, outcome

DOUBLE = torch.float64


@dataclass(frozen=True)
class Affine:
    """x = x W + f in every row; spectrum of W in [low, high]; answer by torch.linalg.solve in float64."""

    W: Tensor  # (D, D), symmetric
    f: Tensor  # (R, D)

    @property
    def equation(self) -> Equation:
        return Equation(lambda x: x @ self.W, self.f)

    @property
    def answer(self) -> Tensor:
        W, f = self.W.double(), self.f.double()
        return torch.linalg.solve(torch.eye(len(W), dtype=DOUBLE) - W.T, f.T).T

    def error(self, x: Tensor) -> Tensor:  # (R,)
        return (x.double() - self.answer).norm(dim=1)

    def to(self, dtype: torch.dtype) -> Affine:
        return Affine(self.W.to(dtype), self.f.to(dtype))


def affine(
    generator: torch.Generator,
    *,
    rows: int = 6,
    width: int = 12,
    low: float = -0.9,
    high: float = 0.9,
    dtype: torch.dtype = DOUBLE,
) -> Affine:
    """Symmetric W with eigenvalues spread evenly over [low, high], seen from random directions."""
    basis, _ = torch.linalg.qr(torch.randn(width, width, dtype=DOUBLE, generator=generator))
    W = basis @ torch.diag(torch.linspace(low, high, width, dtype=DOUBLE)) @ basis.T
    f = torch.randn(rows, width, dtype=DOUBLE, generator=generator)
    return Affine(W.to(dtype), f.to(dtype))


def factors(rates: list[float], width: int = 3, dtype: torch.dtype = DOUBLE) -> tuple[Equation, Tensor]:
    """x = a x + 1 with one factor a a row, handed in as context; and its answer 1 / (1 - a)."""
    a = torch.tensor(rates, dtype=dtype)[:, None]
    eq = Equation(lambda x, a: a * x, torch.ones(len(rates), width, dtype=dtype), context=(a,))
    return eq, (1 / (1 - a)).expand(-1, width)


class Counted:
    """An operator that counts its calls, and the rows that took part in them, before it runs."""

    def __init__(self, operator: Callable[..., Tensor]):
        self.operator, self.calls, self.rows = operator, 0, 0

    def __call__(self, x: Tensor, *context: Tensor) -> Tensor:
        self.calls += 1
        self.rows += len(x)
        return self.operator(x, *context)


class HostReads(TorchDispatchMode):
    """Counts `_local_scalar_dense`: every .item(), bool(t), int(t) of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_local_scalar_dense" in str(func):
            self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass
class Reads:
    """looks: calls of the driver's `read`; scalars: tensors read by themselves."""

    looks: int = 0
    scalars: int = 0


@contextmanager
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """Count the reads of the driver inside."""
    reads, homes, real = Reads(), [m for m in sys.modules.values() if vars(m).get("read") is outcome.read], outcome.read

    def counted(table: Tensor):
        reads.looks += 1
        return real(table)

    with monkeypatch.context() as patch, HostReads() as mode:
        for module in homes:
            patch.setattr(module, "read", counted)
        yield reads
    reads.scalars = mode.count


def raising(operator: Callable[..., Tensor], call: int) -> Callable[..., Tensor]:
    """operator, except that it raises OSError at that call (counted from 1)."""
    made = 0

    def T(x: Tensor, *context: Tensor) -> Tensor:
        nonlocal made
        made += 1
        if made == call:
            raise OSError("disk gone")
        return operator(x, *context)

    return T


def rotation(scale: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Every pair (a, b) turned by 90 degrees and scaled."""
    return lambda x: scale * torch.stack((-x[:, 1], x[:, 0]), dim=1)
