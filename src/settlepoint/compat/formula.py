"""A `Formula` is one explicit Runge-Kutta step in NumPy, learned or classical, with one stage more at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from settlepoint.solvers.r2n2 import R2N2
from settlepoint.solvers.tableaus import Tableau

Slope = Callable[[float, np.ndarray], Any]  # f(t, y)


@dataclass(frozen=True, eq=False)
class Formula:
    """y + h sum_j b_j k_j,  k_j = f(t + c_j h, y + h sum_l A[j,l] k_l),  c_j = sum_l A[j,l].

    A: (n, n), strictly lower triangular; b: (n,). The stage added is k_{n+1} = f(t + h, y_new): the first of the next
    step, so that it costs nothing when this step is accepted.
    """

    A: np.ndarray
    b: np.ndarray

    def __post_init__(self):
        n = self.b.size
        if self.b.ndim != 1 or not n or self.A.shape != (n, n):
            raise ValueError(f"learned must be (A, b) of shapes (n, n) and (n,), got {self.A.shape} and {self.b.shape}")
        if np.triu(self.A).any():
            raise ValueError("learned must have A strictly lower triangular, got entries on or above the diagonal")
        if not (np.isfinite(self.A).all() and np.isfinite(self.b).all()):
            raise ValueError("learned must have finite weights, got NaN or Inf")

    @classmethod
    def of(cls, learned: Any) -> Formula:
        """The formula of an R2N2, of a `Tableau`, or of a pair (A, b)."""
        if isinstance(learned, R2N2):
            A, b = _checked(learned).tableau()
        elif isinstance(learned, Tableau):
            A, b = learned.matrices()
        elif isinstance(learned, tuple | list) and len(learned) == 2:
            A, b = learned
        else:
            raise TypeError(f"learned must be an R2N2, a Tableau or a pair (A, b), got {type(learned).__name__}")
        return cls(floats(A), floats(b))

    @property
    def stages(self) -> int:
        """n, the stages of the step itself."""
        return self.b.size

    @property
    def extended(self) -> tuple[np.ndarray, np.ndarray]:
        """A (n+1, n+1) and b (n+1,) of the same step with its last stage k_{n+1}, whose row is b."""
        n = self.stages
        A = np.zeros((n + 1, n + 1))
        A[:n, :n], A[n, :n] = self.A, self.b
        return A, np.append(self.b, 0.0)

    def step(self, fun: Slope, t: float, y: np.ndarray, h: float, k0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y_new (m,) and all stages (n+1, m), k0 = f(t, y) given."""
        k = np.empty((self.stages + 1, y.size), dtype=np.result_type(y, k0))
        k[0] = k0
        for j in range(1, self.stages):
            k[j] = fun(t + self.A[j].sum() * h, y + h * (self.A[j, :j] @ k[:j]))
        y_new = y + h * (self.b @ k[:-1])
        k[-1] = fun(t + h, y_new)
        return y_new, k


def floats(v: Any) -> np.ndarray:
    """v, a tensor or anything like an array, in float64 and memory of its own."""
    return np.array(v.detach().cpu().numpy() if isinstance(v, Tensor) else v, dtype=float)


def _checked(solver: R2N2) -> R2N2:
    """solver, if one step of it is a Runge-Kutta step."""
    several = solver.per_iteration is not None and solver.per_iteration > 1
    if solver.layer != "evaluation" or solver.carry or several or solver.preconditioner is not None:
        raise ValueError(
            "learned must be an R2N2 of plain evaluations, without per_iteration weights, carry or preconditioner, to "
            f"be a Runge-Kutta step, got {solver!r}"
        )
    return solver
