"""Linear R2N2: residual polynomials of learned solvers, and what they promise for a whole class of matrices."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from numpy.polynomial import chebyshev, polynomial
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
    """max |p(lambda)| over [low, high], rounded up: the factor by which every residual of the class shrinks at least.

    For symmetric A with spectrum in the interval, ||r_{k+1}|| <= rate ||r_k||. From m Chebyshev points, m a multiple of
    the degree n: max |p| <= max over the points / cos(pi n / (2 m)) (Ehlich and Zeller 1964). Below 1: the solver
    converges for all right-hand sides, in the 2-norm.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low and high must be finite and ordered, got {low} and {high}")
    values = coefficients.detach().double().numpy()
    degree = max(1, len(values) - 1)
    count = 32 * degree
    nodes = np.cos(np.pi * (2 * np.arange(count) + 1) / (2 * count))
    points = 0.5 * (low + high) + 0.5 * (high - low) * nodes
    largest = float(np.abs(polynomial.polyval(points, values)).max())
    return largest / math.cos(math.pi * degree / (2 * count)) * (1 + 1e-10)


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
    if low <= 0 <= high:
        return 1.0
    if low == high:
        return 0.0
    return 1 / abs(float(chebyshev.chebval((high + low) / (high - low), [0.0] * degree + [1.0])))
