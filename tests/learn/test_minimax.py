"""Polynomials and class certificates against numpy's polynomials, dense matrices and Chebyshev's theorem."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.cells import DOUBLE, affine

from settlepoint import R2N2, Equation, FixedSteps, Picard, solve
from settlepoint.learn import LevenbergMarquardt, certified_rate, fit, minimax, order_conditions, polynomial
from settlepoint.problems import LinearFamily
from settlepoint.solvers.tableaus import (
    BOGACKI_SHAMPINE,
    EULER,
    HEUN,
    KUTTA3,
    MIDPOINT,
    RALSTON,
    RK4,
    SSPRK3,
    richardson,
)

QUICK = LevenbergMarquardt(2, 12)


def scattered(generator: torch.Generator, stages: int, size: float = 0.5) -> R2N2:
    solver = R2N2(stages)
    return solver.assign(size * torch.randn(len(solver.theta), dtype=DOUBLE, generator=generator))


def factor(solver: R2N2, t: torch.Tensor) -> np.ndarray:
    """r_1 / r_0 on the scalar problems x = t x + 1: p(t - 1)."""
    eq = Equation(lambda x, t: t * x, torch.ones(len(t), 1, dtype=DOUBLE), context=(t[:, None],))
    with torch.no_grad():
        sol = solve(eq, torch.zeros(len(t), 1, dtype=DOUBLE), solver, FixedSteps(1))
        return eq.residual(sol.value)[:, 0].numpy()


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_polynomial_is_what_a_step_does(generator, stages):
    """Against steps on scalar problems."""
    solver, t = scattered(generator, stages), torch.linspace(-2, 2, 41, dtype=DOUBLE)
    p = np.polynomial.Polynomial(polynomial(solver).detach().numpy())
    assert p.coef.shape == (stages + 1,)
    assert p.coef[0] == 1
    assert np.abs(p(t.numpy() - 1) - factor(solver, t)).max() <= 1e-12 * np.abs(factor(solver, t)).max()


@pytest.mark.parametrize(
    ("tableau", "order"), [(EULER, 1), (HEUN, 2), (MIDPOINT, 2), (RALSTON, 2), (KUTTA3, 3), (SSPRK3, 3), (RK4, 4)]
)
def test_polynomial_of_a_runge_kutta_method_is_its_stability_function(tableau, order):
    """n stages of order n: R(z) = sum z^k/k!, and the residual of x' = z x is r -> R(z) r."""
    expected = [1 / math.factorial(k) for k in range(order + 1)]
    assert polynomial(R2N2.from_tableau(tableau)).tolist() == pytest.approx(expected, rel=1e-15)


def test_polynomial_is_differentiable():
    solver = R2N2(3)
    (g,) = torch.autograd.grad(polynomial(solver)[3], solver.inner)
    assert g.tolist() == [1.0, 0.0, 1.0]  # p_3 = a_10 a_21 b_2


@pytest.mark.parametrize("stages", [1, 2, 4, 6])
@pytest.mark.parametrize("interval", [(-0.9, 0.9), (-3.0, 0.5), (1.2, 4.0), (0.99, 0.999)])
def test_certified_rate_is_the_largest_on_a_fine_grid(generator, stages, interval):
    """numpy on 200,001 points; between two of them nothing can rise by more than the grid misses."""
    for solver in (scattered(generator, stages), minimax(stages, *interval)):
        p = np.polynomial.Polynomial(polynomial(solver).detach().numpy())
        grid = np.abs(p(np.linspace(interval[0] - 1, interval[1] - 1, 200_001))).max()
        rate = certified_rate(solver, *interval)
        assert grid * (1 - 1e-12) <= rate <= grid * (1 + 1e-6)


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("interval", [(-0.9, 0.9), (-3.0, 0.5), (1.2, 4.0)])
def test_minimax_reaches_the_bound_of_chebyshev(stages, interval):
    """1/|T_n((2 - low - high)/(high - low))|, and no polynomial near it does better."""
    low, high = interval
    solver = minimax(stages, low, high)
    best = 1 / abs(np.polynomial.Chebyshev.basis(stages)((2 - low - high) / (high - low)))
    assert certified_rate(solver, low, high) == pytest.approx(best, rel=1e-9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = torch.randn(solver.theta.shape, dtype=DOUBLE, generator=generator)
        assert certified_rate(R2N2(stages, theta=solver.theta + 0.01 * noise), low, high) >= best * (1 - 1e-9)


def test_the_bound_of_the_paper_matrices():
    """learned.md: n = 4 gives .159 on the spectra of all of A1 to A7."""
    intervals = [LinearFamily(f"A{i}").interval for i in range(1, 8)]
    low, high = min(i[0] for i in intervals if i), max(i[1] for i in intervals if i)
    assert certified_rate(minimax(4, low, high), low, high) == pytest.approx(0.159, abs=5e-4)


def test_no_step_is_worse_than_the_certified_rate(generator):
    """On symmetric affine rows with their spectrum in the interval; the worst eigenvector reaches it."""
    low, high = -2.0, 0.7
    solver = scattered(generator, 3, 0.3)
    rate = certified_rate(solver, low, high)
    problem = affine(generator, rows=50, width=60, low=low, high=high)
    with torch.no_grad():
        trace = solve(problem.equation, None, solver, FixedSteps(5, check=False), trace=True).trace
    assert trace is not None
    assert float((trace.residual[1:] / trace.residual[:-1]).max()) <= rate * (1 + 1e-9)
    t = np.linspace(low, high, 2001)
    assert np.abs(factor(solver, torch.from_numpy(t))).max() >= 0.999 * rate


# ---- fit under a bound --------------------------------------------------------------------------------------------


def test_fit_keeps_the_bound_it_was_asked_for():
    """The loss-optimal weights of A1 fail on A7; under the bound they do not, and pay for it on A1."""
    interval = LinearFamily("A7").interval
    assert interval is not None
    free = fit(R2N2(4), LinearFamily(), 2, samples=60, trainer=QUICK)
    kept = fit(R2N2(4), LinearFamily(), 2, samples=60, trainer=QUICK, certify_interval=interval)
    least = certified_rate(minimax(4, *interval), *interval)
    assert free.rate is None
    assert kept.rate == certified_rate(kept.solver, *interval)
    assert least <= kept.rate <= math.sqrt(least) < 1 < certified_rate(free.solver, *interval)
    assert kept.loss > free.loss


def test_fit_under_a_bound_repeats_and_takes_penalties():
    options = {"samples": 40, "trainer": QUICK, "penalty": lambda s: 0.1 * s.output[:1]}
    a, b = (fit(R2N2(2), LinearFamily(), 1, certify_interval=(-0.5, 0.9), **options) for _ in range(2))
    assert torch.equal(a.solver.theta, b.solver.theta)
    assert a.rate == b.rate
    assert a.rate is not None
    assert a.rate < 1


@pytest.mark.parametrize("interval", [(0.5, 1.5), (1.0, 2.0), (-1.0, 1.0)])
def test_refuses_intervals_that_hold_one(interval):
    with pytest.raises(ValueError, match=r"interval must not hold 1, got .*spectrum of P'"):
        fit(R2N2(2), LinearFamily(), 1, samples=20, certify_interval=interval)


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.9, 0.1), (math.nan, 0.5), (-math.inf, 0.5)])
def test_refuses_what_is_no_interval(interval):
    for call in (minimax, lambda n, low, high: certified_rate(R2N2(n), low, high)):
        with pytest.raises(ValueError, match="interval must hold two finite numbers low < high"):
            call(2, *interval)


@pytest.mark.parametrize(
    "solver",
    [R2N2(2, "jvp"), R2N2(2, carry=1), R2N2(2, per_iteration=2), R2N2(2, output="least_squares"), Picard()],
    ids=repr,
)
def test_refuses_solvers_without_a_polynomial(solver):
    for call in (
        lambda: polynomial(solver),
        lambda: fit(solver, LinearFamily(), 1, samples=20, certify_interval=(-0.5, 0.5)),
    ):
        with pytest.raises(ValueError, match=r"polynomial needs an R2N2|has no tableau"):
            call()


# ---- order conditions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tableau", "order"),
    [(EULER, 1), (HEUN, 2), (MIDPOINT, 2), (RALSTON, 2), (KUTTA3, 3), (SSPRK3, 3), (BOGACKI_SHAMPINE, 3), (RK4, 4)],
)
def test_order_conditions_vanish_up_to_the_order(tableau, order):
    solver = R2N2.from_tableau(tableau)
    for p in range(1, 5):
        left = float(order_conditions(solver, p).detach().abs().max())
        assert (left <= 1e-15) is (p <= order)


def test_order_conditions_count():
    """Rooted trees up to 4 nodes: 1, 2, 4, 8."""
    assert [len(order_conditions(R2N2(3), p)) for p in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_order_conditions_of_a_combination_of_picard_steps():
    """Three full Picard steps: b = 1, so sum b = 3; differentiable in all weights."""
    solver = R2N2.from_tableau(richardson(0.0, 3))
    left = order_conditions(solver, 2)
    assert left.tolist() == [2.0, 3.0 - 0.5]
    gradients = torch.autograd.grad(left.square().sum(), (solver.inner, solver.output))
    assert all(bool(g.abs().max() > 0) for g in gradients)


@pytest.mark.parametrize("order", [0, 5, 2.5])
def test_order_conditions_refuse_other_orders(order):
    with pytest.raises(ValueError, match=f"order must be 1, 2, 3 or 4, got {order}"):
        order_conditions(R2N2(2), order)


def test_order_conditions_refuse_other_solvers():
    with pytest.raises(TypeError, match="solver must be an R2N2, got Picard"):
        order_conditions(Picard(), 2)
    with pytest.raises(ValueError, match="least_squares output has no tableau"):
        order_conditions(R2N2(2, output="least_squares"), 2)
