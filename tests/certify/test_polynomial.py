"""Residual polynomials of learned solvers on linear problems, and what they promise for a class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from scipy.optimize import linprog
from tests.cells import DOUBLE, affine

from settlepoint import R2N2, Anderson, Equation, FixedSteps, Picard, certify, solve
from settlepoint.solvers.tableaus import HEUN, RK4


def drawn(stages: int, generator: torch.Generator, **options) -> R2N2:
    solver = R2N2(stages, **options)
    return solver.assign(0.5 * torch.randn(len(solver.theta), dtype=DOUBLE, generator=generator))


@pytest.mark.parametrize("layer", ["evaluation", "jvp", "forward_difference"])
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_the_polynomial_is_what_an_iteration_does(layer, stages, generator):
    """r_1 = p(A) r_0 on a symmetric problem x = x - (A x - b); forward differences to the root of the rounding unit."""
    solver = drawn(stages, generator, layer=layer)
    p = certify.residual_polynomial(solver)
    assert float(p[0]) == pytest.approx(1, abs=1e-12)
    problem = affine(generator, rows=2, width=5, low=0.1, high=0.9)
    A = torch.eye(5, dtype=DOUBLE) - problem.W
    with torch.no_grad():
        x0 = torch.zeros(2, 5, dtype=DOUBLE)
        r0 = problem.equation.residual(x0)
        r1 = problem.equation.residual(solve(problem.equation, x0, solver, FixedSteps(1)).value)
    image = sum(c * torch.matrix_power(A, k) for k, c in enumerate(p.tolist()))
    atol = 1e-6 if layer == "forward_difference" else 1e-10
    assert torch.allclose(r0 @ image.T, r1, atol=atol * (1 + float(p.abs().max())))  # type: ignore[union-attr,operator]


def test_iterations_with_weights_of_their_own_have_polynomials_of_their_own(generator):
    solver = drawn(2, generator, per_iteration=2)
    first, second = (certify.residual_polynomial(solver, k) for k in (0, 1))
    assert len(first) >= 3
    assert not torch.allclose(first[:3], second[:3])
    assert torch.allclose(second[:1], torch.ones(1, dtype=DOUBLE))
    problem = affine(generator, rows=1, width=4, low=0.3, high=0.8)
    A = torch.eye(4, dtype=DOUBLE) - problem.W
    with torch.no_grad():
        x0 = torch.zeros(1, 4, dtype=DOUBLE)
        r = [problem.equation.residual(solve(problem.equation, x0, solver, FixedSteps(k)).value) for k in (1, 2)]
    image = sum(c * torch.matrix_power(A, k) for k, c in enumerate(second.tolist()))
    assert torch.allclose(r[0] @ image.T, r[1], atol=1e-8)  # type: ignore[operator,union-attr,arg-type]


def test_picard_and_runge_kutta_by_hand():
    """One stage of weight 1: 1 - t. Heun and RK4 on r -> -A r: their stability functions at -t."""
    assert certify.residual_polynomial(R2N2(1, theta=[1.0])).tolist()[:2] == pytest.approx([1, -1])
    for tableau, order in ((HEUN, 2), (RK4, 4)):
        expected = [(-1) ** k / math.factorial(k) for k in range(order + 1)]
        found = certify.residual_polynomial(R2N2.from_tableau(tableau)).tolist()
        assert found[: order + 1] == pytest.approx(expected)
        assert found[order + 1 :] == pytest.approx([0] * len(found[order + 1 :]), abs=1e-12)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), R2N2(2, output="least_squares"), R2N2(2, carry=1), "picard"])
def test_solvers_that_have_no_polynomial(solver):
    with pytest.raises(TypeError, match="solver must be an R2N2 with fixed output weights and carry=0, got"):
        certify.residual_polynomial(solver)


@given(
    coefficients=st.lists(st.floats(-10, 10), min_size=1, max_size=8),
    low=st.floats(-2, 2),
    width=st.floats(0, 3),
)
def test_the_rate_of_a_class_is_never_below_the_polynomial(coefficients, low, width):
    """Oracle: 20,001 points, and the ends."""
    p = Polynomial(coefficients)
    grid = np.abs(p(np.linspace(low, low + width, 20_001))).max()
    found = certify.class_rate(torch.tensor(coefficients, dtype=DOUBLE), low, low + width)
    assert grid * (1 - 1e-12) <= found <= grid * (1 + 1e-4) + 1e-9


def test_the_rate_of_chebyshev_is_the_best():
    """p = T_n(affine) / T_n(affine at 0), by numpy's conversion; |p| has n + 1 maxima on [low, high], all equal."""
    for low, high, degree in ((0.1, 1.0, 3), (0.01, 1.0, 7), (-2.0, -1.0, 4)):
        t = np.polynomial.chebyshev.Chebyshev([0] * degree + [1], domain=[low, high]).convert(kind=Polynomial)
        p = torch.from_numpy((t / t(0)).coef)
        best = certify.best_rate(low, high, degree)
        assert certify.class_rate(p, low, high) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(("low", "high", "degree"), [(0.2, 1.0, 1), (0.2, 1.0, 2), (0.5, 3.0, 3)])
def test_the_best_rate_is_that_of_a_linear_programme(low, high, degree):
    """min s with |1 + sum z_k t^k| <= s on 400 points: scipy's HiGHS."""
    t = np.linspace(low, high, 400)
    powers = np.stack([t**k for k in range(1, degree + 1)], 1)
    rows = np.block([[powers, -np.ones((400, 1))], [-powers, -np.ones((400, 1))]])
    ends = np.concatenate([-np.ones(400), np.ones(400)])
    found = linprog(np.eye(degree + 1)[-1], rows, ends, bounds=[(None, None)] * (degree + 1))
    assert certify.best_rate(low, high, degree) == pytest.approx(found.fun, rel=1e-3)


def test_the_best_rate_at_its_limits():
    assert certify.best_rate(-1.0, 1.0, 5) == 1
    assert certify.best_rate(0.0, 1.0, 5) == 1
    assert certify.best_rate(0.5, 0.5, 1) == 0
    assert certify.best_rate(0.5, 1.0, 0) == 1


def test_radius_and_norm_say_two_things(generator):
    """A Jordan-like A: ||p(A)|| > 1, so that residuals grow at first, but rho < 1 and the solver converges."""
    A = torch.tensor([[0.5, 5.0], [0.0, 0.5]], dtype=DOUBLE)
    radius, norm = certify.matrix_rate(torch.tensor([1.0, -1.0]), A)
    assert radius == pytest.approx(0.5)
    assert norm == pytest.approx(float(torch.linalg.matrix_norm(torch.eye(2, dtype=DOUBLE) - A, 2)))
    assert norm > 1
    f = torch.tensor([[0.0, 1.0]], dtype=DOUBLE)
    eq = Equation(lambda x: x - (x @ A.T - f))
    x = torch.zeros(1, 2, dtype=DOUBLE)
    sizes = []
    for _ in range(100):
        sizes.append(float(eq.residual(x).norm()))  # type: ignore[union-attr]
        x = eq.image(x)
    assert sizes[1] > sizes[0]
    assert sizes[-1] < 1e-20


@given(seed=st.integers(0, 10_000), size=st.integers(1, 5), degree=st.integers(0, 4))
def test_matrix_rates_are_those_of_numpy(seed, size, degree):
    draw = np.random.default_rng(seed)
    A, c = draw.normal(size=(size, size)), draw.normal(size=degree + 1)
    P = sum(c[k] * np.linalg.matrix_power(A, k) for k in range(degree + 1))
    radius, norm = certify.matrix_rate(torch.from_numpy(c), torch.from_numpy(A))
    assert radius == pytest.approx(float(np.abs(np.linalg.eigvals(P)).max()), rel=1e-6, abs=1e-9)
    assert norm == pytest.approx(float(np.linalg.norm(P, 2)), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: certify.class_rate(torch.ones(2), 1.0, 0.0), "low and high must be finite and ordered, got 1.0 and 0"),
        (lambda: certify.class_rate(torch.ones(2), math.nan, 1.0), "low and high must be finite and ordered"),
        (lambda: certify.best_rate(2.0, 1.0, 3), "low and high must be finite and ordered, got 2.0 and 1.0"),
        (lambda: certify.best_rate(1.0, 2.0, -1), "degree must be an integer >= 0, got -1"),
    ],
)
def test_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
