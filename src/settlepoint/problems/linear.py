"""Linear systems with one matrix and many right-hand sides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family, verified
from settlepoint.problems.matrices import MATRICES, SHIFT, Matrix
from settlepoint.problems.sampling import check_count, check_sampling, normal, uniform


@dataclass(frozen=True)
class LinearFamily(Family):
    """A x = b as x = x - (A x - b), from x0 = 0        (R2N2, Sec. 4.1)

    matrix: "A1" to "A19" of the supplement, or any square matrix. b = b~ + U(-spread, spread)^m; shift: True takes the
    paper's b~, False takes 0, a vector is taken as it is. frame: Q (d, m) with orthonormal columns, or None; see
    `embedded`. parameters: b. The matrix is shared by all rows and lies in the operator.

    A singular A makes a family too: its reference is the solution of least norm where there is one, else NaN.

        >>> import torch
        >>> family = LinearFamily(((2.0, 1.0), (1.0, 3.0)), shift=False)
        >>> family.sample(3, torch.Generator().manual_seed(0)).parameters["b"].shape
        torch.Size([3, 2])
        >>> LinearFamily("A6", spread=5.0, shift=False)
        LinearFamily(matrix='A6', spread=5.0, shift=False, frame=None)
    """

    matrix: str | Matrix = "A1"
    spread: float = 1.0
    shift: bool | tuple[float, ...] = True
    frame: Matrix | None = None

    name = "linear"

    def __post_init__(self):
        if not isinstance(self.matrix, str):
            object.__setattr__(self, "matrix", as_tuples("matrix", self.matrix))
        elif self.matrix not in MATRICES:
            raise ValueError(f"matrix must be one of A1 to A19 or a square matrix, got {self.matrix!r}")
        if self.frame is not None:
            object.__setattr__(self, "frame", as_tuples("frame", self.frame))
        if not isinstance(self.shift, bool):
            object.__setattr__(self, "shift", as_tuples("shift", [self.shift])[0])
        size = len(self.entries)
        if {len(row) for row in self.entries} != {size}:
            raise ValueError(f"matrix must be square, got rows of {[len(row) for row in self.entries]} entries")
        if not (0 <= self.spread < math.inf):
            raise ValueError(f"spread must be finite and >= 0, got {self.spread!r}")
        if len(self.centre) != size:
            raise ValueError(
                f"shift must have {size} entries as the matrix has rows, got {len(self.centre)}; "
                "True is the paper's b~, False is 0"
            )
        _check_frame(self.frame, size)

    @property
    def entries(self) -> Matrix:
        """The rows of A."""
        return MATRICES[self.matrix] if isinstance(self.matrix, str) else self.matrix

    @property
    def centre(self) -> tuple[float, ...]:
        """b~."""
        if isinstance(self.shift, bool):
            return SHIFT if self.shift else (0.0,) * len(self.entries)
        return self.shift

    @property
    def dense(self) -> Tensor:  # (m, m), or (d, d)
        """A in float64, or Q A Q^T when there is a frame."""
        A, Q = _double(self.entries), self.frame
        return A if Q is None else _double(Q) @ A @ _double(Q).mT

    def embedded(self, dimension: int, generator: torch.Generator) -> LinearFamily:
        """The same problems in more dimensions: Q A Q^T and Q b, with random orthonormal columns Q        (R2N2, Fig 6)

        The same generator state draws the same b. Outside the span of Q the matrix is 0, and b has no part there.
        """
        check_sampling(1, generator)
        check_count("dimension", dimension, len(self.entries))
        if self.frame is not None:
            raise ValueError("embedded needs a family without a frame, got one that is embedded already")
        Q, _ = torch.linalg.qr(normal((dimension, len(self.entries)), generator))
        return replace(self, frame=as_tuples("frame", Q))

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        b = _double(self.centre) + uniform((-self.spread, self.spread), (n, len(self.entries)), generator)
        b = b if self.frame is None else b @ _double(self.frame).mT
        return Batch(torch.zeros_like(b), {"b": b})

    def equation(self, batch: Batch) -> Equation:
        return Equation(_Relaxed(self.dense.to(batch.x0)), context=(batch.parameters["b"],))

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """A^+ b by scipy.linalg.lstsq in float64, checked as in `Family.reference`."""
        exact = batch.to(torch.float64, "cpu")
        found = scipy.linalg.lstsq(self.dense.numpy(), exact.parameters["b"].numpy().T)
        assert found is not None
        return verified(self.equation(exact), torch.from_numpy(np.ascontiguousarray(found[0].T))).to(batch.x0)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Smallest and largest eigenvalue of P' = I - A where A is symmetric, else None.

        Those on the span of Q when there is a frame: iterates from x0 = 0 never leave it.
        """
        A = _double(self.entries)
        if not torch.equal(A, A.mT):
            return None
        spectrum = torch.linalg.eigvalsh(A)
        return float(1 - spectrum[-1]), float(1 - spectrum[0])


@dataclass(frozen=True, eq=False)
class _Relaxed:
    """P(x) = x - (A x - b), with b as context."""

    A: Tensor

    def __call__(self, x: Tensor, b: Tensor) -> Tensor:
        return x - (x @ self.A.mT - b)


def as_tuples(name: str, matrix: object) -> Matrix:
    """A matrix of finite numbers, given as a tensor, an array or nested sequences, as a tuple of rows."""
    try:
        table = torch.as_tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a matrix of numbers, got {matrix!r}") from None
    if table.ndim != 2 or not table.numel():
        raise ValueError(f"{name} must have two dimensions and an entry, got shape {tuple(table.shape)}")
    if not bool(torch.isfinite(table).all()):
        raise ValueError(f"{name} must be finite, got {table.tolist()}")
    return tuple(tuple(row) for row in table.tolist())


def _double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _check_frame(frame: Matrix | None, size: int) -> None:
    if frame is None:
        return
    Q = _double(frame)
    if Q.shape[1] != size:
        raise ValueError(f"frame must have {size} columns as the matrix has rows, got {Q.shape[1]}")
    gap = float((Q.mT @ Q - torch.eye(size, dtype=Q.dtype)).abs().max())
    if gap > 1e-10:
        raise ValueError(f"frame must have orthonormal columns, got Q^T Q off by {gap:.1e}")
