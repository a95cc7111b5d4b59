"""The unit square with zero boundary values on a grid of size x size inner points, and its sine transform."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Inner points (i h, j h), i, j = 1 ... size, h = 1 / (size + 1); functions on it are rows (R, size^2).

    Laplacian: five-point. Its eigenvectors are products of sines, so that functions of it cost four dense products:
    g(-Laplacian) u = S (g(L) * (S U S)) S with the orthogonal, symmetric S of `sines`.
    """

    size: int

    @property
    def spacing(self) -> float:
        """h."""
        return 1 / (self.size + 1)

    @property
    def sines(self) -> Tensor:  # (size, size)
        """S[i, j] = sqrt(2 h) sin(pi i j h)."""
        i = torch.arange(1, self.size + 1, dtype=torch.float64)
        return math.sqrt(2 * self.spacing) * torch.sin(math.pi * self.spacing * (i[:, None] * i))

    @property
    def eigenvalues(self) -> Tensor:  # (size, size)
        """L[i, j], of -Laplacian: (4 / h^2) (sin^2(pi i h / 2) + sin^2(pi j h / 2))."""
        i = torch.arange(1, self.size + 1, dtype=torch.float64)
        line = (2 / self.spacing * torch.sin(math.pi * self.spacing / 2 * i)) ** 2
        return line[:, None] + line

    @property
    def slope(self) -> Tensor:  # (size, size)
        """Central first differences along a line of the grid."""
        ones = torch.ones(self.size - 1, dtype=torch.float64)
        return (torch.diag(ones, 1) - torch.diag(ones, -1)) / (2 * self.spacing)

    def laplacian(self) -> Any:
        """-Laplacian as a sparse array of SciPy, (size^2, size^2)."""
        line = self._line(-1.0, 2.0, -1.0) / self.spacing**2
        return self._sum(line, line)

    def advection(self, first: float, second: float) -> Any:
        """first d/dx + second d/dy by central differences, as a sparse array of SciPy."""
        line = self._line(-1.0, 0.0, 1.0) / (2 * self.spacing)
        return self._sum(first * line, second * line)

    def _line(self, *stencil: float) -> Any:
        return sp.csc_array(sp.diags(stencil, (-1, 0, 1), (self.size, self.size)))  # type: ignore[arg-type]

    def _sum(self, first: Any, second: Any) -> Any:
        eye = sp.csc_array(sp.eye(self.size))
        return sp.csc_array(sp.kron(first, eye) + sp.kron(eye, second))

    def modes(self, weights: Tensor) -> Tensor:  # (n, k, k) -> (n, size^2)
        """sum_ij w_ij sin(pi i x) sin(pi j y) on the grid."""
        low = self.sines[:, : weights.shape[1]] / math.sqrt(2 * self.spacing)
        return (low @ weights @ low.mT).flatten(1)


def through_sines(u: Tensor, sines: Tensor, factor: Tensor) -> Tensor:  # (R, size^2)
    """g(-Laplacian) u with factor g(L), (size, size) or (R, size, size)."""
    square = u.unflatten(1, sines.shape)
    return (sines @ (factor * (sines @ square @ sines)) @ sines).flatten(1)
