"""The random matrices of the R2N2 supplement, as its text describes them.

The printed matrices (`MATRICES`) show that the text is not quite what was run: the negative entries of A8 to A11 cannot
come from M M^T with M >= 0, and A14, A16, A18 are affine in sigma to the last digit printed, as fresh draws are not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from settlepoint.problems.sampling import normal, uniform

DIAGONAL = (1.0, 0.75, 0.5, 0.1, 0.1)
SHIFTED = (0.5, 0.4, 0.3, 0.2, 0.1)


def normal_products(generator: torch.Generator, variance: float = 0.1) -> Tensor:  # (5, 5)
    """M^T M + diag(1, 0.75, 0.5, 0.1, 0.1), M_ij ~ N(0, variance): A1 to A3; A12 to A19 with 0.3, 0.5, 0.7, 1.

    0.1 is read as a variance: the diagonals of A1, A2, A3 exceed diag(...) by 0.51, 0.53, 0.39 on average, and
    5 * 0.1 is what it gives.

        >>> import torch
        >>> A = normal_products(torch.Generator().manual_seed(0))
        >>> bool((torch.linalg.eigvalsh(A) > 0).all())
        True
    """
    _check_positive("variance", variance)
    M = math.sqrt(variance) * normal((5, 5), generator)
    return M.mT @ M + torch.diag(torch.tensor(DIAGONAL, dtype=M.dtype))


def shifted(A: Tensor, s: float) -> Tensor:  # (5, 5)
    """A + s diag(0.5, 0.4, 0.3, 0.2, 0.1): A4 to A7 from A1 with s = -1, 0.5, 1.3, 2.5."""
    if tuple(A.shape) != (5, 5):
        raise ValueError(f"A must have shape (5, 5), got {tuple(A.shape)}")
    return A + s * torch.diag(torch.tensor(SHIFTED, dtype=A.dtype))


def uniform_products(generator: torch.Generator, largest: float = 5.0) -> Tensor:  # (5, 5)
    """M M^T, M_ij ~ U(0, s), s ~ U(0, largest): A8 to A11."""
    _check_positive("largest", largest)
    s = float(uniform((0.0, largest), (), generator))
    M = uniform((0.0, s), (5, 5), generator)
    return M @ M.mT


def right_side(generator: torch.Generator, deviation: float = 5.0) -> Tensor:  # (5,)
    """b~ ~ N(0, deviation^2 I). The text says N(0, 5 I); the printed values are 5 N(0, I), from NumPy's seed 42."""
    _check_positive("deviation", deviation)
    return deviation * normal((5,), generator)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
