"""Very many small nonlinear systems of one narrow class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family, verified
from settlepoint.problems.sampling import Range, check_count, check_range, check_sampling, normal, uniform

CHUNK = 4096


@dataclass(frozen=True)
class SmallSystems(Family):
    """x = b + g K s(x) with s(x) = x / sqrt(1 + x^2), from x0 = b: a Hammerstein equation
    x(t) = b(t) + g int k(t, u) s(x(u)) du on m points.

    The class is narrow: one kernel K[i, j] ~ exp(-|i - j| / (reach m)), scaled to spectral norm 1, and one nonlinearity
    for all; problems differ in the gain g, drawn from the range rate, and in b ~ N(0, spread^2)^m. One product of
    matrices serves all rows. P contracts at rate <= g. parameters: g (n,), b (n, m).
    """

    m: int = 20
    rate: Range = (0.8, 0.9)
    reach: float = 1.0
    spread: float = 0.3

    name = "small"

    def __post_init__(self):
        check_count("m", self.m)
        check_range("rate", self.rate, above=0.0)
        for key in ("reach", "spread"):
            check_range(key, (getattr(self, key), getattr(self, key)), above=0.0)
        if self.rate[1] >= 1:
            raise ValueError(f"rate must lie below 1, where P contracts, got {self.rate!r}")

    @property
    def kernel(self) -> Tensor:  # (m, m)
        """K, symmetric and positive definite, with eigenvalues in (0, 1]."""
        i = torch.arange(self.m, dtype=torch.float64)
        K = torch.exp(-(i[:, None] - i).abs() / (self.reach * self.m))
        return K / torch.linalg.matrix_norm(K, ord=2)

    @property
    def interval(self) -> tuple[float, float]:
        """(0, largest g): P' = g K diag(s') is similar to a symmetric matrix, and 0 < s' <= 1."""
        return 0.0, self.rate[1]

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        g, b = uniform(self.rate, (n,), generator), self.spread * normal((n, self.m), generator)
        return Batch(b, {"g": g, "b": b})

    def equation(self, batch: Batch) -> Equation:
        g, b = batch.parameters["g"], batch.parameters["b"]
        return Equation(_Image(self.kernel.to(batch.x0)), context=(g[:, None], b))

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """By Newton's method with numpy.linalg.solve on blocks of rows, checked as in `Family.reference`."""
        exact, K = batch.to(torch.float64, "cpu"), self.kernel.numpy()
        g, b = exact.parameters["g"].numpy(), exact.parameters["b"].numpy()
        blocks = [_solved(K, g[i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, len(b), CHUNK)]
        return verified(self.equation(exact), torch.from_numpy(np.concatenate(blocks))).to(batch.x0)


def _solved(K: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, eye = b, np.eye(len(K))
    for _ in range(50):
        w = 1 / np.sqrt(1 + x * x)
        F = x - b - g[:, None] * ((x * w) @ K)
        J = eye - g[:, None, None] * K * (w**3)[:, None]
        dx = np.linalg.solve(J, F[:, :, None])[:, :, 0]
        x = x - dx
        if np.abs(dx).max() <= 1e-13 * (1 + np.abs(x).max()):
            break
    return x


@dataclass(frozen=True, eq=False)
class _Image:
    """P(x) = b + g K s(x), with g and b as context."""

    K: Tensor

    def __call__(self, x: Tensor, g: Tensor, b: Tensor) -> Tensor:
        return torch.addcmul(b, g, (x * torch.rsqrt(1 + x * x)) @ self.K)
