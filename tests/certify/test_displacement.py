"""Maps without a fixed point: how far the nearest one must be, and where the iterates drift."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cells import DOUBLE, affine, factors

from settlepoint import Equation, certify
from settlepoint.certify import Refused


@given(seed=st.integers(0, 10_000), rate=st.floats(0.1, 3.0), far=st.floats(1e-9, 1e6))
def test_no_fixed_point_is_inside(seed, rate, far):
    """x = -rate Q x + f with Q orthogonal, where ||P(x) - x|| <= (1 + rate) ||x - x*||."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(4, 4, dtype=DOUBLE, generator=generator))[0]
    f = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
    fixed = torch.linalg.solve(torch.eye(4, dtype=DOUBLE) + rate * Q.T, f.T).T
    eq = Equation(lambda x: -rate * (x @ Q), f)
    x = fixed + far * torch.randn(3, 4, dtype=DOUBLE, generator=generator)
    assert bool((certify.exclusion_radius(eq, x) <= (x - fixed).norm(dim=1)).all())


def test_the_exclusion_is_sharp_for_a_reflection():
    """x = -x/2: ||P(x) - x|| = 1.5 ||x||, and L = .5."""
    x = torch.tensor([[3.0, 4.0]], dtype=DOUBLE)
    assert float(certify.exclusion_radius(Equation(lambda x: -0.5 * x), x)) == pytest.approx(5, rel=1e-9)
    assert float(certify.exclusion_radius(Equation(lambda x: -0.5 * x), x, bound=0.5)) == pytest.approx(5, rel=1e-9)


def test_at_a_fixed_point_nothing_is_excluded():
    eq, answer = factors([0.5, 0.9])
    assert torch.equal(certify.exclusion_radius(eq, answer.clone()), torch.zeros(2, dtype=DOUBLE))


def test_without_a_constant_nothing_is_excluded():
    with pytest.raises(Refused, match="no constant"):
        certify.exclusion_radius(Equation(lambda x: x.square()), torch.full((1, 1), 3.0, dtype=DOUBLE))
    for bad in (-2.0, math.nan):
        with pytest.raises(ValueError, match="bound must be >= 0, got"):
            certify.exclusion_radius(Equation(torch.square), torch.ones(1, 1, dtype=DOUBLE), bad)


def test_a_translation_is_its_own_displacement():
    v = torch.tensor([[3.0, -4.0], [1e-3, 0.0]], dtype=DOUBLE)
    found = certify.displacement(Equation(lambda x: x + v), torch.zeros(2, 2, dtype=DOUBLE), 400)
    assert torch.allclose(found.vector, v, rtol=0.01)  # type: ignore[arg-type]
    assert torch.allclose(found.size, torch.tensor([5.0, 1e-3], dtype=DOUBLE), rtol=0.01)
    assert found.moved.tolist() == [True, True]
    assert found.steps == 400


def test_a_screw_drifts_along_its_axis():
    """A rotation about the third axis, and a step of .1 along it: the smallest ||P(x) - x|| is .1, on the axis."""
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=DOUBLE)
    step = torch.tensor([1.0, 0.0, 0.1], dtype=DOUBLE)
    found = certify.displacement(Equation(lambda x: x @ turn.T + step), torch.ones(1, 3, dtype=DOUBLE), 2000)
    assert float(found.size) == pytest.approx(0.1, rel=0.05)
    assert bool(found.moved.all())


@pytest.mark.parametrize("steps", [200, 1000])
def test_a_fixed_point_is_not_taken_for_a_drift(steps, generator):
    """The estimate falls like 1 / k once k is beyond 1 / (1 - rate)."""
    problem = affine(generator, low=-1.0, high=0.9)
    found = certify.displacement(problem.equation, torch.zeros(6, 12, dtype=DOUBLE), steps)
    assert not found.moved.any()
    assert bool((found.size <= 2 * problem.answer.norm(dim=1) * 3 / steps).all())
    still = certify.displacement(Equation(lambda x: x), torch.ones(2, 3, dtype=DOUBLE), steps)
    assert not still.moved.any()
    assert torch.equal(still.size, torch.zeros(2, dtype=DOUBLE))


@pytest.mark.parametrize("steps", [3, 0, -1, 10.0, True])
def test_steps_are_counted(steps):
    with pytest.raises(ValueError, match="steps must be an integer >= 4, got"):
        certify.displacement(Equation(torch.tanh), torch.zeros(1, 1), steps)
