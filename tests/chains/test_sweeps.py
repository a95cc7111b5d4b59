"""Sweeps: equal to the sequential chain whatever form, window and step; what they cost; what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from settlepoint import SolveError, Status
from settlepoint.chains import Chain, Sweeps

FORMS = ("jacobi", "sum", "implicit", "secant")


def chaotic(x: Tensor, k: Tensor, rate: Tensor, noise: Tensor) -> Tensor:
    """No contraction, no smoothness in k: the logistic map kicked by noise, kept in [0, 1] by a fold."""
    y = rate * x * (1 - x) + noise
    return torch.where(y > 1, 2 - y, y).abs()


def growing(x: Tensor, k: Tensor, rate: Tensor, noise: Tensor) -> Tensor:
    return -rate * x + noise


def example(step, n: int, rows: int, seed: int = 0) -> tuple[Chain, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    start = torch.rand(rows, 2, 3, generator=draw, dtype=torch.float64)
    noise = 0.1 * torch.rand(rows, n, 2, 3, generator=draw, dtype=torch.float64)
    rate = 3.5 + 0.4 * torch.rand(rows, 1, 1, generator=draw, dtype=torch.float64)
    linear = torch.randn(n, generator=draw, dtype=torch.float64)
    return Chain(step, n, linear, (rate,), (noise,)), start


@given(
    n=st.integers(1, 23), rows=st.integers(1, 4), share=st.floats(0.01, 1), form=st.sampled_from(FORMS),
    depth=st.integers(0, 3), step=st.sampled_from([chaotic, growing]), seed=st.integers(0, 99),
)  # fmt: skip
def test_at_tolerance_zero_it_is_the_chain(n, rows, share, form, depth, step, seed) -> None:
    """The law of the file: bit for bit, since these steps give the same numbers on any batch."""
    chain, start = example(step, n, rows, seed)
    window = max(1, round(share * n))
    found = Sweeps(window, form=form, depth=depth).run(chain, start, keep=True).require()
    course = chain.sequential(start)
    assert torch.equal(found.value, course[:, -1])
    assert found.course is not None
    assert torch.equal(found.course, course)
    assert found.calls <= n
    assert bool((found.solution.residual == 0).all())
    assert found.settled.tolist() == [n] * rows


@given(n=st.integers(2, 20), form=st.sampled_from(FORMS), tolerance=st.sampled_from([1e-3, 1e-6, 1e-10]))
def test_converged_states_the_true_residual(n: int, form, tolerance: float) -> None:
    chain, start = example(chaotic, n, 3)
    found = Sweeps(form=form, tolerance=tolerance).run(chain, start, keep=True).require()
    course = found.course
    assert course is not None
    rows = torch.arange(3)
    relative = []
    for k in range(n):
        y = chain.called(course[:, k], rows, torch.full((3,), k))
        relative.append((y - course[:, k + 1]).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1))
    total = torch.stack(relative).sum(0)
    torch.testing.assert_close(found.solution.residual, total, rtol=1e-6, atol=1e-15)
    assert float(total.max()) <= tolerance


def test_a_linear_chain_takes_two_sweeps_in_its_implicit_form() -> None:
    """The recurrence solves what is linear exactly; one more sweep confirms."""
    a = torch.linspace(0.5, 1.5, 30, dtype=torch.float64)
    chain = Chain(lambda x, k: a[k, None] * x + 1, 30, linear=a)
    start = torch.ones(2, 1, dtype=torch.float64)
    found = Sweeps(form="implicit", tolerance=1e-12).run(chain, start).require()
    assert found.calls == 2
    torch.testing.assert_close(found.value, chain.sequential(start)[:, -1], rtol=1e-11, atol=0)
    assert Sweeps(form="jacobi", tolerance=1e-12).run(chain, start).calls > 20


def test_the_secant_form_measures_the_slope_that_it_is_not_told() -> None:
    """Two sweeps to see the slope, one that solves with it, one to confirm, where the sum form takes many."""
    a = torch.linspace(0.3, 0.9, 30, dtype=torch.float64)
    chain = Chain(lambda x, k: a[k, None] * x + 1, 30)
    start = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    found = Sweeps(form="secant", tolerance=1e-12).run(chain, start).require()
    assert found.calls <= 4
    torch.testing.assert_close(found.value, chain.sequential(start)[:, -1], rtol=1e-11, atol=0)
    assert Sweeps(form="sum", tolerance=1e-12).run(chain, start).calls > 20


def test_rows_measure_their_own_slopes() -> None:
    """A row alone takes the same sweeps and gives the same numbers as beside others."""
    rates = torch.tensor([0.2, 0.9, -0.5], dtype=torch.float64)
    start = torch.tensor([[0.5], [2.0], [-1.0]], dtype=torch.float64)
    whole = Chain(lambda x, k, a: a[:, None] * torch.sin(x) + 1, 25, context=(rates,))
    found = Sweeps(9, 1e-9, "secant").run(whole, start).require()
    for row in range(3):
        one = Chain(lambda x, k, a: a[:, None] * torch.sin(x) + 1, 25, context=(rates[row : row + 1],))
        alone = Sweeps(9, 1e-9, "secant").run(one, start[row : row + 1]).require()
        assert alone.solution.steps[0] == found.solution.steps[row]
        assert torch.equal(alone.value[0], found.value[row])


def test_slopes_whose_product_overflows_spoil_nothing_that_is_settled() -> None:
    """The first six steps are settled at once; their slopes must not reach the seventh as Inf times 0."""
    slopes = torch.full((9,), 1e200, dtype=torch.float64)
    chain = Chain(lambda x, k: torch.where((k < 6)[:, None], x, 0.3 * x + 1), 9, slopes)
    start = torch.ones(2, 1, dtype=torch.float64)
    found = Sweeps(form="implicit").run(chain, start).require()
    assert torch.equal(found.value, chain.sequential(start)[:, -1])


def test_increments_that_hardly_change_take_few_sweeps_in_the_sum_form() -> None:
    """An ordinary differential equation: Picard on its integral form."""
    chain = Chain(lambda x, k: x + 0.02 * torch.cos(x), 50)
    start = torch.zeros(1, 1, dtype=torch.float64)
    found = {form: Sweeps(form=form, tolerance=1e-8).run(chain, start) for form in ("jacobi", "sum")}
    want = chain.sequential(start)[:, -1]
    for sweeps in found.values():
        torch.testing.assert_close(sweeps.value, want, rtol=1e-6, atol=0)  # the sum of residuals is within 1e-8
    assert 3 * found["sum"].calls < found["jacobi"].calls


@given(n=st.integers(2, 40), form=st.sampled_from(FORMS), tolerance=st.sampled_from([1e-2, 1e-5]))
def test_where_steps_enlarge_no_difference_the_error_at_the_end_is_within_the_tolerance(n, form, tolerance) -> None:
    """Rotations keep every length, so relative residuals add up: the claim of `Sweeps`, with equality at worst."""
    turn = torch.linspace(0, 1, n, dtype=torch.float64)
    spin = lambda x, k: torch.stack((x[:, 0] * turn[k].cos() - x[:, 1] * turn[k].sin(),  # noqa: E731
                                     x[:, 0] * turn[k].sin() + x[:, 1] * turn[k].cos()), 1)  # fmt: skip
    chain, start = Chain(spin, n, torch.ones(n)), torch.eye(2, dtype=torch.float64)
    found = Sweeps(form=form, tolerance=tolerance).run(chain, start).require()
    error = (found.value - chain.sequential(start)[:, -1]).norm(dim=1)
    assert bool((error <= found.solution.residual * (1 + tolerance) + 1e-13).all())
    assert float(found.solution.residual.max()) <= tolerance


def test_anderson_helps_one_chain_harms_another_and_stays_right() -> None:
    draining = Chain(lambda x, k: 0.8 * x + 1, 40)
    turning = Chain(lambda x, k: x + 0.2 * torch.stack((x[:, 1], -x[:, 0]), 1), 60)
    start = torch.tensor([[0.3, 1.0], [0.2, -1.0]], dtype=torch.float64)
    calls = {}
    for name, chain in (("draining", draining), ("turning", turning)):
        for depth in (0, 1):
            found = Sweeps(form="sum", tolerance=1e-6, depth=depth).run(chain, start).require()
            torch.testing.assert_close(found.value, chain.sequential(start)[:, -1], rtol=1e-5, atol=0)
            calls[name, depth] = found.calls
    assert calls["draining", 1] < calls["draining", 0] < 40
    assert calls["turning", 0] < calls["turning", 1] <= 60


def test_one_call_a_sweep_and_every_pair_is_counted() -> None:
    seen: list[Tensor] = []

    def step(x: Tensor, k: Tensor) -> Tensor:
        seen.append(k)
        return 3.7 * x * (1 - x)

    start = torch.tensor([[0.2], [0.4]], dtype=torch.float64)
    found = Sweeps(window=4).run(Chain(step, 10), start)
    assert found.calls == len(seen) == 10
    assert [len(k) for k in seen] == [8] * 7 + [6, 4, 2]
    assert found.solution.work == sum(map(len, seen)) == int(found.solution.evals.sum())
    assert found.trace.tolist() == [[k, k] for k in range(1, 11)]


def test_settled_rows_are_evaluated_no_more() -> None:
    """Row 0 stands still, and is settled by its second sweep: the first sweep only knows its first position."""
    rate = torch.tensor([[0.0], [3.7]], dtype=torch.float64)
    chain = Chain(lambda x, k, rate: torch.where(rate == 0, x, rate * x * (1 - x)), 12, context=(rate,))
    found = Sweeps().run(chain, torch.full((2, 1), 0.3, dtype=torch.float64))
    assert found.solution.steps.tolist() == [1, 12]  # the guess "no change" is right at once, and measured to be
    assert found.solution.evals.tolist() == [12, 12 * 13 // 2]


def test_nan_in_a_row_stays_there() -> None:
    chain, start = example(chaotic, 9, 3)
    noise = chain.inputs[0].clone()
    noise[1, 5] = torch.nan
    spoiled = Chain(chain.step, 9, chain.linear, chain.context, (noise,))
    for form in FORMS:
        found = Sweeps(window=4, form=form).run(spoiled, start)
        assert [Status(int(s)).name for s in found.solution.status] == ["CONVERGED", "NONFINITE", "CONVERGED"]
        want = chain.sequential(start)
        assert torch.equal(found.value[[0, 2]], want[[0, 2], -1])
        assert torch.equal(found.value[1], want[1, 5])  # the last state before NaN
        assert found.settled.tolist() == [9, 5, 9]
        with pytest.raises(SolveError, match="row 1 is NONFINITE"):
            found.require()


def test_overflow_on_the_way_is_not_the_end() -> None:
    """From the guess 2 the square overflows within ten sweeps, in positions that are not settled yet."""
    kick = torch.zeros(1, 14, 1, dtype=torch.float64)
    kick[0, 0] = -1.5
    chain = Chain(lambda x, k, kick: (x + kick) ** 2, 14, torch.full((14,), 4.0), inputs=(kick,))
    start = torch.full((1, 1), 2.0, dtype=torch.float64)
    for form in FORMS:
        found = Sweeps(form=form).run(chain, start).require()
        assert torch.equal(found.value, chain.sequential(start)[:, -1])


def test_a_start_that_is_not_finite_is_a_status() -> None:
    chain, start = example(chaotic, 5, 2)
    start[0, 0, 0] = math.inf
    assert Sweeps().run(chain, start).solution.counts() == {"CONVERGED": 1, "NONFINITE": 1}


def test_out_of_sweeps_is_a_status_and_claims_no_residual() -> None:
    chain, start = example(chaotic, 12, 2)
    found = Sweeps(max_sweeps=4).run(chain, start, keep=True)
    assert found.solution.counts() == {"MAX_STEPS": 2}
    assert found.calls == 4
    assert bool(found.solution.residual.isnan().all())
    assert found.course is not None
    assert torch.equal(found.course[:, :5], chain.sequential(start)[:, :5])
    assert bool(found.course[:, 5:].isnan().all())


def test_progress_is_told() -> None:
    told: list[tuple[int, float]] = []
    chain, start = example(chaotic, 4, 2)
    Sweeps().run(chain, start, progress=lambda calls, share: told.append((calls, share)))
    assert told == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depth", [0, 2])
def test_half_precision_is_the_chain_too(dtype: torch.dtype, form, depth: int) -> None:
    chain = Chain(lambda x, k: 0.5 * x * (3 - x), 9, torch.ones(9))
    start = torch.tensor([[0.3, 1.2], [0.7, 0.1]], dtype=dtype)
    found = Sweeps(4, form=form, depth=depth).run(chain, start).require()
    assert torch.equal(found.value, chain.sequential(start)[:, -1])


def test_no_rows_no_calls() -> None:
    found = Sweeps().run(Chain(lambda x, k: x, 3), torch.zeros(0, 2))
    assert (found.calls, found.value.shape) == (0, (0, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window must be an integer >= 1, got 0"),
        ({"window": 2.5}, r"window must be an integer >= 1, got 2\.5"),
        ({"depth": -1}, "depth must be an integer >= 0, got -1"),
        ({"max_sweeps": 0}, "max_sweeps must be an integer >= 1, got 0"),
        ({"tolerance": -1.0}, r"tolerance must be a finite number >= 0, got -1\.0"),
        ({"tolerance": math.nan}, "tolerance must be a finite number >= 0, got nan"),
        ({"tolerance": "x"}, "tolerance must be a finite number >= 0, got 'x'"),
        ({"tolerance": True}, "tolerance must be a finite number >= 0, got True"),
        ({"form": "gauss"}, "form must be one of jacobi, sum, implicit, secant, got 'gauss'"),
    ],
)
def test_settings_it_refuses(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweeps(**settings)


def test_runs_it_refuses() -> None:
    chain, start = example(chaotic, 5, 2)
    with pytest.raises(ValueError, match="window must be at most the length of the chain, 5, got 6"):
        Sweeps(window=6).run(chain, start)
    with pytest.raises(ValueError, match='form "implicit" needs the linear part'):
        Sweeps(form="implicit").run(Chain(lambda x, k: x, 5), start)
    with pytest.raises(ValueError, match=r"step must keep shape and dtype, \(10, 2\) .* got \(10,\)"):
        Sweeps().run(Chain(lambda x, k: x[:, 0], 5), torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Chain(3, 4), TypeError, "step must be callable, got int"),  # type: ignore[arg-type]
        (lambda: Chain(torch.cos, 0), ValueError, "length must be an integer >= 1, got 0"),
        (lambda: Chain(torch.cos, 3, torch.ones(2)), ValueError, r"linear must hold one .* 3 steps, got \(2,\)"),
        (
            lambda: Chain(torch.cos, 2, torch.tensor([1.0, math.inf])),
            ValueError,
            "linear must be finite, got NaN or Inf",
        ),
        (lambda: Chain(torch.cos, 3, [1.0] * 3), TypeError, "linear must be a tensor, got list"),  # type: ignore[arg-type]
        (lambda: Chain(torch.cos, 3).at([[1.0]]), TypeError, r"start must be a tensor .* got \[\[1\.0\]\]"),  # type: ignore[arg-type]
        (
            lambda: Chain(torch.cos, 3).at(torch.ones(2, 1).long()),
            TypeError,
            r"real floating numbers, got torch\.int64",
        ),
        (lambda: Chain(torch.cos, 3).at(torch.ones(2, 1) * 1j), TypeError, r"floating numbers, got torch\.complex64"),
        (lambda: Chain(torch.cos, 3).at(torch.tensor(1.0)), ValueError, r"start must be \(B, \.\.\.\) .* got \(\)"),
        (lambda: Chain(torch.cos, 3).at(torch.ones(4)), ValueError, r"at least one number a row, got \(4,\)"),
        (lambda: Chain(torch.cos, 3).at(torch.ones(4, 0)), ValueError, r"at least one number a row, got \(4, 0\)"),
        (
            lambda: Chain(torch.cos, 3, context=(torch.ones(3),)).at(torch.ones(2, 1)),
            ValueError,
            r"context must lead with \(2,\) for start \(2, 1\), got \(3,\)",
        ),
        (
            lambda: Chain(torch.cos, 3, inputs=(torch.ones(2, 4),)).at(torch.ones(2, 1)),
            ValueError,
            r"inputs must lead with \(2, 3\) for start \(2, 1\), got \(2, 4\)",
        ),
    ],
)
def test_chains_it_refuses(build, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()
