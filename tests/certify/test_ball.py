"""Theorem 3 of the first paper is false as printed; what holds: a contraction on a ball that is mapped into itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE
from tests.certify.equations import away, iterated, newton, two_roots

from settlepoint import Equation, Segments, certify


def cubic(lam: float, f: float) -> tuple[Equation, torch.Tensor]:
    start = torch.tensor([[f]], dtype=DOUBLE)
    return Equation(lambda y: y**3, start, lam), start


def test_theorem_3_as_printed_is_false():
    """T(y) = y^3, lam = .3, f = .9: lam M = .9 < 1 on B(f, .1), yet .9, 1.119, 1.320, 1.590, 2.106, 3.70, 16.1."""
    eq, x = cubic(0.3, 0.9)
    seen = [float(iterated(eq, x, k)) for k in range(7)]
    assert seen == pytest.approx([0.9, 1.119, 1.320, 1.590, 2.106, 3.70, 16.1], rel=2e-3)
    assert certify.ball(eq, x, 0.1, bound=3.0).counts() == {"refused": 1}  # M = 3 r^2 on |y| <= 1
    for radius in (0.01, 0.1, 0.3, 1.0, 10.0):
        assert certify.ball(eq, x, radius).counts() == {"refused": 1}


def test_theorem_3_with_its_condition_holds():
    """lam = .1, f = .5: M = 3 (f + r)^2, and lam f^3 <= (1 - lam M) r at r = .1. The root by numpy.roots."""
    eq, x = cubic(0.1, 0.5)
    found = certify.ball(eq, x, 0.1)
    assert found.counts() == {"proved": 1}
    assert float(found.rate) == pytest.approx(0.1 * 3 * 0.6**2, rel=1e-6)
    import numpy as np

    roots = np.roots([0.1, 0, -1, 0.5])
    near = min(roots[np.isreal(roots)].real, key=lambda r: abs(r - 0.5))
    assert abs(near - 0.5) <= float(found.radius) <= 0.1
    assert float(found.unique_in) == 0.1
    given_bound = certify.ball(eq, x, 0.1, bound=3 * 0.6**2)
    assert float(given_bound.radius) == pytest.approx(float(found.radius), rel=1e-6)


@settings(max_examples=50)
@given(gap=st.floats(1e-7, 0.45), offset=st.floats(-1e-3, 1e-3), size=st.floats(1e-9, 1))
def test_no_ball_holds_two_fixed_points(gap, offset, size):
    """x = x^2 + c: a proof around the lower root never says `unique` as far as the upper one."""
    eq, low, high = two_roots([gap])
    x = low + offset * gap
    for found in (certify.ball(eq, x, size), certify.ball(eq, x)):
        assert float(found.unique_in) < float(high - x)
        if found.counts() == {"proved": 1}:
            assert float((low - x).abs()) <= float(found.radius)


def test_a_ball_that_holds_both_is_refused():
    eq, low, high = two_roots([0.2, 0.2, 0.2])
    x = torch.stack((low[0], (low[1] + high[1]) / 2, high[2]))
    assert certify.ball(eq, x, 0.21).counts() == {"refused": 3}
    assert certify.ball(eq, x).kind == ("proved", "refused", "refused")  # the upper one repels


@pytest.mark.parametrize("size", [1e-2, 1e-6, 1e-10])
def test_balls_are_found_where_none_is_given(size, generator):
    """An operator without a constant on the whole space: x = .3 x^2 + exp(-x) / 5."""
    eq = Equation(lambda x: 0.3 * x**2 + torch.exp(-x) / 5)
    fixed = newton(eq, torch.full((4, 3), 0.2, dtype=DOUBLE))
    x = away(fixed, size, generator)
    assert certify.banach(eq, x).counts() == {"refused": 4}
    found = certify.certificate(eq, x, "ball")
    assert found.counts() == {"proved": 4}
    assert bool(((x - fixed).norm(dim=1) <= found.radius).all())
    assert bool((found.radius <= 10 * (x - fixed).norm(dim=1) + 1e-13).all())
    assert bool((found.radius <= found.unique_in).all())


def test_rows_have_balls_of_their_own():
    """Slope 2 x + c: the second row contracts on small balls alone, the third nowhere, the fourth is not finite."""
    eq = Equation(lambda x: x.square())
    x = torch.tensor([[1e-9], [0.3], [0.999], [math.nan]], dtype=DOUBLE)
    found = certify.ball(eq, x)
    assert found.kind[0] == "proved"
    assert found.kind[2:] == ("refused", "refused")
    assert "not finite" in found.reason[3]


def test_segments_and_single_rows():
    eq = Equation(lambda x: x.square(), space=Segments(torch.tensor([0, 0, 1]), 2))
    found = certify.ball(eq, torch.full((3, 1), 1e-5, dtype=DOUBLE), 0.1)
    assert found.counts() == {"proved": 2}
    assert certify.ball(Equation(torch.square), torch.tensor(1e-5, dtype=DOUBLE), 0.1).counts() == {"proved": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "radius must be a finite number > 0, got 0"),
        ({"radius": math.inf}, "radius must be a finite number > 0, got inf"),
        ({"radius": 1.0, "bound": -1.0}, "bound must be >= 0, got -1"),
        ({"radius": 1.0, "bound": math.nan}, "bound must be >= 0, got nan"),
        ({"bound": 0.5}, "radius must be given with a bound"),
    ],
)
def test_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        certify.ball(Equation(torch.square), torch.zeros(1, 1), **options)
