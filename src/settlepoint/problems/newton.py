"""Newton's method with sparse LU, for references."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse.linalg import splu

Vector = np.ndarray

TOLERANCE = 1e-12


def newton(residual: Callable[[Vector], Vector], jacobian: Callable[[Vector], Any], x0: Vector) -> Vector:
    """x with residual(x) = 0, or NaN.

    Stops at a step of max|dx| <= 1e-12 (1 + max|x|), or where rounding keeps a step below 1e-8 of that size from
    halving.
    """
    x, before = x0, np.inf
    with np.errstate(all="ignore"):
        for _ in range(50):
            try:
                dx = splu(jacobian(x)).solve(residual(x))
            except RuntimeError:  # an exactly singular Jacobian
                break
            x = x - dx
            step = np.max(np.abs(dx)) / (1 + np.max(np.abs(x)))
            if not np.isfinite(step):
                break
            if step <= TOLERANCE or (step <= 1e-8 and step > before / 2):
                return x
            before = step
    return np.full_like(x0, np.nan)
