"""Unrolled, Checkpointed and Truncated, where the contract does not reach."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells import DOUBLE, Counted
from tests.contracts import bits, root_gradient, tanh_cell

from settlepoint import (
    Anderson,
    Checkpointed,
    Equation,
    FixedSteps,
    GradientWarning,
    Halpern,
    Implicit,
    Mann,
    NewtonKrylov,
    Picard,
    Tolerance,
    Truncated,
    Unrolled,
    solve,
)

TIGHT = Tolerance(1e-12, max_steps=200)


def both(generator, a, b, **call):
    """Gradients (dW, df) of one solve through two adjoints."""
    W, f = tanh_cell(generator)
    eq = Equation(lambda x: torch.tanh(x @ W), f)
    return [torch.autograd.grad((solve(eq, adjoint=adjoint, **call).value ** 2).sum(), (W, f)) for adjoint in (a, b)]


@pytest.mark.parametrize(
    "solver", [Picard(0.3), Mann([0.5, 0.2, 0.1]), Halpern(), NewtonKrylov(inner=1, restart=2)], ids=str
)
@pytest.mark.parametrize("every", [1, 2, 5, 100])
def test_checkpointed_is_unrolled(generator, solver, every):
    """Blocks of any size, with the state of the solver handed on from block to block."""
    ours, theirs = both(generator, Checkpointed(every), Unrolled(), solver=solver, stop=FixedSteps(7))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("compact", [False, True, "auto"])
def test_checkpointed_rows_stop_where_they_stopped(generator, compact):
    """Rows of different length replay their own number of steps. Oracle: sum of a^k, k <= N, differentiated."""
    a = torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE, requires_grad=True)
    eq = Equation(lambda x, a: a[:, None] * x, torch.ones(3, 1, dtype=DOUBLE), context=(a,))
    sol = solve(eq, stop=Tolerance(1e-3), adjoint=Checkpointed(4), compact=compact)
    (g,) = torch.autograd.grad(sol.value.sum(), a)
    for row, steps in enumerate((sol.steps - 1).tolist()):  # the last look takes no step
        powers = torch.arange(1, steps + 1, dtype=DOUBLE)
        expected = (powers * a[row].detach() ** (powers - 1)).sum()
        assert float(g[row]) == pytest.approx(float(expected), rel=1e-12)


def test_checkpointed_keeps_one_block_of_evaluations(generator):
    """Calls: N for the solve, N for the replay, N again in backward."""
    W, f = tanh_cell(generator)
    T = Counted(lambda x: torch.tanh(x @ W))
    x = solve(Equation(T, f), stop=FixedSteps(8), adjoint=Checkpointed(4)).value
    assert T.calls == 16
    x.sum().backward()
    assert T.calls == 24


def test_checkpointed_without_steps(generator):
    f = torch.ones(2, 2, requires_grad=True)
    x = solve(Equation(lambda x: 0.5 * x, f), f, stop=FixedSteps(0), adjoint=Checkpointed()).value
    assert torch.equal(x, f)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_truncated_is_the_neumann_sum(steps):
    """x = a x + 1 at a = 1/2: x* (1 + a + ... + a^(k-1)), by hand, against x*/(1 - a)."""
    a = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    x = solve(
        Equation(lambda x: a * x + 1), torch.zeros(1, 1, dtype=DOUBLE), stop=TIGHT, adjoint=Truncated(steps)
    ).value
    (g,) = torch.autograd.grad(x.sum(), a)
    assert g.item() == pytest.approx(2 * sum(0.5**k for k in range(steps)), rel=1e-10)


@pytest.mark.parametrize(
    ("adjoint", "operator"),
    [
        (Truncated(1), lambda x: torch.where(x > 5, x * math.nan, 0.5 * x)),
        (Truncated(2), lambda x: torch.where(x < 2, x * math.nan, 0.5 * x)),
    ],
    ids=["T(x0) is NaN", "T(T(x)) is NaN"],
)
def test_truncated_keeps_the_best_value_of_a_nan_row(adjoint, operator):
    x0 = torch.full((1, 1), 6.0, dtype=DOUBLE)
    with torch.no_grad():
        right = solve(Equation(operator), x0, adjoint=Unrolled()).value
    value = solve(Equation(operator), x0, adjoint=adjoint).value
    assert bool(right.isfinite().all())
    assert torch.equal(bits(value), bits(right))


def test_unrolled_differentiates_the_iterate_it_returns():
    """x = x/2 + 1 after 3 steps from 0: dx/da of 1 + a + a^2 is 1 + 2 a = 2, not the 4 of the fixed point."""
    a = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    x = solve(Equation(lambda x: a * x + 1), torch.zeros(1, 1, dtype=DOUBLE), stop=FixedSteps(3)).value
    (g,) = torch.autograd.grad(x.sum(), a)
    assert g.item() == 2.0


def test_unrolled_reaches_x0_and_every_order():
    x0 = torch.tensor([[1.0]], dtype=DOUBLE, requires_grad=True)
    a = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    x = solve(Equation(lambda x: a * x), x0, stop=FixedSteps(3)).value  # a^3 x0
    g, h = torch.autograd.grad(x.sum(), (x0, a), create_graph=True)
    (third,) = torch.autograd.grad(torch.autograd.grad(h, a, create_graph=True)[0], a)
    assert (g.item(), h.item(), third.item()) == (0.125, 0.75, 6.0)


def test_defaults_follow_the_stop():
    """FixedSteps unrolls: the gradient of 2 steps; Tolerance is implicit: that of the root."""
    a = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    zero, eq = torch.zeros(1, 1, dtype=DOUBLE), Equation(lambda x: a * x + 1)
    fixed, free = solve(eq, zero, stop=FixedSteps(2)), solve(eq, zero, stop=TIGHT)
    assert torch.autograd.grad(fixed.value.sum(), a)[0].item() == 1.0
    assert torch.autograd.grad(free.value.sum(), a)[0].item() == pytest.approx(4)
    assert (fixed.gradient.adjoint, free.gradient.adjoint) == ("", repr(Implicit()))


def test_implicit_with_fixed_steps(generator):
    """Asked for by name: the gradient as if the last iterate were the root."""
    W, f = tanh_cell(generator)
    sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=FixedSteps(60), adjoint=Implicit())
    mine = torch.autograd.grad(sol.value, (W, f), torch.ones_like(f))
    right = root_gradient(W, f, sol.value, torch.ones_like(f))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(mine, right, strict=True))


def test_the_backward_solver_matters():
    """Rate .999: Anderson and Newton-Krylov are there within 50 evaluations, Picard is not and says so."""
    a = torch.tensor(0.999, dtype=DOUBLE, requires_grad=True)
    zero = torch.zeros(1, 1, dtype=DOUBLE)
    stop = Tolerance(0.0, 1e-10, max_steps=50)
    for solver in (Anderson(), NewtonKrylov()):
        sol = solve(Equation(lambda x: a * x + 1), zero, solver, Tolerance(1e-9), Implicit(solver, stop))
        (g,) = torch.autograd.grad(sol.value.sum(), a)
        assert g.item() == pytest.approx(1e6, rel=1e-5)
    sol = solve(Equation(lambda x: a * x + 1), zero, Anderson(), Tolerance(1e-9), Implicit(Picard(), stop))
    with pytest.warns(GradientWarning):
        sol.value.sum().backward()


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, None])
def test_construction(bad):
    for kind, name in ((Checkpointed, "every"), (Truncated, "steps")):
        with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got {bad!r}"):
            kind(bad)
