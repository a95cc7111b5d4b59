"""Linear R2N2: residual polynomials of learned solvers, and what they promise for a whole class of matrices."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.r2n2 import R2N2


@torch.no_grad()
def residual_polynomial(solver: R2N2, iteration: int = 0) -> Tensor:  # (degree + 1,)
    """zeta with r_{k+1} = [I + sum_j zeta_j A^j] r_k for x = x - (A x - b), lowest power first, zeta_0 = 1 (SM4).

    solver: R2N2 with fixed weights and evaluation, jvp or forward-difference layers, which agree on linear problems.
    The polynomial is read off the solver itself, on the companion matrix of a power basis: no formula is retyped.
    Raises TypeError for solvers whose weights depend on the residual.
    """
    if not isinstance(solver, R2N2) or solver.output_layer != "weights" or solver.carry:
        raise TypeError(f"solver must be an R2N2 with fixed output weights and carry=0, got {solver!r}")
    size = solver.stages * (iteration + 1) + 2
    shift = torch.diag(torch.ones(size - 1, dtype=torch.float64), -1)  # A e_j = e_{j+1}
    first = torch.zeros(1, size, dtype=torch.float64)
    first[0, 0] = 1.0
    eq = Equation(lambda x: x - (x @ shift.T - first)).at(torch.zeros_like(first))
    exact, z = copy.deepcopy(solver).double(), torch.zeros_like(first)
    r = eq.flat(z) - z
    state, before = exact.init(eq, z, r), r
    for _ in range(iteration + 1):
        z, state, _ = exact.step(eq, z, r, state)
        before, r = r, eq.flat(z) - z
    return _quotient(r[0], before[0])


def _quotient(after: Tensor, before: Tensor) -> Tensor:
    """Coefficients of after / before as polynomials in A acting on the first basis vector."""
    if torch.equal(before, torch.eye(len(before), dtype=before.dtype)[0]):
        return after
    found = np.polydiv(np.flip(after.numpy()), np.flip(np.trim_zeros(before.numpy(), "b")))[0]
    return torch.from_numpy(np.flip(found).copy())


def class_rate(coefficients: Tensor, low: float, high: float) -> float:
    """max |p(lambda)| over [low, high], rounded up: what every residual of the class shrinks by at least.

    coefficients: of p, lowest power first. For symmetric A with spectrum in the interval, ||r_{k+1}|| <= rate ||r_k||:
    below 1 the solver converges for all right-hand sides. From the ends and the roots of p', times 1 + 1e-10; where a
    grid of m Chebyshev points disagrees, its bound max |p| / cos(pi n / (2 m)) for degree n (Ehlich and Zeller 1964).
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low and high must be finite and ordered, got {low} and {high}")
    p = np.polynomial.Polynomial(coefficients.detach().double().numpy())
    critical = _critical(p)
    inside = [t.real for t in critical if abs(t.imag) < 1e-7 * (1 + abs(t)) and low <= t.real <= high]
    found = float(max(abs(p(t)) for t in (low, high, *inside))) * (1 + 1e-10)
    count = 256 * max(1, p.degree())
    nodes = np.cos(np.pi * (2 * np.arange(count) + 1) / (2 * count))
    seen = float(np.abs(p(0.5 * (low + high) + 0.5 * (high - low) * nodes)).max())
    if len(critical) == max(0, p.degree() - 1) and found >= seen:
        return found
    return max(found, seen / math.cos(math.pi * p.degree() / (2 * count)))


def _critical(p: np.polynomial.Polynomial) -> np.ndarray:
    """The roots of p', none where they cannot be had: leading coefficients that are all but 0 overflow."""
    if p.degree() < 2:
        return np.empty(0)
    with np.errstate(all="ignore"):
        try:
            found = p.deriv().roots()
        except np.linalg.LinAlgError:
            return np.empty(0)
    return found if np.isfinite(found).all() else np.empty(0)


def matrix_rate(coefficients: Tensor, A: Tensor) -> tuple[float, float]:
    """Spectral radius and 2-norm of p(A): below 1, convergence for all right-hand sides, and monotone decrease."""
    powers = torch.eye(len(A), dtype=torch.float64)
    P = torch.zeros_like(powers)
    for c in coefficients.double().tolist():
        P, powers = P + c * powers, powers @ A.double()
    return float(torch.linalg.eigvals(P).abs().max()), float(torch.linalg.matrix_norm(P, ord=2))


def best_rate(low: float, high: float, degree: int) -> float:
    """The smallest max |p| over [low, high] of any p of that degree with p(0) = 1: 1 / T_n((high + low)/(high - low)).

    What no linear solver of so many products can beat on the class: Chebyshev's. 1 where 0 lies in the interval.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low and high must be finite and ordered, got {low} and {high}")
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 0:
        raise ValueError(f"degree must be an integer >= 0, got {degree!r}")
    if low <= 0 <= high:
        return 1.0
    if low == high:
        return 0.0
    return 1 / abs(float(chebyshev.chebval((high + low) / (high - low), [0.0] * degree + [1.0])))
