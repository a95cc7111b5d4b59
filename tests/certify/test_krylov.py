"""Estimates for any number of unknowns: twice the next Newton step, and never a proof."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE, affine, rotation
from tests.certify.equations import away, iterated, newton, tanh_cells

from settlepoint import Equation, certify


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), high=st.floats(0.1, 0.999), size=st.floats(-10, 3))
def test_on_linear_problems_it_is_twice_the_error(seed, high, size):
    """The Newton step is the error itself; 12 unknowns, so that GMRES ends."""
    generator = torch.Generator().manual_seed(seed)
    problem = affine(generator, low=-high, high=high)
    x = away(problem.answer, 10.0**size, generator)
    found = certify.newton_krylov(problem.equation, x)
    assert found.counts() == {"estimated": 6}
    error = problem.error(x)
    assert bool((error <= found.radius).all())
    assert bool((found.radius <= 3 * error + 1e-9).all())


def test_it_never_says_proved(generator):
    eq, x = tanh_cells(generator)
    found = certify.certificate(eq, x, "newton-krylov")
    assert found.counts() == {"estimated": 5}
    assert not found.unique_in.any()
    assert "no proof" in found.reason[0]
    assert set(found.method) == {"newton-krylov"}


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-8, 0.0])
def test_near_the_fixed_point_it_covers_the_error(size, generator):
    """And at the end of a solve too, where the residual is rounding."""
    eq, x = tanh_cells(generator, gain=1.0)
    fixed = newton(eq, x)
    at = away(fixed, size, generator)
    found = certify.newton_krylov(eq, at)
    assert found.counts() == {"estimated": 5}
    assert bool(((at - fixed).norm(dim=1) <= found.radius).all())
    assert bool((found.radius <= 3 * size + 1e-9).all())


def test_thousands_of_unknowns(generator):
    """x = .5 roll(x) + f: a rotation of 3,000 entries, solved for by a geometric series."""
    f = torch.randn(2, 3000, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: 0.5 * torch.roll(x, 1, 1), f)
    x = iterated(eq, f, 100)
    at = away(x, 1e-3, generator)
    found = certify.newton_krylov(eq, at)
    assert found.counts() == {"estimated": 2}
    assert bool(((at - x).norm(dim=1) <= found.radius).all())


@pytest.mark.parametrize("width", [1, 4, 9])
def test_spaces_that_end_early_are_enough(width):
    """J = .5: the first product solves, and there is no second direction."""
    found = certify.newton_krylov(Equation(lambda x: 0.5 * x + 1), torch.zeros(1, width, dtype=DOUBLE))
    assert found.counts() == {"estimated": 1}
    assert 2 * math.sqrt(width) <= float(found.radius) <= 4.1 * math.sqrt(width)


def test_rotations_that_do_not_contract_have_fixed_points_too():
    found = certify.newton_krylov(Equation(lambda x: rotation(1.5)(x - 1) + 1), torch.zeros(1, 2, dtype=DOUBLE))
    assert found.counts() == {"estimated": 1}
    assert math.sqrt(2) <= float(found.radius) <= 3
    assert float(found.rate) == pytest.approx(1.5, rel=1e-3)


def test_too_few_products_are_refused(generator):
    problem = affine(generator, width=40, low=-0.999, high=0.999)
    found = certify.newton_krylov(problem.equation, torch.zeros(6, 40, dtype=DOUBLE), steps=2)
    assert found.counts() == {"refused": 6}
    assert "2 products with the Jacobian did not solve" in found.reason[0]


def test_singular_equations_are_refused():
    """x = x + .1 has no Newton step."""
    found = certify.newton_krylov(Equation(lambda x: x + 0.1), torch.zeros(2, 3, dtype=DOUBLE))
    assert found.counts() == {"refused": 2}


def test_rows_that_are_not_finite_leave_the_others_alone(generator):
    problem = affine(generator, rows=3, width=4)
    x = problem.answer.clone() + 0.1
    x[1, 0] = math.nan
    found = certify.newton_krylov(problem.equation, x)
    assert found.kind == ("estimated", "refused", "estimated")


def test_complex_states_have_real_rows():
    """x = .5 i x + 1 - .5 i has the fixed point 1."""
    eq = Equation(lambda x: 0.5j * x + (1 - 0.5j))
    found = certify.newton_krylov(eq, torch.zeros(1, 2, dtype=torch.complex128))
    assert found.counts() == {"estimated": 1}
    assert math.sqrt(2) <= float(found.radius) <= 3
