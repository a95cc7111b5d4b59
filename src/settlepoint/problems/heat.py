"""Implicit steps of the heat equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.nn.functional import pad

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family, verified
from settlepoint.problems.grid import Grid
from settlepoint.problems.sampling import Range, check_count, check_range, check_sampling, normal, uniform


@dataclass(frozen=True)
class HeatImplicit(Family):
    """One step of implicit Euler for u_t = Laplace u on the unit square, (I + dt A) u = v, A = -Laplace_h, by Jacobi:

        P(u) = (v + dt (d - A) u) / (1 + dt d),   d = 4 / h^2 the diagonal of A,   from u = v.

    size: inner points a side. dt: range of the time step. v: a sum of modes x modes products of sines with weights
    N(0, 1), plus N(0, 1) noise a point times roughness. parameters: dt (n,), v (n, size^2). P' is symmetric, with
    eigenvalues within +- dt d cos(pi h) / (1 + dt d).
    """

    size: int = 16
    dt: Range = (1e-3, 1e-2)
    modes: int = 3
    roughness: float = 0.1

    name = "heat"

    def __post_init__(self):
        check_count("size", self.size, 2)
        check_range("dt", self.dt, above=0.0)
        check_count("modes", self.modes)
        if self.modes > self.size:
            raise ValueError(f"modes must be at most size = {self.size}, got {self.modes}")
        if not 0 <= self.roughness < math.inf:
            raise ValueError(f"roughness must be finite and >= 0, got {self.roughness!r}")

    @property
    def interval(self) -> tuple[float, float]:
        """The spectrum of P' at the largest dt, which holds that of every smaller one."""
        h = Grid(self.size).spacing
        diagonal = self.dt[1] * 4 / h**2
        bound = diagonal * math.cos(math.pi * h) / (1 + diagonal)
        return -bound, bound

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        dt = uniform(self.dt, (n,), generator)
        v = Grid(self.size).modes(normal((n, self.modes, self.modes), generator))
        v = v + self.roughness * normal((n, self.size**2), generator)
        return Batch(v, {"dt": dt, "v": v})

    def equation(self, batch: Batch) -> Equation:
        dt, v = batch.parameters["dt"][:, None], batch.parameters["v"]
        inverse_square = 1 / Grid(self.size).spacing ** 2
        whole = 1 + 4 * inverse_square * dt
        return Equation(_Image(self.size), context=(v / whole, dt * inverse_square / whole))

    def reference(self, batch: Batch) -> Tensor:  # (n, size^2)
        """By SciPy's sparse LU of I + dt A, checked as in `Family.reference`."""
        exact, A = batch.to(torch.float64, "cpu"), Grid(self.size).laplacian()
        eye = sp.csc_array(sp.eye(self.size**2))
        pairs = zip(exact.parameters["dt"].tolist(), exact.parameters["v"].numpy(), strict=True)
        rows = [splu(sp.csc_array(eye + dt * A)).solve(v) for dt, v in pairs]
        return verified(self.equation(exact), torch.from_numpy(np.stack(rows))).to(batch.x0)


@dataclass(frozen=True, eq=False)
class _Image:
    """still + share times the sum over the four neighbours; both are context."""

    size: int

    def __call__(self, u: Tensor, still: Tensor, share: Tensor) -> Tensor:
        square = u.unflatten(1, (self.size, self.size))
        rows, columns = pad(square, (0, 0, 1, 1)), pad(square, (1, 1))
        around = rows[:, :-2] + rows[:, 2:] + columns[:, :, :-2] + columns[:, :, 2:]
        return still + share * around.flatten(1)
