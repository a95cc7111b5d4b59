"""Error estimates of learned Runge-Kutta steps: h sum_j e_j k_j over the n + 1 stages of a `Formula`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from settlepoint.compat.formula import Formula, Slope

_SHARE = 1 / 8  # of the Taylor term of order q + 1, as in Bogacki & Shampine's 3(2) pair


def estimate_order(stages: int) -> int:
    """q: an estimate of the formulas of so many stages goes like h^(q+1)."""
    return 2 if stages > 2 else 1


def embedded_weights(formula: Formula) -> np.ndarray:  # (n+1,)
    """e such that b - e is a formula of order q exactly, q = 2 for n >= 3 stages, else 1.

    sum e = sum b - 1 and sum e c = sum b c - 1/2: what a learned formula misses in low order is estimated exactly. In
    order q + 1 the estimate is k h^(q+1) y^(q+1), k = 1/8 of Taylor's coefficient or the largest defect of the formula
    itself. Shortest such e. Bogacki & Shampine's tableau gets the weights of their own pair (1989).

    Raises ValueError where the stages cannot do that.
    """
    A, b = formula.extended
    c = A.sum(1)
    conditions, wanted = [np.ones_like(c)], [b.sum() - 1]
    if estimate_order(formula.stages) == 1:
        conditions, wanted = [*conditions, c], [*wanted, max(_SHARE / 2, abs(b @ c - 1 / 2))]
    else:
        defects = abs(b @ c**2 - 1 / 3) / 2, abs(b @ A @ c - 1 / 6)
        share = max(_SHARE / 6, *defects)
        conditions, wanted = [*conditions, c, c**2, A @ c], [*wanted, b @ c - 1 / 2, 2 * share, share]
    e = np.linalg.lstsq(np.array(conditions), np.array(wanted), rcond=None)[0]
    if not np.allclose(np.array(conditions) @ e, wanted, atol=1e-9):
        raise ValueError(
            "the stages of this formula allow no embedded error estimate; give error_weights, for example those of "
            "fit_error_weights"
        )
    return e


def fit_error_weights(
    learned: Any,
    fun: Slope,
    y: Any,  # (S, m)
    h: Any,  # (S,) or a number
    *,
    t: Any = 0.0,  # (S,) or a number
    args: Sequence[Any] = (),
    cover: float = 0.9,
) -> np.ndarray:  # (n+1,)
    """Weights e for `LearnedRK(error_weights=e)`, fitted to the true errors of steps on samples.

    min sum_s |h_s sum_j e_j k_j - error_s|^2 / |error_s|^2  with  sum e = sum b - 1, sum e c = sum b c - 1/2

    and e then scaled so that a share `cover` of the samples has an estimate at least as large as its error. The two
    conditions keep the estimate right for steps smaller than those sampled. Sample where the integration will go:
    points y, steps h, times t, and args, one entry a sample, for fun(t, y, *args). errors: against
    scipy.integrate.solve_ivp (DOP853, rtol 1e-12).
    """
    if not 0 < cover < 1:
        raise ValueError(f"cover must lie in (0, 1), got {cover}")
    formula = Formula.of(learned)
    y = np.asarray(y)
    if y.ndim != 2 or not len(y):
        raise ValueError(f"y must have shape (S, m) with S >= 1 samples, got {y.shape}")
    h, t = (np.broadcast_to(np.asarray(v, dtype=float), len(y)) for v in (h, t))
    pairs = [_sampled(formula, fun, *case) for case in zip(t, y, h, _each(args, len(y)), strict=True)]
    pairs = [(k / size, error / size) for k, error in pairs if 0 < (size := np.linalg.norm(error)) < np.inf]
    if not pairs:
        raise ValueError(f"fun gave no finite error other than zero on the {len(y)} samples")
    e = _least_squares(formula, np.concatenate([k.T for k, _ in pairs]), np.concatenate([error for _, error in pairs]))
    reached = np.quantile([np.linalg.norm(e @ k) for k, _ in pairs], 1 - cover)
    return e / reached if reached > 0 else e


def _sampled(
    formula: Formula, fun: Slope, t: float, y: np.ndarray, h: float, args: tuple
) -> tuple[np.ndarray, np.ndarray]:
    """h k (n+1, m) and the error (m,) of one step; NaN where it or its reference fails."""
    slope = lambda t, y: np.asarray(fun(t, y, *args))  # noqa: E731
    y_new, k = formula.step(slope, t, y, h, slope(t, y))
    lost = np.full_like(y_new, np.nan)
    if not np.isfinite(k).all():
        return h * k, lost
    exact = solve_ivp(slope, (t, t + h), y, "DOP853", rtol=1e-12, atol=1e-13)
    return h * k, y_new - exact.y[:, -1] if exact.success else lost


def _least_squares(formula: Formula, x: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """min |x e - errors| under the conditions of order 1 and 2."""
    A, b = formula.extended
    c = A.sum(1)
    conditions = np.array([np.ones_like(c), c])
    start = np.linalg.lstsq(conditions, np.array([b.sum() - 1, b @ c - 1 / 2]), rcond=None)[0]
    free = np.linalg.svd(conditions)[2][np.linalg.matrix_rank(conditions) :].T
    system, rest = x @ free, errors - x @ start
    system, rest = (np.concatenate((np.real(v), np.imag(v))) for v in (system, rest))
    return start + free @ np.linalg.lstsq(system, rest, rcond=None)[0]


def _each(args: Sequence[Any], count: int) -> list[tuple]:
    """args as one tuple a sample."""
    for a in args:
        if len(a) != count:
            raise ValueError(f"args must have one entry for each of the {count} samples, got {len(a)}")
    return [tuple(a[s] for a in args) for s in range(count)]
