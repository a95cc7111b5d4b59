"""What a review with fresh eyes broke, kept mended."""

import pytest
import torch

import settlepoint as sp

DOUBLE = torch.float64


@pytest.mark.parametrize("rates", [(0.5, 0.9, 0.1), (0.9, 0.99, 0.2)], ids=str)
def test_a_closure_that_goes_by_position_is_caught(rates):
    """The rows that finish last come first, so that the first gathering is a prefix of the batch."""
    factor = torch.cat([torch.full((n, 1), c, dtype=DOUBLE) for n, c in zip((50, 150, 100), rates, strict=True)])
    eq = sp.Equation(lambda x: x * factor[: len(x)] + 1)
    sol = sp.solve(eq, torch.zeros(300, 1, dtype=DOUBLE), stop=sp.Tolerance(1e-3, max_steps=3000))
    assert sol.counts() == {"CONVERGED": 300}
    assert float((sol.value * factor + 1 - sol.value).abs().max()) <= 1e-3
    assert "compaction off" in sol.notes[0]


@pytest.mark.parametrize("size", [1e-25, 1e-22, 1.0, 1e20])
def test_gradients_do_not_depend_on_the_size_of_the_cotangent(size):
    """x = .9 x + b: dx/db = 10; squares of a float32 below 1e-19 are zero, above 1e19 infinite."""
    b = torch.ones(3, 4, requires_grad=True)
    x = sp.solve(sp.Equation(lambda x, b: 0.9 * x + b, context=(b,)), torch.zeros(3, 4), sp.Anderson()).value
    (x.sum() * size).backward()
    assert torch.allclose(b.grad.double() / size, torch.tensor(10.0, dtype=DOUBLE), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_relative_tolerances_hold_at_any_size(size):
    sol = sp.solve(sp.Equation(lambda x: x / 2 + size), torch.zeros(1, 2), stop=sp.Tolerance(0.0, 1e-5)).require()
    assert torch.allclose(sol.value.double() / size, torch.tensor(2.0, dtype=DOUBLE), rtol=1e-4)


def test_checked_fixed_steps_do_not_call_nan_completed():
    sol = sp.solve(sp.Equation(lambda x: x * torch.nan), torch.ones(2, 2), stop=sp.FixedSteps(3, check=True))
    assert sol.counts() == {"NONFINITE": 2}
    with pytest.raises(sp.SolveError, match="NONFINITE"):
        sol.require()


def test_interrupted_fixed_steps_are_not_completed():
    calls = []

    def operator(x):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("gone")
        return x / 2

    with pytest.raises(sp.SolveError) as caught:
        sp.solve(sp.Equation(operator), torch.ones(2, 2), stop=sp.FixedSteps(10))
    assert caught.value.solution.counts() == {"MAX_STEPS": 2}


def test_checkpointed_inside_torch_func_is_refused_in_our_words():
    def f(w):
        eq = sp.Equation(lambda x: torch.tanh(w * x) + 1)
        return sp.solve(eq, torch.zeros(1, 2), adjoint=sp.Checkpointed(4)).value.sum()

    with pytest.raises(RuntimeError, match="Checkpointed cannot run inside torch"):
        torch.func.grad(f)(torch.tensor(0.3))
