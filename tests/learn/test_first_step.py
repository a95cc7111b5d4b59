"""The learned first step: its polynomial by numpy, its way back, and its fit against numpy's least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import Anderson, Equation, FirstStep, FixedSteps, NewtonKrylov, Picard, Tolerance, solve
from settlepoint.learn.first_guess import fit_first_step, with_reach, within_reach
from settlepoint.problems import Chandrasekhar

STOP = Tolerance(1e-9, max_steps=100)


def curved(generator: torch.Generator, rows: int = 6, width: int = 4) -> tuple[Equation, Tensor]:
    """x = 0.3 sin(x) + f with f in [1, 2], from 0."""
    f = 1 + torch.rand(rows, width, dtype=DOUBLE, generator=generator)
    return Equation(lambda x: 0.3 * torch.sin(x), f), torch.zeros_like(f)


def end(eq: Equation, x0: Tensor, solver, steps: int) -> Tensor:
    """The iterate after so many steps."""
    with torch.no_grad():
        value = solve(eq, x0, solver, FixedSteps(steps)).value
    assert isinstance(value, Tensor)
    return value


def test_polynomial_by_hand(generator):
    """Degree 2 of p = P(x_0) and its weighted mean, both scaled from [low, high] to [-1, 1]."""
    eq, x0 = curved(generator)
    c, low, high = [0.3, -0.2, 0.5, 0.7, 0.11, -0.4], [1.0, 0.9], [2.0, 2.1]
    solver = FirstStep(Picard(), 2, coefficients=c, low=low, high=high)
    p = eq.image(x0).numpy()  # pyright: ignore[reportAttributeAccessIssue]
    mean = np.average(p, axis=1, weights=np.abs(p))[:, None]
    u, m = 2 * (p - 1.0) / 1.0 - 1, 2 * (mean - 0.9) / 1.2 - 1
    expected = c[0] + c[1] * u + c[2] * m + c[3] * u * u + c[4] * u * m + c[5] * m * m
    assert np.abs(end(eq, x0, solver, 1).numpy() - expected).max() <= 1e-14


def test_context_takes_part_where_it_is_asked_for(generator):
    """One number a row is an input; matrices and integers in the context are none."""
    a = torch.rand(5, dtype=DOUBLE, generator=generator)
    context = (a, torch.ones(5, 3, dtype=DOUBLE), torch.arange(5))
    eq = Equation(lambda x, a, b, i: 0.1 * x + a[:, None] * b + 0 * i[:, None], context=context)
    x0 = torch.zeros(5, 3, dtype=DOUBLE)
    solver = FirstStep(Picard(), 1, context=True, coefficients=[0, 0, 0, 1], low=[0, 0, 0.0], high=[1, 1, 1.0])
    assert float((end(eq, x0, solver, 1) - (2 * a - 1)[:, None]).abs().max()) <= 1e-15
    blind = FirstStep(Picard(), 1, coefficients=[0.5, 0, 0], low=[0, 0], high=[1, 1])
    assert float((end(eq, x0, blind, 1) - 0.5).abs().max()) == 0


def test_without_weights_it_is_the_solver(generator):
    eq, x0 = curved(generator)
    for k in (1, 2, 5):
        assert torch.equal(end(eq, x0, FirstStep(Anderson(2)), k), end(eq, x0, Anderson(2), k))


@pytest.mark.parametrize("solver", [Picard(), Anderson(2), NewtonKrylov(inner=2)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("guess", [50.0, math.nan, math.inf], ids=str)
def test_a_bad_step_costs_one_evaluation_at_most(generator, solver, guess):
    """Far away, or not finite: afterwards the iterates are those of the solver alone."""
    eq, x0 = curved(generator)
    bad = FirstStep(solver, 1, coefficients=[guess, 0, 0], low=[1, 1], high=[2, 2])
    with torch.no_grad():
        alone, late = (solve(eq, x0, s, STOP) for s in (solver, bad))
    assert late.counts() == alone.counts() == {"CONVERGED": 6}
    assert int((late.evals - alone.evals).max()) <= 1
    assert float((late.value - alone.value).abs().max()) <= 1e-15  # pyright: ignore[reportOperatorIssue]


def test_rows_outside_the_range_do_not_jump(generator):
    """One row of three lies outside by more than a tenth of the range."""
    f = torch.tensor([[1.2], [1.9], [2.3]], dtype=DOUBLE)
    eq, x0 = Equation(lambda x: 0.3 * torch.sin(x), f), torch.zeros_like(f)
    solver = FirstStep(Picard(), 1, coefficients=[1.6, 0, 0], low=[1, 1], high=[2, 2])
    moved = end(eq, x0, solver, 1)
    assert moved.flatten().tolist() == [1.6, 1.6, 2.3]


def test_rows_beyond_reach_do_not_jump(generator):
    """|r_0| = f here: the third row begins farther from its solution than any did in training."""
    f = torch.tensor([[1.2], [1.5], [1.9]], dtype=DOUBLE)
    eq, x0 = Equation(lambda x: 0.3 * torch.sin(x), f), torch.zeros_like(f)
    solver = FirstStep(Picard(), 1, coefficients=[1.6, 0, 0], low=[1, 1], high=[2, 2], reach=[1.5, 9.0])
    assert end(eq, x0, solver, 1).flatten().tolist() == [1.6, 1.6, 1.9]


def test_rows_that_land_beyond_reach_go_back_exactly(generator):
    """Their residual has fallen, but less than in training: one evaluation more than without, and the same iterates."""
    eq, x0 = curved(generator)
    jump = {"coefficients": [1.7, 0, 0], "low": [1, 1], "high": [2, 2]}
    with torch.no_grad():
        moved = end(eq, x0, FirstStep(Anderson(2), 1, **jump), 1)
        after = (eq.image(moved) - moved).abs().amax(1)  # pyright: ignore[reportOperatorIssue]
        limit = float(after.median())
        alone, far = (
            solve(eq, x0, s, STOP, compact=False)
            for s in (Anderson(2), FirstStep(Anderson(2), 1, **jump, reach=[9.0, limit]))
        )
        loose = solve(eq, x0, FirstStep(Anderson(2), 1, **jump, reach=[9.0, 9.0]), STOP, compact=False)
    back = after > limit
    assert 0 < int(back.sum()) < len(back)
    assert torch.equal(far.evals[back], alone.evals[back] + 1)
    assert torch.equal(far.value[back], alone.value[back])  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
    assert torch.equal(far.evals[~back], loose.evals[~back])


def test_components_that_are_settled_stay(generator):
    """Padding that starts at its fixed point changes neither itself nor the others."""
    f = 1 + torch.rand(3, 4, dtype=DOUBLE, generator=generator)
    padded = torch.cat((f, torch.zeros(3, 2, dtype=DOUBLE)), 1)
    solver = FirstStep(Picard(), 2, coefficients=[1.5, 0.2, 0.1, 0.05, 0, 0], low=[1, 1], high=[2, 2])
    T = lambda x: 0.3 * torch.sin(x)  # noqa: E731
    for k in (1, 3):
        wide = end(Equation(T, padded), torch.zeros_like(padded), solver, k)
        assert float(wide[:, 4:].abs().max()) == 0
        assert float((wide[:, :4] - end(Equation(T, f), torch.zeros_like(f), solver, k)).abs().max()) <= 1e-14


def test_lives_on_any_one_device():
    """On the meta device: no tensor is made elsewhere, and none is read on the host."""
    solver = FirstStep(Anderson(2), 2, coefficients=[1.0] * 6, low=[1, 1], high=[2, 2]).to("meta")
    x = torch.zeros(4, 5, device="meta")
    eq = Equation(torch.sin).at(x)
    with torch.no_grad():
        state = solver.init(eq, x, x)
        for _ in range(3):
            x, state, _ = solver.step(eq, x, eq.flat(x) - x, state)
    assert (x.device.type, x.dtype) == ("meta", torch.float32)


def test_never_worse_than_one_more_evaluation_under_any_weights(generator):
    """A law over random polynomials: every row converges, with at most one evaluation more than Picard alone."""
    eq, x0 = curved(generator, rows=4)
    with torch.no_grad():
        alone = solve(eq, x0, Picard(), STOP)
        for _ in range(20):
            weights = 3 * torch.randn(3, dtype=DOUBLE, generator=generator)
            sol = solve(eq, x0, FirstStep(Picard(), 1, coefficients=weights, low=[1, 1], high=[2, 2]), STOP)
            assert sol.counts() == {"CONVERGED": 4}
            back = sol.evals > alone.evals  # rows that jumped to a smaller residual may land where rates are larger
            assert int((sol.evals - alone.evals)[back].max() if bool(back.any()) else 0) <= 1


# ---- its fit ------------------------------------------------------------------------------------------------------


def test_fit_of_solutions_that_are_polynomials(generator):
    """x = x/2 + f from 0: x* = 2 P(x_0), so two evaluations solve every problem, of any number of unknowns."""
    draw = lambda rows, width: 1 + torch.rand(rows, width, dtype=DOUBLE, generator=generator)  # noqa: E731
    f = draw(20, 3)
    step = fit_first_step(Picard(), Equation(lambda x: x / 2, f), torch.zeros_like(f), 2 * f, degree=2)
    f = 1.05 + 0.9 * draw(5, 7) - 0.9
    with torch.no_grad():
        sol = solve(Equation(lambda x: x / 2, f), torch.zeros_like(f), step, Tolerance(1e-12))
    assert sol.evals.tolist() == [2] * 5


def test_fit_is_numpy_least_squares(generator):
    """The guess at every training component, against numpy.linalg.lstsq on raw monomials."""
    eq, x0 = curved(generator, rows=30)
    with torch.no_grad():
        exact = solve(eq, x0, Anderson(2), Tolerance(1e-13)).value
    assert isinstance(exact, Tensor)
    step = fit_first_step(Picard(), eq, x0, exact, degree=3)
    p = eq.image(x0).numpy()  # pyright: ignore[reportAttributeAccessIssue]
    m = np.broadcast_to(np.average(p, axis=1, weights=np.abs(p))[:, None], p.shape)
    design = np.stack([(p**i * m**j).ravel() for i in range(4) for j in range(4 - i)], 1)
    weights = np.linalg.lstsq(design, exact.numpy().ravel(), rcond=None)[0]
    assert np.abs(end(eq, x0, step, 1).numpy().ravel() - design @ weights).max() <= 1e-8


def test_fit_reaches_as_far_as_it_was_trained(generator):
    """reach is the largest component of the residual over the training rows, before and after the step."""
    eq, x0 = curved(generator, rows=30)
    with torch.no_grad():
        exact = solve(eq, x0, Anderson(2), Tolerance(1e-13)).value
        assert isinstance(exact, Tensor)
        step = fit_first_step(Picard(), eq, x0, exact, degree=2)
        moved = end(eq, x0, step, 1)
        sizes = [float((eq.image(x) - x).abs().max()) for x in (x0, moved)]  # pyright: ignore[reportOperatorIssue]
    assert step.reach.tolist() == pytest.approx(sizes, rel=1e-12)
    wide = with_reach(step, ())
    assert len(wide.reach) == 0
    assert torch.equal(within_reach(wide, eq, x0).reach, step.reach)


def test_fit_leaves_out_what_is_unknown(generator):
    """Rows of NaN among the solutions change nothing."""
    eq, x0 = curved(generator, rows=10)
    with torch.no_grad():
        exact = solve(eq, x0, Anderson(2), Tolerance(1e-13)).value
    assert isinstance(exact, Tensor)
    holes = exact.clone()
    holes[7:] = torch.nan
    first = fit_first_step(Picard(), eq.at(x0).rows(torch.arange(7)), x0[:7], exact[:7], degree=2)
    assert torch.equal(fit_first_step(Picard(), eq, x0, holes, degree=2).coefficients, first.coefficients)


def test_fit_refuses_too_few_components(generator):
    eq, x0 = curved(generator, rows=1)
    with pytest.raises(ValueError, match="solution must leave 10 components to fit 10 weights, got 4"):
        fit_first_step(Picard(), eq, x0, torch.ones_like(x0), degree=3)
    with pytest.raises(ValueError, match="got 0"):
        fit_first_step(Picard(), eq, x0, torch.full_like(x0, torch.nan), degree=1)


def test_saves_evaluations_on_the_family_it_is_for():
    """Chandrasekhar, both sizes: at least one evaluation fewer on average than the solver that it precedes."""
    family = Chandrasekhar(m=(4, 6))
    train, test = (family.sample(60, torch.Generator().manual_seed(s)) for s in (0, 1))
    with torch.no_grad():
        exact = solve(family.equation(train), train.x0, Anderson(2), Tolerance(1e-12)).value
        assert isinstance(exact, Tensor)
        step = fit_first_step(Anderson(2), family.equation(train), train.x0, exact, degree=2, context=True)
        alone, first = (
            solve(family.equation(test), test.x0, s, Tolerance(1e-8)).evals.double().mean() for s in (Anderson(2), step)
        )
    assert float(first) <= float(alone) - 0.7


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: FirstStep(torch.nn.Identity()), TypeError, "solver must be a Solver, got Identity"),  # pyright: ignore
        (lambda: FirstStep(Picard(), 0), ValueError, "degree must be an integer from 1 to 6, got 0"),
        (lambda: FirstStep(Picard(), True), ValueError, "degree must be an integer from 1 to 6, got True"),
        (lambda: FirstStep(Picard(), 7), ValueError, "degree must be an integer from 1 to 6, got 7"),
        (lambda: FirstStep(Picard(), reach=[1.0]), ValueError, "reach must hold two numbers, or none, got 1"),
        (lambda: FirstStep(Picard(), low=[1.0]), ValueError, "one entry an input each, got 1 and 0"),
        (lambda: FirstStep(Picard(), 1, coefficients=[1.0]), ValueError, "must hold 0 numbers for 0 inputs, got 1"),
        (
            lambda: FirstStep(Picard(), 2, coefficients=[1.0], low=[0, 0], high=[1, 1]),
            ValueError,
            "must hold 6 numbers for 2 inputs, got 1",
        ),
    ],
)
def test_refusals(make, error, text):
    with pytest.raises(error, match=text):
        make()
