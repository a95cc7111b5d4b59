"""Implicit steps of a reaction-diffusion equation."""

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
class ReactionImplicit(Family):
    """One step of implicit Euler for the Allen-Cahn equation u_t = nu Laplace u + u - u^3 on the unit square:

        P(u) = (I - dt nu Laplace_h)^{-1} (v + dt (u - u^3)),   from u = v,   u = 0 on the boundary.

    size: inner points a side. dt: range of the time step; P contracts at rate <= 2 dt as long as |u| <= 1. nu:
    diffusivity. v: modes x modes products of sines with random weights whose absolute values sum to 1, so that
    |v| <= 1. parameters: dt (n,), v (n, size^2).
    """

    size: int = 16
    dt: Range = (0.1, 0.45)
    nu: float = 0.01
    modes: int = 4

    name = "reaction"

    def __post_init__(self):
        check_count("size", self.size, 2)
        check_range("dt", self.dt, above=0.0)
        check_range("nu", (self.nu, self.nu), above=0.0)
        check_count("modes", self.modes)
        if self.modes > self.size:
            raise ValueError(f"modes must be at most size = {self.size}, got {self.modes}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        dt = uniform(self.dt, (n,), generator)
        weights = uniform((-1.0, 1.0), (n, self.modes, self.modes), generator)
        v = Grid(self.size).modes(weights / weights.abs().sum((1, 2), keepdim=True))
        return Batch(v, {"dt": dt, "v": v})

    def equation(self, batch: Batch) -> Equation:
        grid, dt = Grid(self.size), batch.parameters["dt"][:, None]
        factor = 1 / (1 + self.nu * dt[:, :, None] * grid.eigenvalues.to(batch.x0))
        return Equation(_Image(grid.sines.to(batch.x0)), context=(dt, batch.parameters["v"], factor))

    def reference(self, batch: Batch) -> Tensor:  # (n, size^2)
        """By Newton's method from v with SciPy's sparse LU, checked as in `Family.reference`."""
        exact, A = batch.to(torch.float64, "cpu"), Grid(self.size).laplacian()
        pairs = zip(exact.parameters["dt"].tolist(), exact.parameters["v"].numpy(), strict=True)
        rows = [_solved(self.nu * A, dt, v) for dt, v in pairs]
        return verified(self.equation(exact), torch.from_numpy(np.stack(rows))).to(batch.x0)


def _solved(A: Any, dt: float, v: np.ndarray) -> np.ndarray:
    linear = sp.csc_array(sp.eye(len(v))) * (1 - dt) + dt * A
    return newton(
        lambda u: linear @ u + dt * u**3 - v,
        lambda u: sp.csc_array(linear + sp.diags(3 * dt * u**2)),
        v,
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """P(u), with dt, v and the factors 1 / (1 + nu dt L) of every row as context."""

    sines: Tensor

    def __call__(self, u: Tensor, dt: Tensor, v: Tensor, factor: Tensor) -> Tensor:
        return through_sines(v + dt * (u - u * u * u), self.sines, factor)
