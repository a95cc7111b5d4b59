"""Theorems 1 and 2 of the first paper, corrected: distances from residuals and steps, and counts of iterations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE, affine, factors
from tests.certify.equations import away, iterated, newton, tanh_cells, value_of

from settlepoint import Equation, Picard, Tolerance, certify, solve


def started(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    seed=st.integers(0, 10_000), low=st.floats(-0.99, 0.5), high=st.floats(0.5, 0.999), steps=st.integers(0, 300)
)  # fmt: skip
def test_the_bound_is_never_below_the_error(seed, low, high, steps):
    """On symmetric affine cells, wherever the iteration stands. Oracle: torch.linalg.solve."""
    problem = affine(started(seed), rows=4, width=6, low=low, high=high)
    x = iterated(problem.equation, away(problem.answer, 1.0, started(seed + 1)), steps)
    found = certify.certificate(problem.equation, x, "banach")
    assert found.counts() == {"proved": 4}
    assert bool((problem.error(x) <= found.radius).all())
    assert torch.allclose(found.rate, torch.tensor(max(abs(low), abs(high)), dtype=DOUBLE), rtol=1e-9)


@given(
    seed=st.integers(0, 10_000), low=st.floats(-0.99, 0.5), high=st.floats(0.5, 0.999), size=st.floats(1e-6, 1e3)
)  # fmt: skip
def test_the_strongest_bound_is_within_ten_times_the_error(seed, low, high, size):
    """Of Banach, whose slack is up to (1 + L) / (1 - L), and Kantorovich, on symmetric affine cells."""
    problem = affine(started(seed), rows=3, width=5, low=low, high=high)
    x = away(problem.answer, size, started(seed + 1))
    proofs = [certify.certificate(problem.equation, x, method) for method in ("banach", "kantorovich")]
    radius = torch.stack([c.radius for c in proofs]).amin(0)
    assert bool((problem.error(x) <= radius).all())
    assert bool((radius <= 10 * problem.error(x)).all())


@given(seed=st.integers(0, 10_000), high=st.floats(0.3, 0.99))
def test_banach_alone_is_within_ten_times_once_the_slow_part_is_left(seed, high):
    """Behind 20 steps the error lies along the largest eigenvalue, where r / (1 - L) is the error itself."""
    problem = affine(started(seed), rows=3, width=5, low=0.0, high=high)
    x = iterated(problem.equation, away(problem.answer, 1e4, started(seed + 1)), 20)
    found = certify.certificate(problem.equation, x, "banach")
    assert bool((found.radius <= 10 * problem.error(x)).all())


def test_theorem_2_holds_with_equality():
    """On x = k x the step from u to k u is (1 - k) u, and k / (1 - k) of it is k u: `<` of the paper would be false."""
    for k in (0.0, 0.5, 0.75):
        u = torch.tensor([1.0, 0.0], dtype=DOUBLE)
        bound = certify.after_step(u - k * u, k)
        assert bool((bound >= k * u).all())
        assert torch.allclose(bound, k * u, atol=1e-300)


def test_no_claim_without_a_contraction():
    r = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    for rate in (1.0, 1.5, math.inf, math.nan):
        assert bool(torch.isinf(certify.contraction_bound(r, rate)).all())
        assert bool(torch.isinf(certify.after_step(r, rate)).all())


@given(r=st.floats(0, 1e300), rate=st.floats(0, 1 - 1e-12), rounding=st.floats(0, 1))
def test_bounds_are_rounded_outward(r, rate, rounding):
    """Oracle: rational arithmetic."""
    from fractions import Fraction

    true = (Fraction(r) + Fraction(rounding)) / (1 - Fraction(rate))
    found = certify.contraction_bound(torch.tensor([r], dtype=DOUBLE), rate, rounding)
    assert math.isinf(float(found)) or Fraction(float(found)) >= true
    stepped = certify.after_step(torch.tensor([r], dtype=DOUBLE), rate, rounding)
    true = (Fraction(rate) * Fraction(r) + Fraction(rounding)) / (1 - Fraction(rate))
    assert math.isinf(float(stepped)) or Fraction(float(stepped)) >= true


def test_theorem_1_as_printed_loses_a_factor():
    """T = .2 z, lam = 4, f = 1: the first step is .8; the printed (|lam| k)^0 ||T(f)|| is .2."""
    x0 = torch.ones(1, dtype=DOUBLE)
    first = (0.2 * x0).abs()
    x1 = 4 * 0.2 * x0 + 1
    assert float(x1 - x0) == pytest.approx(0.8)
    assert float(x1 - x0) > float(first)
    fixed = 5.0  # x = .8 x + 1
    x = x0
    for n in range(60):
        assert abs(float(x) - fixed) <= float(certify.distance_after(first, 4.0, 0.2, n))
        x = 0.8 * x + 1


@given(
    lam=st.floats(-3, 3), k=st.floats(0, 0.33), first=st.floats(0, 1e6), tolerance=st.sampled_from([1e-8, 0.125, 1.0])
)  # fmt: skip
def test_counts_are_never_below_the_measured_ones(lam, k, first, tolerance):
    """x = lam k x + first from x_0 = first, where ||T(f)|| = k first: steps until one is below the tolerance."""
    needed = int(certify.steps_needed(torch.tensor([k * first], dtype=DOUBLE), lam, k, tolerance))
    x, taken = first, 0
    while abs((step := lam * k * x + first) - x) >= tolerance:
        x, taken = step, taken + 1
    rounding = abs(lam * k * x) * 1e-12 >= tolerance
    assert taken <= needed + rounding
    exact = 0
    while abs(lam) * (abs(lam) * k) ** exact * k * first >= tolerance:
        exact += 1
    assert abs(needed - exact) <= (needed > 0)  # the formula itself, to rounding at the threshold


def test_counts_by_hand():
    """|lam| (|lam| k)^n ||T(f)|| < eps: 1, 1/2, 1/4, 1/8, 1/16 with strict <; k = 0 ends after one."""
    first = torch.tensor([1.0, 0.0, 100.0], dtype=DOUBLE)
    assert certify.steps_needed(first, 1.0, 0.5, 0.125).tolist() == [4, 0, 10]
    assert certify.steps_needed(first, 1.0, 0.0, 0.125).tolist() == [1, 0, 1]
    assert certify.steps_needed(first, 0.0, 0.5, 0.125).tolist() == [0, 0, 0]
    per_row = certify.steps_needed(first, torch.tensor([1.0, 1.0, 0.1], dtype=DOUBLE), 0.5, 0.125)
    assert per_row.tolist() == [4, 0, 2]


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.999])
def test_existence_is_real(rate, generator):
    """Newton to 1e-14 finds the fixed point inside the radius."""
    eq, x = tanh_cells(generator, gain=0.4)
    eq = Equation(lambda x, u: rate * torch.tanh(x) + u, context=eq.context)
    x = away(x, 0.3, generator)
    found = certify.banach(eq, x)
    assert found.counts() == {"proved": len(x)}
    assert bool(((newton(eq, x) - x).norm(dim=1) <= found.radius).all())
    assert bool(torch.isinf(found.unique_in).all())


def test_constants_of_your_own_are_of_the_operator_alone():
    """P = lam T + f: the rate is |lam| bound, row by row."""
    lam = torch.tensor([0.5, -1.5, 3.0], dtype=DOUBLE)
    eq = Equation(lambda x: torch.sin(0.5 * x), torch.ones(3, 2, dtype=DOUBLE), lam)
    found = certify.banach(eq, torch.ones(3, 2, dtype=DOUBLE), bound=0.5)
    assert found.kind == ("proved", "proved", "refused")
    assert torch.allclose(found.rate, torch.tensor([0.25, 0.75, 1.5], dtype=DOUBLE))
    worked_out = certify.banach(eq, torch.ones(3, 2, dtype=DOUBLE))
    assert worked_out.kind == found.kind
    assert torch.allclose(worked_out.rate, found.rate)


def test_a_rate_of_1_proves_nothing():
    """A translation by 1e-9 has the residual 1e-9 everywhere, and no fixed point."""
    found = certify.banach(Equation(lambda x: x + 1e-9), torch.zeros(2, 2, dtype=DOUBLE))
    assert found.counts() == {"refused": 2}
    assert "L = 1 in the 2-norm is not below 1" in found.reason[0]


@pytest.mark.parametrize("rate", [0.5, 0.99, 0.999, 0.99999])
def test_float32_is_certified_against_the_fixed_point_of_float64(rate, generator):
    """Of the same weights: x = x W + f in float32, solved as far as float32 goes. The answer is that of the float32
    numbers, taken as they are, by torch.linalg.solve in float64."""
    problem = affine(generator, width=20, low=-rate, high=rate).to(torch.float32)
    x = value_of(solve(problem.equation, torch.zeros(6, 20), Picard(), Tolerance(1e-7, max_steps=3000)))
    found = certify.banach(problem.equation, x)  # the norm of W in float32 may lie above its rate by rounding
    assert found.counts() == {"proved": 6}
    assert bool((problem.error(x) <= found.radius).all())


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.95])
def test_damping_does_not_change_what_is_certified(damping):
    """The residual is measured anew: a damped step would be 20 times smaller."""
    eq, answer = factors([0.5, 0.9])
    sol = solve(eq, torch.zeros(2, 3, dtype=DOUBLE), Picard(damping), Tolerance(1e-4, max_steps=5000))
    found = certify.certificate(eq, sol, "banach")
    error = (value_of(sol) - answer).norm(dim=1)
    assert bool((error <= found.radius).all())
    assert bool((found.radius <= 20 * error).all())
    by_value = certify.certificate(eq, sol.value, "banach")
    assert torch.equal(found.radius, by_value.radius)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda eq, x, r: certify.contraction_bound(r, -0.1), "rate must be >= 0, got -0.1"),
        (lambda eq, x, r: certify.after_step(r, torch.tensor([-1.0])), "rate must be >= 0, got -1"),
        (lambda eq, x, r: certify.steps_needed(r, 1.0, 0.5, 0.0), "tolerance must be a finite number > 0, got 0"),
        (lambda eq, x, r: certify.steps_needed(r, 1.0, 0.5, math.nan), "tolerance must be a finite number > 0"),
        (lambda eq, x, r: certify.steps_needed(r, 2.0, 0.5, 0.1), r"\|lam\| k must lie below 1, got 1"),
        (lambda eq, x, r: certify.steps_needed(r, 1.0, -0.5, 0.1), "k must be >= 0, got -0.5"),
        (lambda eq, x, r: certify.distance_after(r, 1.0, -0.5, 3), "k must be >= 0, got -0.5"),
        (lambda eq, x, r: certify.distance_after(r, 1.0, 0.5, -3), "n must be an integer >= 0, got -3"),
        (lambda eq, x, r: certify.banach(eq, x, -1.0), "bound must be a finite number >= 0, got -1"),
        (lambda eq, x, r: certify.banach(eq, x, math.nan), "bound must be a finite number >= 0, got nan"),
    ],
)
def test_arguments_are_named(call, message):
    eq, _ = factors([0.5])
    with pytest.raises(ValueError, match=message):
        call(eq, torch.ones(1, 3, dtype=DOUBLE), torch.ones(1, dtype=DOUBLE))


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), rate=st.floats(0.9, 0.9999), exponent=st.integers(-14, 2))
def test_newton_agrees_that_the_radius_holds(seed, rate, exponent):
    """Nonlinear, near and far: x = rate sin(x Q) + u with Q orthogonal."""
    generator = started(seed)
    Q = torch.linalg.qr(torch.randn(4, 4, dtype=DOUBLE, generator=generator))[0]
    u = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: rate * torch.sin(x @ Q), u)
    fixed = newton(eq, iterated(eq, u, int(40 / (1 - rate)) if rate < 0.99 else 4000), steps=5)
    x = away(fixed, 10.0**exponent, generator)
    found = certify.banach(eq, x)
    assert bool(((fixed - x).norm(dim=1) <= found.radius).all())
