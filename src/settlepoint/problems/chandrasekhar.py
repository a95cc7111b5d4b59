"""Chandrasekhar's H-equation, discretised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family
from settlepoint.problems.sampling import check_count, check_sampling, normal


@dataclass(frozen=True)
class Chandrasekhar(Family):
    """x_j = 1 / (1 - (A_c x)_j),  A_c[j, i] = c mu_j / (2 m (mu_j + mu_i)),  mu_i = (i - 1/2) / m    (R2N2, Sec. 4.2)

    m: numbers of unknowns, c: albedos; the problems cycle through all pairs of them. mean, variance: of the normal
    starting points. Widths are padded to the largest m by entries that start at 0 and stay: their residual is 0, so
    that norms are those of the true size. parameters: c (n,), m (n,).

    There are other solutions than the one of physics, which is the reference. Picard finds that one from starts around
    1 and around 5; faster methods started around 5 may settle on another.
    """

    m: int | tuple[int, ...] = (10, 20)
    c: float | tuple[float, ...] = (0.875, 0.905, 0.935)
    mean: float = 1.0
    variance: float = 0.2

    name = "chandrasekhar"

    def __post_init__(self):
        for size in self.sizes:
            check_count("m", size)
        if not self.sizes or not self.albedos:
            raise ValueError(f"m and c must not be empty, got {self.m!r} and {self.c!r}")
        if not all(0 < c <= 1 for c in self.albedos):
            raise ValueError(f"c must lie in (0, 1], where the equation has a real solution, got {self.c!r}")
        if not (0 <= self.variance < math.inf and math.isfinite(self.mean)):
            raise ValueError(f"mean must be finite and variance >= 0, got {self.mean!r} and {self.variance!r}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """m as a tuple."""
        return self.m if isinstance(self.m, tuple) else (self.m,)

    @property
    def albedos(self) -> tuple[float, ...]:
        """c as a tuple."""
        return self.c if isinstance(self.c, tuple) else (self.c,)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        pairs = [(m, c) for m in self.sizes for c in self.albedos]
        table = torch.tensor([pairs[i % len(pairs)] for i in range(n)], dtype=torch.float64)
        m, c = table[:, 0], table[:, 1]
        x = self.mean + math.sqrt(self.variance) * normal((n, max(self.sizes)), generator)
        return Batch(torch.where(_within(m, x.shape[1]), x, 0.0), {"c": c, "m": m})

    def equation(self, batch: Batch) -> Equation:
        m, c, width = batch.parameters["m"], batch.parameters["c"], batch.x0.shape[1]
        sizes = torch.unique(m).tolist()
        kernels = tuple(_kernel(int(size), width).mT.to(batch.x0) for size in sizes)
        chosen = tuple((m == size)[:, None] for size in sizes[1:])
        if sizes == [width]:
            return Equation(_Image(kernels[0]), context=(c[:, None],))
        return Equation(_PaddedImage(kernels), context=(c[:, None], _within(m, width), *chosen))

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """The solution that iteration from 1 finds (H >= 1, the smallest one), to 1e-10 as in `Family.reference`.

        One scipy.optimize.root for each pair of m and c.
        """
        problems = torch.stack((batch.parameters["m"], batch.parameters["c"]), 1)
        distinct, which = torch.unique(problems, dim=0, return_inverse=True)
        m, c = distinct[:, 0], distinct[:, 1]
        ones = torch.where(_within(m, batch.x0.shape[1]), torch.ones_like(batch.x0[:1]), 0.0)
        return super().reference(Batch(ones, {"c": c, "m": m}))[which]


def _within(m: Tensor, width: int) -> Tensor:  # (n, width)
    """True at the unknowns, False at the padding."""
    return torch.arange(width, device=m.device) < m[:, None]


def _kernel(m: int, width: int) -> Tensor:  # (width, width)
    """A_c / c, with zeros around it."""
    mu = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    kernel = mu[:, None] / (2 * m * (mu[:, None] + mu))
    return torch.nn.functional.pad(kernel, (0, width - m, 0, width - m))


@dataclass(frozen=True, eq=False)
class _Image:
    """P for rows of one size: kernel (m, m) is the transposed A_c / c, c (R, 1) context."""

    kernel: Tensor

    def __call__(self, x: Tensor, c: Tensor) -> Tensor:
        return 1 / (1 - c * (x @ self.kernel))


@dataclass(frozen=True, eq=False)
class _PaddedImage:
    """P for rows of several sizes, padded to the largest.

    kernels: the transposed A_c / c of every size. chosen: (R, 1), the rows of each size but the first. All kernels are
    applied to all rows, a plain product each: for two sizes, 702 rows, 12 starts and 12 tangents this takes 30 ms where
    one matrix a row takes 215 ms.
    """

    kernels: tuple[Tensor, ...]

    def __call__(self, x: Tensor, c: Tensor, within: Tensor, *chosen: Tensor) -> Tensor:
        y = x @ self.kernels[0]
        for kernel, rows in zip(self.kernels[1:], chosen, strict=True):
            y = torch.where(rows, x @ kernel, y)
        return torch.where(within, 1 / (1 - c * y), x)
