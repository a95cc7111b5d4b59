"""The Bratu problem on the unit square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family, verified
from settlepoint.problems.grid import Grid, through_sines
from settlepoint.problems.newton import newton
from settlepoint.problems.sampling import Range, check_count, check_range, check_sampling, uniform


@dataclass(frozen=True)
class Bratu(Family):
    """-Laplace u = lam e^u, u = 0 on the boundary, preconditioned: P(u) = lam (-Laplace_h)^{-1} e^u, from u = 0.

    size: inner points a side, the unknowns are size^2; the operator costs four dense products of that size a row. lam:
    range of the parameter; there is no solution above about 6.8, where the two branches meet. parameters: lam (n,).
    """

    size: int = 10
    lam: Range = (1.0, 6.7)

    name = "bratu"

    def __post_init__(self):
        check_count("size", self.size, 2)
        check_range("lam", self.lam, above=0.0)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        lam = uniform(self.lam, (n,), generator)
        return Batch(lam.new_zeros(n, self.size**2), {"lam": lam})

    def equation(self, batch: Batch) -> Equation:
        grid = Grid(self.size)
        operator = _Image(grid.sines.to(batch.x0), (1 / grid.eigenvalues).to(batch.x0))
        return Equation(operator, context=(batch.parameters["lam"],))

    def reference(self, batch: Batch) -> Tensor:  # (n, size^2)
        """The lower solution by Newton's method from 0 with SciPy's sparse LU, checked as in `Family.reference`."""
        exact, A = batch.to(torch.float64, "cpu"), Grid(self.size).laplacian()
        rows = [_solved(A, lam) for lam in exact.parameters["lam"].tolist()]
        return verified(self.equation(exact), torch.from_numpy(np.stack(rows))).to(batch.x0)


def _solved(A: Any, lam: float) -> np.ndarray:
    return newton(
        lambda u: A @ u - lam * np.exp(u),
        lambda u: sp.csc_array(A - sp.diags(lam * np.exp(u))),
        np.zeros(A.shape[0]),
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """P(u) = lam (-Laplace_h)^{-1} e^u, with lam as context."""

    sines: Tensor
    inverse: Tensor

    def __call__(self, u: Tensor, lam: Tensor) -> Tensor:
        return lam[:, None] * through_sines(u.exp(), self.sines, self.inverse)
