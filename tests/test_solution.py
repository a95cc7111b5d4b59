"""Solution, Status, Trace and SolveError: what a reader of an answer gets."""

from __future__ import annotations

import pickle

import pytest
import torch
from tests.cells import DOUBLE, factors

from settlepoint import Equation, FixedSteps, Solution, SolveError, Status, Tolerance, solve


def answer(status: list[Status], **changes) -> Solution:
    n = len(status)
    count = torch.arange(n) + 7
    given = {"value": torch.zeros(n, 2), "steps": count, "evals": count, "work": 9, "residual": torch.full((n,), 0.125)}
    return Solution(status=torch.tensor([int(s) for s in status], dtype=torch.int64), **(given | changes))


def test_require_accepts_converged_and_completed():
    good = answer([Status.CONVERGED, Status.COMPLETED])
    assert good.require() is good
    assert answer([]).require().status.shape == (0,)


@pytest.mark.parametrize("status", [s for s in Status if s > Status.COMPLETED], ids=lambda s: s.name)
def test_require_names_row_status_residual_and_advice(status):
    sol = answer([Status.CONVERGED, status, status])
    with pytest.raises(SolveError) as caught:
        sol.require()
    text = str(caught.value)
    assert "2 of 3 rows did not converge; row 1 is " + status.name in text
    assert "after 8 evaluations with residual 0.125." in text
    assert text.endswith(status.advice)
    assert caught.value.solution is sol


def test_counts_and_converged():
    sol = answer([Status.DIVERGED, Status.CONVERGED, Status.DIVERGED])
    assert sol.counts() == {"CONVERGED": 1, "DIVERGED": 2}
    assert sol.converged.tolist() == [False, True, False]
    assert answer([]).counts() == {}


def test_statuses_are_ordered_and_advise():
    names = "CONVERGED COMPLETED MAX_STEPS STALLED CYCLING DIVERGED NONFINITE NO_FIXED_POINT"
    assert [s.name for s in Status] == names.split()
    assert [int(s) for s in Status] == list(range(8))
    assert len({s.advice for s in Status}) == 8


def test_detach_keeps_the_report():
    f = torch.ones(2, 3, dtype=DOUBLE, requires_grad=True)
    sol = solve(Equation(lambda x: 0.5 * x, f), trace=True, compact=False)
    bare = sol.detach()
    assert not bare.value.requires_grad
    assert torch.equal(bare.value, sol.value)
    assert bare.state is None
    assert (bare.work, bare.notes, bare.trace) == (sol.work, sol.notes, sol.trace)
    assert bare.gradient is sol.gradient  # filled in backward, after the layer has let go of the graph
    pair = solve(Equation(lambda x: (0.5 * x[0], 0.5 * x[1]), (f, f))).detach()
    assert not any(t.requires_grad for t in pair.value)


def test_a_solution_pickles():
    eq, _ = factors([0.5, 0.9])
    sol = solve(eq, trace=True, stop=Tolerance(1e-4))
    twin = pickle.loads(pickle.dumps(sol))
    assert torch.equal(twin.value, sol.value)
    assert torch.equal(twin.trace.residual.nan_to_num(), sol.trace.residual.nan_to_num())


def test_shapes_and_dtypes():
    """(R,) each, counts in int64, the residual in the dtype of the flat view."""
    eq, _ = factors([0.5, 0.9], dtype=torch.float32)
    for stop in (Tolerance(1e-3, max_steps=300), FixedSteps(3), FixedSteps(3, check=True)):
        sol = solve(eq, stop=stop)
        assert sol.status.shape == sol.steps.shape == sol.evals.shape == sol.residual.shape == (2,)
        assert sol.status.dtype == sol.steps.dtype == sol.evals.dtype == torch.int64
        assert sol.residual.dtype == torch.float32
        assert isinstance(sol.work, int)
        assert sol.trace is None


def test_solve_error_carries_the_solution():
    sol = answer([Status.DIVERGED])
    error = SolveError("text", sol)
    assert isinstance(error, RuntimeError)
    assert error.solution is sol
