"""Neumann series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family, verified
from settlepoint.problems.sampling import Range, check_count, check_range, check_sampling, normal, uniform


@dataclass(frozen=True)
class NeumannSeries(Family):
    """(I - B) x = b with its own B in every problem, P(x) = B x + b, from x0 = 0: Picard sums B^k b.

    (R2N2, SM6.1)

    m: unknowns. norm: range of the spectral norm of B, a matrix of normal entries scaled to it. b ~ N(0, 1)^m.
    parameters: B (n, m, m), b (n, m).
    """

    m: int = 10
    norm: Range = (0.5, 0.95)

    name = "neumann"

    def __post_init__(self):
        check_count("m", self.m)
        check_range("norm", self.norm, above=0.0)
        if self.norm[1] >= 1:
            raise ValueError(f"norm must lie below 1, where the series converges, got {self.norm!r}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        norm, B = uniform(self.norm, (n,), generator), normal((n, self.m, self.m), generator)
        B = B * (norm / torch.linalg.matrix_norm(B, ord=2))[:, None, None]
        b = normal((n, self.m), generator)
        return Batch(torch.zeros_like(b), {"B": B, "b": b})

    def equation(self, batch: Batch) -> Equation:
        return Equation(_affine, context=(batch.parameters["B"], batch.parameters["b"]))

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """By scipy.linalg.solve, row by row, checked as in `Family.reference`."""
        exact, eye = batch.to(torch.float64, "cpu"), np.eye(self.m)
        pairs = zip(exact.parameters["B"].numpy(), exact.parameters["b"].numpy(), strict=True)
        rows = [scipy.linalg.solve(eye - B, b) for B, b in pairs]
        return verified(self.equation(exact), torch.from_numpy(np.stack(rows))).to(batch.x0)


def _affine(x: Tensor, B: Tensor, b: Tensor) -> Tensor:
    return (B @ x[:, :, None])[:, :, 0] + b
