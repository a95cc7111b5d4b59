"""`LearnedRK`: learned Runge-Kutta steps of adaptive size, as a method of scipy.integrate.solve_ivp."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.integrate import DenseOutput, OdeSolver

from settlepoint.compat.error_weights import embedded_weights, estimate_order
from settlepoint.compat.formula import Formula, floats

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0  # of SciPy's own Runge-Kutta methods
_LEAST_RTOL = 100 * np.finfo(float).eps


class LearnedRK(OdeSolver):
    """solve_ivp(fun, t_span, y0, method=LearnedRK, learned=solver, ...): an explicit learned formula, step by step.

    learned: an R2N2 trained on initial-value problems, a `Tableau`, or a pair (A, b). rtol, atol, max_step, first_step
    and vectorized as of SciPy's RK23, whose step control this is: with Bogacki & Shampine's tableau the very same.

    error_weights: (n+1,), from `fit_error_weights`; by default those of `embedded_weights`. A learned formula is fitted
    to the steps it was trained on: keep max_step to them. Its order conditions hold only approximately, so its global
    error does not fall with rtol below a floor of its own. Dense output is the cubic Hermite polynomial.

        >>> from scipy.integrate import solve_ivp
        >>> from settlepoint.solvers.tableaus import KUTTA3
        >>> found = solve_ivp(lambda t, y: -y, (0, 1), [1.0], method=LearnedRK, learned=KUTTA3, rtol=1e-6)
        >>> found.success, found.y[0, -1].round(5).item()
        (True, 0.36788)
    """

    def __init__(
        self,
        fun,
        t0,
        y0,
        t_bound,
        max_step=np.inf,
        rtol=1e-3,
        atol=1e-6,
        vectorized=False,
        first_step=None,
        learned: Any = None,
        error_weights: Any = None,
        **extraneous,
    ):
        if extraneous:  # what SciPy asks of every OdeSolver, so that methods can be exchanged
            warnings.warn(f"LearnedRK does not use these arguments: {', '.join(extraneous)}", stacklevel=3)
        if learned is None:
            raise ValueError("learned must be given: solve_ivp(..., method=LearnedRK, learned=solver), got None")
        super().__init__(fun, t0, y0, t_bound, vectorized, support_complex=True)
        self.formula = Formula.of(learned)
        self.error_weights = _checked_weights(error_weights, self.formula)
        self.exponent = -1 / (estimate_order(self.formula.stages) + 1)
        self.max_step = _positive("max_step", max_step)
        self.rtol, self.atol = _tolerances(rtol, atol, self.n)
        self.k0 = self.fun(self.t, self.y)
        self.size = self._first_size() if first_step is None else _positive("first_step", first_step)
        if first_step is not None and first_step > abs(t_bound - t0):
            raise ValueError(f"first_step must not exceed the interval of {abs(t_bound - t0)}, got {first_step}")
        self.y_old, self.k_old = self.y, self.k0

    def _step_impl(self) -> tuple[bool, str | None]:
        least = 10 * abs(np.nextafter(self.t, self.direction * np.inf) - self.t)
        size, rejected = min(max(self.size, least), self.max_step), False
        while size >= least:
            t = self.t + self.direction * size
            if self.direction * (t - self.t_bound) > 0:
                t = self.t_bound
            h = t - self.t
            y, k = self.formula.step(self.fun, self.t, self.y, h, self.k0)
            error = self._error(y, k, h)
            if error < 1:
                self._accept(t, y, k[-1], abs(h) * self._factor(error, 1.0 if rejected else _GROW))
                return True, None
            size, rejected = abs(h) * self._factor(error, 1.0), True
        return False, self.TOO_SMALL_STEP

    def _error(self, y: np.ndarray, k: np.ndarray, h: float) -> float:
        """Root mean square of the estimate in units of the tolerance; inf when something is not finite."""
        scale = self.atol + np.maximum(abs(self.y), abs(y)) * self.rtol
        error = _rms(h * (self.error_weights @ k) / scale)
        return error if np.isfinite(error) and np.isfinite(y).all() else np.inf

    def _factor(self, error: float, most: float) -> float:
        """By how much the next step is longer."""
        return most if error == 0 else min(most, max(_SHRINK, _SAFETY * error**self.exponent))

    def _accept(self, t: float, y: np.ndarray, k0: np.ndarray, size: float) -> None:
        self.y_old, self.k_old = self.y, self.k0
        self.t, self.y, self.k0, self.size = t, y, k0, size

    def _dense_output_impl(self) -> DenseOutput:
        return _Hermite(self.t_old, self.t, self.y_old, self.y, self.k_old, self.k0)

    def _first_size(self) -> float:
        """A first step size by Hairer, Norsett & Wanner, II.4; one evaluation."""
        length = abs(self.t_bound - self.t)
        if not (self.n and length):
            return length
        scale = self.atol + abs(self.y) * self.rtol
        d0, d1 = _rms(self.y / scale), _rms(self.k0 / scale)
        h0 = min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, length)
        ahead = self.fun(self.t + h0 * self.direction, self.y + h0 * self.direction * self.k0)
        d2 = _rms((ahead - self.k0) / scale) / h0
        flat = d1 <= 1e-15 and d2 <= 1e-15
        h1 = max(1e-6, h0 * 1e-3) if flat else (0.01 / max(d1, d2)) ** -self.exponent
        return min(100 * h0, h1, length, self.max_step)


class _Hermite(DenseOutput):
    """The cubic polynomial with the values and slopes of both ends."""

    def __init__(self, t_old, t, y_old: np.ndarray, y: np.ndarray, k_old: np.ndarray, k: np.ndarray):
        super().__init__(t_old, t)
        h, rise = t - t_old, y - y_old
        self.h = h
        self.parts = y_old, h * k_old, 3 * rise - h * (2 * k_old + k), h * (k_old + k) - 2 * rise

    def _call_impl(self, t: np.ndarray) -> np.ndarray:
        x = (t - self.t_old) / self.h
        p0, p1, p2, p3 = (p if t.ndim == 0 else p[:, None] for p in self.parts)
        return p0 + x * (p1 + x * (p2 + x * p3))


def _rms(x: np.ndarray) -> float:
    return float(np.linalg.norm(x) / x.size**0.5)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value


def _tolerances(rtol, atol, n: int) -> tuple[Any, np.ndarray]:
    if np.any(np.asarray(rtol) < _LEAST_RTOL):
        warnings.warn(f"rtol is raised to {_LEAST_RTOL:.2g}, below which rounding decides, from {rtol}", stacklevel=4)
    atol = np.asarray(atol)
    if atol.ndim > 0 and atol.shape != (n,):
        raise ValueError(f"atol must be a number or have shape ({n},), got {atol.shape}")
    if np.any(atol < 0):
        raise ValueError(f"atol must be >= 0, got {atol}")
    return np.maximum(rtol, _LEAST_RTOL), atol


def _checked_weights(weights: Any, formula: Formula) -> np.ndarray:
    if weights is None:
        return embedded_weights(formula)
    weights = floats(weights)
    if weights.shape != (formula.stages + 1,) or not np.isfinite(weights).all():
        raise ValueError(
            f"error_weights must be {formula.stages + 1} finite numbers, one a stage and one more, got {weights}"
        )
    return weights
