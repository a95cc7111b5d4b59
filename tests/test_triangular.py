"""Triangular equations: exact after n sweeps, contraction or not, and no row given up before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import settlepoint as sp
from settlepoint.chains import Chain

STOP = sp.Tolerance(atol=0.0, max_steps=200)


def logistic(x: Tensor, k: Tensor, rate: Tensor) -> Tensor:
    """Chaotic, Lipschitz constant near 4: a product of 4^n over the chain."""
    return rate * x * (1 - x)


def growing(x: Tensor, k: Tensor, rate: Tensor) -> Tensor:
    return -rate * x + 0.125 * k.to(x)[:, None]


def chain(step, n: int, rows: int = 3, rate: float = 3.75) -> tuple[Chain, Tensor]:
    start = torch.rand(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Chain(step, n, context=(torch.full((rows, 1), rate, dtype=torch.float64),)), start


@given(n=st.integers(1, 40), rows=st.integers(1, 4), step=st.sampled_from([logistic, growing]))
def test_n_sweeps_reach_the_chain_and_one_confirms(n: int, rows: int, step) -> None:
    on, start = chain(step, n, rows)
    x0 = torch.zeros(rows, n, 2, dtype=torch.float64)
    sol = sp.solve(on.equation(start), x0, stop=STOP, compact=False)
    assert torch.equal(sol.require().value, on.sequential(start)[:, 1:])
    assert int(sol.evals.max()) <= n + 1
    assert bool((sol.residual == 0).all())


def test_without_the_tag_the_same_chain_is_given_up() -> None:
    """The plain search sees residuals grow and stall, and is right to: it does not know that T is triangular."""
    on, start = chain(growing, 60)
    x0, eq = torch.zeros(3, 60, 2, dtype=torch.float64), on.equation(start)
    untagged = sp.Equation(eq.operator, context=eq.context)
    assert "CONVERGED" not in sp.solve(untagged, x0, stop=STOP).counts()
    assert sp.solve(eq, x0, stop=STOP).counts() == {"CONVERGED": 3}


def test_values_that_overflow_on_the_way_are_no_reason_to_stop() -> None:
    """x -> x^2 - x overflows from a bad guess within a few sweeps; the chain itself stays at 0 or 2."""
    on = Chain(lambda x, k: x * x - x, 12)
    start = torch.tensor([[2.0], [0.0]], dtype=torch.float64)
    x0 = torch.full((2, 12, 1), 1e200, dtype=torch.float64)
    sol = sp.solve(on.equation(start), x0, stop=STOP)
    assert torch.equal(sol.require().value, on.sequential(start)[:, 1:])


def test_a_chain_that_is_not_finite_is_said_to_be() -> None:
    on = Chain(lambda x, k: x * x, 14)
    start = torch.tensor([[10.0], [0.5]], dtype=torch.float64)
    sol = sp.solve(on.equation(start), torch.zeros(2, 14, 1, dtype=torch.float64), stop=STOP)
    assert [sp.Status(int(s)).name for s in sol.status] == ["NONFINITE", "CONVERGED"]


def test_the_limit_of_steps_still_holds() -> None:
    on, start = chain(logistic, 30)
    x0 = torch.zeros(3, 30, 2, dtype=torch.float64)
    sol = sp.solve(on.equation(start), x0, stop=sp.Tolerance(atol=0.0, max_steps=10))
    assert sol.counts() == {"MAX_STEPS": 3}


def test_rows_leave_on_their_own_and_are_gathered() -> None:
    """Rows of rate 0 are done after one sweep; the others need all."""
    rate = torch.tensor([[0.0], [3.75], [0.0], [3.75]], dtype=torch.float64)
    on = Chain(lambda x, k, rate: rate * x * (1 - x) + 0.5 * (rate == 0), 20, context=(rate,))
    start = torch.rand(4, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sol = sp.solve(on.equation(start), torch.zeros(4, 20, 1, dtype=torch.float64), stop=STOP)
    assert torch.equal(sol.require().value, on.sequential(start)[:, 1:])
    assert int(sol.evals[0]) < 5 < int(sol.evals[1])


def test_gradients_of_a_chain_that_is_no_contraction_are_exact() -> None:
    """J^T is triangular too, so the backward equation ends after n sweeps; the oracle is the recurrence itself."""
    on, start = chain(logistic, 15)
    start.requires_grad_()
    (want,) = torch.autograd.grad(on.sequential(start)[:, -1].sum(), start)
    sol = sp.solve(on.equation(start), torch.zeros(3, 15, 2, dtype=torch.float64), stop=STOP)
    (got,) = torch.autograd.grad(sol.value[:, -1].sum(), start)
    assert float(want.abs().max()) > 500  # far from a contraction
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    assert int(sol.gradient.evals.max()) <= 16  # type: ignore[union-attr]


@pytest.mark.parametrize("solver", [sp.Anderson(), sp.Picard(0.5)])
def test_other_solvers_are_judged_as_usual_behind_the_sweeps(solver: sp.Solver) -> None:
    on, start = chain(growing, 40)
    sol = sp.solve(on.equation(start), torch.zeros(3, 40, 2, dtype=torch.float64), solver, STOP)
    good = sol.converged
    torch.testing.assert_close(sol.value[good], on.sequential(start)[good][:, 1:], rtol=1e-9, atol=0)
    assert int(sol.evals.min()) > 40 or bool(good.all())


@pytest.mark.parametrize("triangular", [-1, 2.0, True])
def test_the_tag_must_be_a_number_of_entries(triangular: object) -> None:
    with pytest.raises(ValueError, match="triangular must be a number of entries >= 0, got"):
        sp.Equation(torch.cos, triangular=triangular)  # type: ignore[arg-type]
