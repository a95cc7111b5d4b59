"""Steady convection and diffusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import splu
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family, verified
from settlepoint.problems.grid import Grid, through_sines
from settlepoint.problems.sampling import Range, check_count, check_range, check_sampling, normal, uniform


@dataclass(frozen=True)
class ConvectionDiffusion(Family):
    """-Laplace u + w . grad u = s on the unit square, u = 0 on the boundary, central differences, preconditioned by
    the Laplacian: P(u) = (-Laplace_h)^{-1} (s - w . grad_h u), from u = 0.

    size: inner points a side. speed: range of |w|; the direction is any. s: a sum of modes x modes products of sines
    with weights N(0, 1). parameters: velocity w (n, 2), source (n, modes, modes). P' is skew in the inner product of
    the energy, not normal in the Euclidean one: its eigenvalues are imaginary, of size about |w| / 8.9 (of the
    continuous problem |w| / (2 sqrt(2) pi)), so that it contracts below that speed.
    """

    size: int = 16
    speed: Range = (1.0, 7.0)
    modes: int = 3

    name = "convection"

    def __post_init__(self):
        check_count("size", self.size, 2)
        check_range("speed", self.speed, above=0.0)
        check_count("modes", self.modes)
        if self.modes > self.size:
            raise ValueError(f"modes must be at most size = {self.size}, got {self.modes}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        speed, angle = uniform(self.speed, (n,), generator), uniform((0.0, 2 * math.pi), (n,), generator)
        velocity = speed[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
        source = normal((n, self.modes, self.modes), generator)
        return Batch(source.new_zeros(n, self.size**2), {"velocity": velocity, "source": source})

    def equation(self, batch: Batch) -> Equation:
        grid, velocity = Grid(self.size), batch.parameters["velocity"]
        sines, inverse, slope = ((t).to(batch.x0) for t in (grid.sines, 1 / grid.eigenvalues, grid.slope))
        still = through_sines(self._source(batch).to(batch.x0), sines, inverse)
        return Equation(_Image(sines, inverse, slope), context=(velocity, still))

    def _source(self, batch: Batch) -> Tensor:
        return Grid(self.size).modes(batch.parameters["source"].to(torch.float64).cpu())

    def reference(self, batch: Batch) -> Tensor:  # (n, size^2)
        """By SciPy's sparse LU of -Laplace_h + w . grad_h, checked as in `Family.reference`."""
        exact, grid = batch.to(torch.float64, "cpu"), Grid(self.size)
        A, source = grid.laplacian(), self._source(exact).numpy()
        velocity = exact.parameters["velocity"].tolist()
        rows = [splu((A + grid.advection(*w)).tocsc()).solve(s) for w, s in zip(velocity, source, strict=True)]
        return verified(self.equation(exact), torch.from_numpy(np.stack(rows))).to(batch.x0)


@dataclass(frozen=True, eq=False)
class _Image:
    """P(u) = still - (-Laplace_h)^{-1} w . grad_h u, with w and still as context."""

    sines: Tensor
    inverse: Tensor
    slope: Tensor

    def __call__(self, u: Tensor, velocity: Tensor, still: Tensor) -> Tensor:
        square = u.unflatten(1, self.sines.shape)
        first, second = velocity[:, 0, None, None], velocity[:, 1, None, None]
        carried = first * (self.slope @ square) + second * (square @ self.slope.mT)
        return still - through_sines(carried.flatten(1), self.sines, self.inverse)
