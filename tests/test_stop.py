"""When a solve ends: what FixedSteps and Tolerance accept, and that they are kept."""

from __future__ import annotations

import pytest
import torch
from tests.cells import DOUBLE, Counted, factors

from settlepoint import Equation, FixedSteps, Halpern, Picard, Status, Tolerance, solve


def test_fixed_steps_are_picard_iterates():
    """x/2 + 1 from 0: after N steps 2 - 2^(1-N), by hand."""
    eq, _ = factors([0.5])
    for steps in range(6):
        sol = solve(eq, torch.zeros(1, 3, dtype=DOUBLE), stop=FixedSteps(steps))
        assert sol.value[0, 0].item() == 2 - 2.0 ** (1 - steps)
        assert (sol.steps.tolist(), sol.evals.tolist(), sol.work) == ([steps], [steps], steps)
        assert sol.status.tolist() == [Status.COMPLETED]
        assert bool(sol.residual.isnan().all())
        assert sol.require() is sol


def test_check_spends_one_more():
    eq, _ = factors([0.5])
    T = Counted(eq.operator)
    with torch.no_grad():
        sol = solve(Equation(T, eq.f, context=eq.context), stop=FixedSteps(3, check=True))
    assert T.calls == int(sol.evals) == sol.work == 4
    assert float(sol.residual) == pytest.approx(float(eq.residual(sol.value).norm()))


def test_a_number_of_steps_a_row():
    """Rows of one batch after 0, 1 and 3 steps of x/2 from 8."""
    x0 = torch.full((3, 1), 8.0)
    sol = solve(Equation(lambda x: x / 2), x0, stop=FixedSteps(torch.tensor([0, 1, 3])))
    assert sol.value.flatten().tolist() == [8, 4, 1]
    assert sol.steps.tolist() == [0, 1, 3]


def test_a_range_of_steps_is_drawn_anew():
    generator = torch.Generator().manual_seed(0)
    stop = FixedSteps(range(1, 7), generator=generator)
    seen = [int(solve(Equation(lambda x: x / 2), torch.ones(1, 1), stop=stop).steps) for _ in range(60)]
    assert set(seen) == set(range(1, 7))
    generator.manual_seed(0)
    again = [int(solve(Equation(lambda x: x / 2), torch.ones(1, 1), stop=stop).steps) for _ in range(60)]
    assert seen == again


def test_the_trace_of_fixed_steps():
    eq, _ = factors([0.5, 0.25])
    sol = solve(eq, torch.zeros(2, 3, dtype=DOUBLE), stop=FixedSteps(4), trace=True)
    first = 3**0.5
    assert torch.allclose(sol.trace.residual[:, 0], first * 0.5 ** torch.arange(4, dtype=DOUBLE))
    assert sol.trace.evals.tolist() == [[k, k] for k in (1, 2, 3, 4)]
    empty = solve(eq, stop=FixedSteps(0), trace=True).trace
    assert empty.residual.shape == empty.evals.shape == (0, 2)


@pytest.mark.parametrize("rtol", [1e-3, 1e-8])
def test_rtol_is_relative_to_the_image(rtol):
    """The first step at which |r| <= rtol |P|, of a plain loop."""
    eq, _ = factors([0.9])
    x, steps = torch.zeros(1, 3, dtype=DOUBLE), 1
    while float((eq.image(x) - x).norm()) > rtol * float(eq.image(x).norm()):
        x, steps = eq.image(x), steps + 1
    sol = solve(eq, torch.zeros(1, 3, dtype=DOUBLE), stop=Tolerance(0.0, rtol, max_steps=500))
    assert abs(int(sol.steps) - steps) <= 1  # Picard adds r to x: the last bit may differ
    assert sol.counts() == {"CONVERGED": 1}


@pytest.mark.parametrize("every", [1, 2, 7, 50])
def test_every_looks_late_but_never_beyond_max_steps(every):
    eq, _ = factors([0.5])
    first = int(solve(eq, torch.zeros(1, 3, dtype=DOUBLE)).steps)
    sol = solve(eq, torch.zeros(1, 3, dtype=DOUBLE), stop=Tolerance(every=every, max_steps=40))
    assert int(sol.steps) == min(-(-first // every) * every, 40)
    assert sol.counts() == {"CONVERGED": 1}
    assert int(solve(eq, stop=Tolerance(1e-300, max_steps=9, every=every)).steps) == 9


def test_growth_ends_a_row_that_runs_away():
    """2x from 1: residual 2^k, above 10 at the fifth look and above 1000 at the eleventh."""
    for growth, steps in ((10.0, 5), (1e3, 11)):
        sol = solve(Equation(lambda x: 2 * x), torch.ones(1, 1, dtype=DOUBLE), stop=Tolerance(growth=growth))
        assert (sol.status.tolist(), sol.steps.tolist()) == ([Status.DIVERGED], [steps])
        assert float(sol.value) == 1.0  # the best look was the first


def test_window_ends_a_row_without_progress():
    """x + 1 never gets better: given up `window` steps after the first look."""
    for window in (5, 20):
        sol = solve(Equation(lambda x: x + 1), torch.zeros(1, 1, dtype=DOUBLE), stop=Tolerance(window=window))
        assert sol.steps.tolist() == [1 + window]
        sol = solve(Equation(lambda x: x + 1), torch.zeros(1, 1, dtype=DOUBLE), Halpern(), Tolerance(window=window))
        assert sol.steps.tolist() == [1 + window]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FixedSteps(-1), "steps must be an integer >= 0, a range or a tensor, got -1"),
        (lambda: FixedSteps(2.5), "got 2.5"),
        (lambda: FixedSteps(True), "got True"),
        (lambda: FixedSteps([3]), r"got \[3\]"),
        (lambda: FixedSteps(range(0)), r"non-empty range of counts >= 0, got range\(0, 0\)"),
        (lambda: FixedSteps(range(-1, 3)), "non-empty range of counts"),
        (lambda: FixedSteps(torch.tensor(3)), r"vector of integers, got \(\) of torch.int64"),
        (lambda: FixedSteps(torch.tensor([1.0])), "vector of integers, got .* torch.float32"),
        (lambda: Tolerance(-1e-3), "atol must be a finite number >= 0, got -0.001"),
        (lambda: Tolerance(float("nan")), "atol must be a finite number >= 0, got nan"),
        (lambda: Tolerance(rtol=float("inf")), "rtol must be a finite number >= 0, got inf"),
        (lambda: Tolerance(max_steps=0), "max_steps must be an integer >= 1, got 0"),
        (lambda: Tolerance(max_steps=1.5), "max_steps must be an integer >= 1, got 1.5"),
        (lambda: Tolerance(every=0), "every must be an integer >= 1, got 0"),
        (lambda: Tolerance(window=True), "window must be an integer >= 1, got True"),
        (lambda: Tolerance(growth=1.0), "growth must be > 1, got 1.0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("steps", [[True, False, True], [1, -1, 2]], ids=str)
def test_counts_of_steps_are_counts(steps):
    with pytest.raises(ValueError, match="steps must"):
        FixedSteps(torch.tensor(steps))


@pytest.mark.parametrize("steps", [[1], [1, 2]], ids=str)
def test_counts_of_steps_fit_the_rows(steps):
    with pytest.raises(ValueError, match="steps must"):
        solve(Equation(lambda x: x / 2), torch.ones(3, 2), stop=FixedSteps(torch.tensor(steps)))


def test_stops_are_values():
    assert FixedSteps(3) == FixedSteps(3)
    assert Tolerance(1e-3) != Tolerance(1e-4)
    assert repr(Tolerance()) == "Tolerance(atol=1e-06, rtol=0.0, max_steps=100, every=1, growth=1000.0, window=20)"
    assert solve(Equation(lambda x: x / 2), torch.ones(1), Picard()).converged.all()
