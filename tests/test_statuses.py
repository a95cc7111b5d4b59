"""The twelve cases of specs/solvers.md: what a status means, by maps whose course is known by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from tests.cells import DOUBLE, affine, rotation
from torch import Tensor

from settlepoint import (
    Anderson,
    Broyden,
    Equation,
    Halpern,
    NewtonKrylov,
    Picard,
    Safeguarded,
    Solver,
    Status,
    Tolerance,
    Unrolled,
    solve,
)


def nan_at_step(step: int) -> Callable[[Tensor], Tensor]:
    """x/2, and NaN from that call on."""
    calls = 0

    def T(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 0.5 * x if calls < step else x * math.nan

    return T


def slow_float32() -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """64 dimensions, rate .9, float32: its residual cannot fall to 1e-9."""
    cell = affine(torch.Generator().manual_seed(7), rows=1, width=64, dtype=torch.float32)
    return lambda x: x @ cell.W + cell.f, cell.f


@dataclass(frozen=True)
class Case:
    """operator made anew, start, the statuses that are right, and the evaluations it may take."""

    name: str
    operator: Callable[[], Callable[[Tensor], Tensor]]
    x0: Callable[[], Tensor]
    right: tuple[Status, ...]
    evals: int
    solver: Callable[[], Solver] = Picard
    atol: float = 1e-6
    max_steps: int = 100

    def __str__(self) -> str:
        return self.name


def column(*values: float) -> Callable[[], Tensor]:
    return lambda: torch.tensor([list(values)], dtype=DOUBLE)


def kind(solver: Solver) -> str:
    return type(solver).__name__


S = Status
CASES = (
    Case("2z+1", lambda: lambda z: 2 * z + 1, column(1.0), (S.DIVERGED,), 50),
    Case("1-z", lambda: lambda z: 1 - z, column(0.0), (S.CYCLING,), 50),
    Case("z+1 Halpern", lambda: lambda z: z + 1, column(0.0), (S.NO_FIXED_POINT,), 100, Halpern),
    Case("z+1 Picard", lambda: lambda z: z + 1, column(0.0), (S.DIVERGED, S.MAX_STEPS), 100),
    Case("z*z from 2", lambda: lambda z: z * z, column(2.0), (S.DIVERGED, S.NONFINITE), 20),
    Case("z/2", lambda: lambda z: z / 2, column(1.0), (S.CONVERGED,), 21),
    Case("NaN at step 5", lambda: nan_at_step(5), column(1.0), (S.NONFINITE,), 5),
    Case("NaN in x0", lambda: lambda z: z / 2, column(math.nan), (S.NONFINITE,), 1),
    Case(
        "float32 at its floor", lambda: slow_float32()[0], lambda: slow_float32()[1], (S.STALLED,), 400, atol=1e-9,
        max_steps=1000,
    ),
    Case("rotation by 90 degrees", rotation, column(1.0, 0.0), (S.CYCLING,), 50),
    Case("rotation scaled by 1.1", lambda: rotation(1.1), column(1.0, 0.0), (S.DIVERGED,), 100),
    Case("x0 is a fixed point", lambda: lambda z: 0.5 * z + 1, column(2.0, 2.0), (S.CONVERGED,), 1),
    Case("empty batch", lambda: lambda z: z / 2, lambda: torch.zeros(0, 3), (), 0),
    Case("state without entries", lambda: lambda z: z / 2, lambda: torch.zeros(4, 0), (S.CONVERGED,), 1),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twelve_cases(case: Case):
    x0 = case.x0()
    stop = Tolerance(case.atol, max_steps=case.max_steps)
    sol = solve(Equation(case.operator()), x0, case.solver(), stop, Unrolled())
    found = {Status(s) for s in sol.status.tolist()}
    assert found <= set(case.right)
    assert len(sol.status) == len(x0)
    assert sol.value.shape == x0.shape
    assert int(sol.evals.max() if len(sol.evals) else 0) <= case.evals


@pytest.mark.parametrize("every", [2, 3, 5, 8])
@pytest.mark.parametrize("case", [c for c in CASES if c.name != "NaN at step 5"], ids=str)
def test_rare_looks_tell_the_same(case: Case, every: int):
    """Looking every few steps finds the same."""
    stop = Tolerance(case.atol, max_steps=1000, every=every)
    sol = solve(Equation(case.operator()), case.x0(), case.solver(), stop, Unrolled())
    assert {Status(s) for s in sol.status.tolist()} <= set(case.right)


def test_z_half_takes_twenty_evaluations():
    """|P(z) - z| = 2^-(k+1) after k steps, below 1e-6 first at k = 19: by hand 20 evaluations."""
    sol = solve(Equation(lambda z: z / 2), torch.ones(1, 1, dtype=DOUBLE))
    assert (int(sol.steps), int(sol.evals), sol.work) == (20, 20, 20)
    assert float(sol.residual) == 2.0**-20


def test_nan_keeps_the_best_value():
    """After 4 good evaluations of x/2 from 1 the best iterate is 1/8, with residual 1/16."""
    sol = solve(Equation(nan_at_step(5)), torch.ones(1, 1, dtype=DOUBLE), adjoint=Unrolled())
    assert float(sol.value) == 0.125
    assert float(sol.residual) == 0.0625
    assert "best iterate" in Status.NONFINITE.advice


def test_halpern_reports_the_displacement():
    sol = solve(Equation(lambda z: z + 1), torch.zeros(2, 3, dtype=DOUBLE), Halpern())
    assert sol.displacement is not None
    assert torch.allclose(sol.displacement, torch.ones(2, 3, dtype=DOUBLE), atol=1e-6)


def test_displacement_survives_a_row_that_is_done_at_once():
    shift = torch.tensor([[0.0], [1.0]])
    sol = solve(Equation(lambda z, v: z + v, context=(shift,)), torch.zeros(2, 1), Halpern())
    assert sol.status.tolist() == [S.CONVERGED, S.NO_FIXED_POINT]
    assert sol.displacement is not None
    assert abs(float(sol.displacement[1]) - 1) <= 1e-3


@pytest.mark.parametrize("period", range(2, 9))
def test_cycles_of_two_to_eight(period: int):
    """A cyclic permutation of `period` numbers comes back after `period` steps."""
    x0 = torch.eye(period, dtype=DOUBLE)[:1]
    sol = solve(Equation(lambda z: z.roll(1, 1)), x0)
    assert sol.status.tolist() == [S.CYCLING]
    assert int(sol.evals) <= 40


def test_a_cycle_of_nine_is_no_short_cycle():
    sol = solve(Equation(lambda z: z.roll(1, 1)), torch.eye(9, dtype=DOUBLE)[:1])
    assert sol.status.tolist() != [S.CONVERGED]
    assert sol.status.tolist() != [S.CYCLING]


@pytest.mark.parametrize("solver", [Picard(0.5), Halpern(), Anderson(), Broyden(), NewtonKrylov()], ids=str)
def test_what_the_advice_against_cycles_says(solver: Solver):
    """Status.CYCLING names damping, Halpern and Anderson: they settle 1 - z at 1/2."""
    sol = solve(Equation(lambda z: 1 - z), torch.zeros(1, 1, dtype=DOUBLE), solver)
    assert sol.require().value.item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    "solver", [NewtonKrylov(), Broyden(), Safeguarded(NewtonKrylov(), Picard())], ids=lambda s: s._get_name()
)
def test_what_the_advice_against_divergence_says(solver: Solver):
    """2 z + 1 has the fixed point -1, which Newton finds."""
    sol = solve(Equation(lambda z: 2 * z + 1), torch.ones(1, 1, dtype=DOUBLE), solver)
    assert sol.require().value.item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("max_steps", [1, 2, 3, 10])
def test_max_steps_is_kept(max_steps: int, every: int):
    sol = solve(Equation(lambda z: 0.9 * z), torch.ones(2, 2), stop=Tolerance(max_steps=max_steps, every=every))
    assert sol.status.tolist() == [S.MAX_STEPS] * 2
    assert sol.evals.tolist() == [max_steps] * 2


def test_slow_progress_is_not_stalled():
    """Rate .9999 shrinks the residual by 1e-4 a step: slow, but on its way for all of 400 steps."""
    sol = solve(Equation(lambda z: 0.9999 * z), torch.ones(1, 1, dtype=DOUBLE), stop=Tolerance(1e-12, max_steps=400))
    assert sol.status.tolist() == [S.MAX_STEPS]


def test_every_status_has_one_sentence():
    for status in Status:
        assert status.advice.endswith((".", ": check the operator and x0."))
        assert status.advice[0].isupper()
