"""Leading eigenvectors."""

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
class Eigenvector(Family):
    """The leading eigenvector of a symmetric positive definite A, by the power method: P(x) = A x / |A x|.

    (R2N2, SM6.1)

    m: unknowns. ratio: range of the second eigenvalue, where the first is 1; the others are uniform below the second.
    Eigenvectors are random. x0: a random direction of length 1, whose side of the plane the solution keeps.
    parameters: A (n, m, m). At the solution P' is symmetric, with eigenvalues from 0 to the ratio.

    Every eigenvector of length 1 is a fixed point; only the leading one attracts the power method. A solver that is not
    a contraction may settle on another: compare with `reference`.
    """

    m: int = 10
    ratio: Range = (0.5, 0.9)

    name = "eigenvector"

    def __post_init__(self):
        check_count("m", self.m, 2)
        check_range("ratio", self.ratio, above=0.0)
        if self.ratio[1] >= 1:
            raise ValueError(f"ratio must lie below 1, where there is one leading eigenvector, got {self.ratio!r}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        second = uniform(self.ratio, (n, 1), generator)
        others = second * uniform((0.05, 1.0), (n, self.m - 2), generator)
        Q, _ = torch.linalg.qr(normal((n, self.m, self.m), generator))
        A = (Q * torch.cat((torch.ones_like(second), second, others), 1)[:, None]) @ Q.mT
        start = normal((n, self.m), generator)
        return Batch(start / torch.linalg.vector_norm(start, dim=1, keepdim=True), {"A": (A + A.mT) / 2})

    def equation(self, batch: Batch) -> Equation:
        return Equation(_power, context=(batch.parameters["A"],))

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """By scipy.linalg.eigh, on the side of x0, checked as in `Family.reference`."""
        exact, last = batch.to(torch.float64, "cpu"), self.m - 1
        matrices = exact.parameters["A"].numpy()
        rows = [scipy.linalg.eigh(A, subset_by_index=(last, last))[1][:, 0] for A in matrices]
        x = torch.from_numpy(np.stack(rows))
        x = torch.where((x * exact.x0).sum(1, keepdim=True) < 0, -x, x)
        return verified(self.equation(exact), x).to(batch.x0)


def _power(x: Tensor, A: Tensor) -> Tensor:
    y = (A @ x[:, :, None])[:, :, 0]
    return y / (y * y).sum(1, keepdim=True).sqrt()
