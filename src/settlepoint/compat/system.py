"""A linear system A x = b, given in SciPy's ways or in torch's, seen as an equation of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import Tensor

from settlepoint.compat.bridge import Remembered, array_of, length, tensor_like, tensor_of

Product = Callable[[Tensor], Tensor]  # (N,) -> (N,)

_FLOATS = {"f": torch.float32, "d": torch.float64, "F": torch.complex64, "D": torch.complex128}
_CHARS = {dtype: char for char, dtype in _FLOATS.items()}


@dataclass(frozen=True, eq=False)
class LinearSystem:
    """A x = b from x0: product is A, inverse is M, both as maps of vectors.

    All in one dtype, which is SciPy's choice for A and b: float32, float64 or their complex kin.
    """

    product: Product
    inverse: Product | None
    b: Tensor  # (N,)
    x0: Tensor  # (N,)

    @classmethod
    def of(cls, A: Any, b: Any, x0: Any, M: Any) -> LinearSystem:
        """The system, checked; raises ValueError or TypeError where SciPy does."""
        for name, value in (("A", A), ("b", b), ("x0", x0), ("M", M)):
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(
                    f"{name} must not require grad, since SciPy's signature carries no gradients; "
                    "settlepoint.solve does"
                )
        A, M = (v if v is None or isinstance(v, Tensor) else aslinearoperator(v) for v in (A, M))
        n = _check_shapes(A, b, M)
        dtype = _FLOATS[np.result_type(_char(A), _char(b)).char]
        device = next((v.device for v in (A, b) if isinstance(v, Tensor)), torch.device("cpu"))

        def vector(v: Any) -> Tensor:
            v = v.to(dtype, copy=True) if isinstance(v, Tensor) else tensor_of(v, dtype)
            return v.to(device).reshape(-1)

        b = vector(b)
        product, inverse = _product("A", A, dtype), None if M is None else _product("M", M, dtype)
        if x0 is None:
            return cls(product, inverse, b, torch.zeros_like(b))
        if isinstance(x0, str) and x0 == "Mb":
            return cls(product, inverse, b, b.clone() if inverse is None else inverse(b))
        if np.shape(x0) not in ((n,), (n, 1)):
            raise ValueError(f"x0 must have shape ({n},) or ({n}, 1) as A has {n} columns, got {np.shape(x0)}")
        return cls(product, inverse, b, vector(x0))

    def residual(self, x: Tensor) -> Tensor:
        """b - A x."""
        return self.b - self.product(x) if bool(x.any()) else self.b.clone()

    def preconditioned(self, v: Tensor) -> Tensor:
        """M v."""
        return v if self.inverse is None else self.inverse(v)

    def scale(self, r: Tensor) -> Tensor:
        """s with |s A M r| = |r|, and s A M r turned towards r: what makes s A M close to the identity along r."""
        r = r / length(r)
        q = self.product(self.preconditioned(r.to(self.b.dtype)))
        overlap = torch.vdot((q / length(q)).to(r.dtype), r)
        s = (torch.where(overlap == 0, 1.0, overlap / overlap.abs()) / length(q)).to(self.b.dtype)
        return torch.where(torch.isfinite(s) & (s != 0), s, torch.ones_like(s))


class Defect(Remembered):
    """P(u) = u + [b - A (x + |r| s M u)] / |r| with r = b - A x: its fixed point u gives x + |r| s M u.

    In units of r, so that no size of A, b or x matters. The preconditioner stands on the right, so that the residual is
    that of A x = b itself.
    """

    def __init__(self, system: LinearSystem, x: Tensor, r: Tensor, s: Tensor | float):
        super().__init__()
        self.system, self.x, self.s = system, x, s
        self.unit = length(r)
        self.remember(torch.zeros_like(x)[None], (r / self.unit).to(r.dtype)[None])

    def solution(self, u: Tensor) -> Tensor:  # (1, N) -> (N,)
        """x + |r| s M u."""
        return self.x + (self.unit * self.system.preconditioned(self.s * u[0])).to(u.dtype)

    def evaluate(self, x: Tensor) -> Tensor:
        return x + (self.system.residual(self.solution(x)) / self.unit).to(x.dtype)

    def slope(self, x: Tensor, v: Tensor) -> Tensor:
        return v - self.system.product(self.system.preconditioned(self.s * v[0]))


def _check_shapes(A: Any, b: Any, M: Any) -> int:
    if len(A.shape) != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be square, got shape {tuple(A.shape)}")
    n = A.shape[0]
    if np.shape(b) not in ((n,), (n, 1)):
        raise ValueError(f"b must have shape ({n},) or ({n}, 1) as A has {n} rows, got {np.shape(b)}")
    if M is not None and tuple(M.shape) != tuple(A.shape):
        raise ValueError(f"M must have the shape of A, {tuple(A.shape)}, got {tuple(M.shape)}")
    return n


def _char(value: Any) -> str:
    """SciPy's letter for the dtype of a value; whatever is not single, double or complex counts as double."""
    if isinstance(value, Tensor):
        return _CHARS.get(value.dtype, "d")
    dtype = getattr(value, "dtype", None) or np.asarray(value).dtype
    return dtype.char if dtype.char in _FLOATS else "d"


def _product(name: str, operator: Any, dtype: torch.dtype) -> Product:
    """v -> operator v for a tensor or a LinearOperator."""
    if isinstance(operator, Tensor):
        matrix = operator.to(dtype)
        return lambda v: matrix.to(v.device) @ v
    return lambda v: tensor_like(f"{name}.matvec", operator.matvec(array_of(v)), v)
