"""Compaction, and the books: which rows are gathered, when it is refused, that work and evals count what was called.

Oracle of the counts: an operator that counts its own calls and rows.
"""

from __future__ import annotations

import pytest
import torch
from tests.cells import DOUBLE, Counted, factors
from torch import Tensor, nn

from settlepoint import (
    Anderson,
    Auto,
    Broyden,
    Equation,
    FixedSteps,
    Halpern,
    NewtonKrylov,
    Picard,
    Rows,
    Safeguarded,
    Segments,
    Solver,
    Status,
    Tolerance,
    Unrolled,
    solve,
)
from settlepoint.solvers.picard import Picard as PicardSolver

RATES = [0.1, 0.2, 0.3, 0.5, 0.5, 0.7, 0.9, 0.95]
STOP = Tolerance(1e-9, max_steps=600)


def mixed(rates: list[float] = RATES) -> tuple[Equation, Tensor, Counted]:
    eq, answer = factors(rates)
    counted = Counted(eq.operator)
    return Equation(counted, eq.f, context=eq.context), answer, counted


# ---- it pays, and changes nothing ----------------------------------------------------------------------------------


def test_finished_rows_are_no_longer_computed():
    eq, answer, _ = mixed()
    with torch.no_grad():
        sol = solve(eq, stop=STOP, adjoint=Unrolled())
    longest = int(sol.steps.max())
    assert sol.counts() == {"CONVERGED": 8}
    assert sol.work <= 1.5 * int(sol.steps.sum())  # 25 % of waste are allowed before rows are gathered
    assert sol.work < 0.5 * 8 * longest
    assert float((sol.value - answer).abs().max()) <= 1e-9 / 0.05


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden(), NewtonKrylov(inner=2), Halpern()], ids=str)
@pytest.mark.parametrize("compact", ["auto", True])
def test_the_same_numbers_with_and_without(solver: Solver, compact):
    """Elementwise operators are the same for any batch: bit for bit, and step for step."""
    eq, _, _ = mixed()
    run = lambda c: solve(eq, solver=solver, stop=STOP, adjoint=Unrolled(), compact=c, trace=True)  # noqa: E731
    with torch.no_grad():
        a, b = run(compact), run(False)
    assert torch.equal(a.steps, b.steps)
    assert float((a.value - b.value).abs().max()) <= 1e-12 * float(b.value.abs().max())
    assert torch.equal(a.trace.residual.isnan(), b.trace.residual.isnan())
    assert a.work <= b.work


def test_the_order_of_rows_is_kept():
    """Rows that finish in the order 3, 0, 2, 1 come back in theirs."""
    eq, answer, _ = mixed([0.5, 0.95, 0.8, 0.1])
    sol = solve(eq, stop=STOP)
    assert torch.allclose(sol.value, answer, atol=1e-7)
    assert sol.steps.argsort().tolist() == [3, 0, 2, 1]


def test_everything_with_a_leading_entry_is_gathered():
    """f, lam, scale and context; the operator sees the same row numbers in all of them."""
    n = 6
    numbers = torch.arange(n, dtype=DOUBLE)
    rates = torch.linspace(0.1, 0.95, n, dtype=DOUBLE)

    def T(x: Tensor, number: Tensor, shared: Tensor) -> Tensor:
        assert shared.ndim == 0
        assert len(x) == len(number)
        return x * (1 + 0 * number[:, None])

    f = (1 - rates)[:, None] * numbers[:, None].expand(n, 2)
    eq = Equation(T, f, lam=rates, context=(numbers, torch.tensor(3.0)), scale=numbers)
    sol = solve(eq, stop=STOP)
    assert not sol.notes
    assert torch.allclose(sol.value, numbers[:, None].expand(n, 2), atol=1e-7)  # x = a x + (1 - a) k is k
    index = torch.tensor([4, 1])
    part = eq.at(f).rows(index)
    assert torch.equal(part.scale, numbers[index])
    assert torch.equal(part.lam, rates[index])
    assert part.context[1] is eq.context[1]


def test_several_tensors_are_gathered():
    a = torch.tensor([0.1, 0.5, 0.95], dtype=DOUBLE)[:, None]
    eq = Equation(lambda x, a: (a * x[0], a * x[1] + 1), (torch.ones_like(a), 0 * a), context=(a,))
    sol = solve(eq, stop=STOP)
    assert not sol.notes
    assert torch.allclose(sol.value[0], 1 / (1 - a), atol=1e-7)


# ---- it is refused -------------------------------------------------------------------------------------------------


def refused(eq: Equation, answer: Tensor, reason: str, x0: Tensor | None = None) -> None:
    sol = solve(eq, x0, stop=STOP)
    assert any("compaction off" in note and reason in note for note in sol.notes), sol.notes
    assert sol.counts() == {"CONVERGED": len(answer)}
    assert torch.allclose(sol.value, answer, atol=1e-7)


def test_closure_over_a_batch_sized_tensor():
    a = torch.tensor(RATES, dtype=DOUBLE)[:, None]
    f = torch.ones(8, 3, dtype=DOUBLE)
    refused(Equation(lambda x: a * x, f), 1 / (1 - a).expand(8, 3), "size of tensor")


def test_closure_that_broadcasts_over_the_gathered_row():
    """Two rows, one left: the closure's two rows broadcast over it."""
    a = torch.tensor([[0.1], [0.9]], dtype=DOUBLE)
    refused(Equation(lambda x: a * x, torch.ones(2, 3, dtype=DOUBLE)), 1 / (1 - a).expand(2, 3), "shape of x")


def test_closure_that_indexes_from_the_front():
    """The first rows of a closure are taken for whatever rows there are: no error, other numbers."""
    a = torch.tensor(RATES, dtype=DOUBLE)[:, None]
    refused(
        Equation(lambda x: a[: len(x)] * x, torch.ones(8, 3, dtype=DOUBLE)), 1 / (1 - a).expand(8, 3),
        "gathered rows differs",
    )  # fmt: skip


def test_operator_with_a_mean_over_the_batch():
    """x = a x/2 + mean(x)/4 + 1; oracle: torch.linalg.solve of the coupled system."""
    a = torch.linspace(0.0, 1.5, 6, dtype=DOUBLE)
    system = torch.diag(1 - a / 2) - torch.full((6, 6), 0.25 / 6, dtype=DOUBLE)
    answer = torch.linalg.solve(system, torch.ones(6, 1, dtype=DOUBLE))
    T = lambda x, a: a[:, None] * x / 2 + x.mean(0) / 4  # noqa: E731
    eq = Equation(T, torch.ones(6, 1, dtype=DOUBLE), context=(a,))
    assert torch.allclose(solve(eq, stop=STOP, compact=False).value, answer, atol=1e-6)
    sol = solve(eq, stop=STOP)
    assert any("gathered rows differs" in note for note in sol.notes) or not bool((sol.steps < sol.steps.max()).any())
    assert torch.allclose(sol.value, answer, atol=1e-6)


def test_batch_norm_in_training(generator):
    """Batch statistics tie rows together: the whole batch is iterated, and equals the uncompacted solve."""
    norm = nn.BatchNorm1d(3, momentum=None, track_running_stats=False).double()
    context = torch.linspace(0.05, 0.6, 8, dtype=DOUBLE)[:, None]
    f = torch.randn(8, 3, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x, a: a * torch.tanh(0.3 * norm(x)), f, context=(context,))
    with torch.no_grad():
        a, b = solve(eq, stop=STOP), solve(eq, stop=STOP, compact=False)
    assert any("batch statistics" in note for note in a.notes)
    assert torch.equal(a.value, b.value)
    assert torch.equal(a.status, b.status)


def test_randomness_is_noticed(generator):
    a = torch.tensor(RATES, dtype=DOUBLE)[:, None]
    noise = lambda x: 1e-6 * torch.rand(x.shape, dtype=DOUBLE, generator=generator)  # noqa: E731
    eq = Equation(lambda x, a: a * x + noise(x), torch.ones(8, 3, dtype=DOUBLE), context=(a,))
    assert any("randomness" in note for note in solve(eq, stop=Tolerance(1e-4, max_steps=300)).notes)


def test_compact_true_trusts_the_operator():
    eq, _, _ = mixed()
    with torch.no_grad():
        checked, trusted = (solve(eq, stop=STOP, adjoint=Unrolled(), compact=c) for c in ("auto", True))
    assert int((checked.evals - trusted.evals).max()) == 1  # the check is the difference
    assert bool((checked.evals >= trusted.evals).all())


def test_one_row_is_never_gathered():
    eq, _, T = mixed([0.5])
    with torch.no_grad():
        sol = solve(eq, stop=STOP, adjoint=Unrolled())
    assert T.calls == sol.work == int(sol.evals)


# ---- segments ------------------------------------------------------------------------------------------------------


def graphs() -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 2, 1 and 3 nodes with one factor each: x = a x + 1."""
    index = torch.tensor([0, 0, 1, 2, 2, 2])
    return index, torch.tensor([0.1, 0.9, 0.6], dtype=DOUBLE)[index][:, None], torch.ones(6, 2, dtype=DOUBLE)


def segment_select(eq: Equation, rows: Tensor) -> Equation:
    """Nodes of the chosen rows, renumbered."""
    index = eq.context[1]
    keep = torch.isin(index, rows)
    number = torch.full((int(index.max()) + 1,), -1).scatter(0, rows, torch.arange(len(rows)))
    renumbered = number[index[keep]]
    return Equation(
        eq.operator, eq.f[keep], space=Segments(renumbered, len(rows)), context=(eq.context[0][keep], renumbered),
        select=segment_select,
    )  # fmt: skip


@pytest.mark.parametrize("solver", [Picard(), Anderson(), NewtonKrylov(inner=2)], ids=str)
def test_segments_with_select(solver):
    index, a, f = graphs()
    eq = Equation(lambda x, a, index: a * x, f, space=Segments(index, 3), context=(a, index), select=segment_select)
    with torch.no_grad():
        sol = solve(eq, solver=solver, stop=STOP, adjoint=Unrolled())
        whole = solve(eq, solver=solver, stop=STOP, adjoint=Unrolled(), compact=False)
    assert not sol.notes
    assert sol.counts() == {"CONVERGED": 3}
    assert torch.allclose(sol.value, 1 / (1 - a).expand(6, 2), atol=1e-7)
    assert torch.equal(sol.steps, whole.steps)
    assert sol.work <= whole.work


def test_segments_without_select():
    index, a, f = graphs()
    sol = solve(Equation(lambda x: a * x, f, space=Segments(index, 3)), stop=STOP)
    assert sol.notes == ("compaction off: the equation's space needs a select to restrict it to some rows",)
    assert torch.allclose(sol.value, 1 / (1 - a).expand(6, 2), atol=1e-7)
    assert sol.steps.argsort().tolist() == [0, 2, 1]


def test_a_select_that_is_wrong_is_noticed():
    def select(eq: Equation, rows: Tensor) -> Equation:
        return Equation(eq.operator, eq.f[rows], context=(eq.context[0][rows.flip(0)],), select=select)

    eq, answer = factors(RATES)
    refused(Equation(eq.operator, eq.f, context=eq.context, select=select), answer, "gathered rows differs")


def test_select_of_rows():
    """A select for Rows replaces the built-in gathering."""
    seen = []

    def select(eq: Equation, rows: Tensor) -> Equation:
        seen.append(rows.tolist())
        return Equation(eq.operator, eq.f[rows], context=(eq.context[0][rows],), select=select)

    eq, answer = factors([0.1, 0.5, 0.95])
    sol = solve(Equation(eq.operator, eq.f, context=eq.context, select=select), stop=STOP)
    assert torch.allclose(sol.value, answer, atol=1e-7)
    assert seen[0] == [1, 2]
    assert seen[-1][-1] == 1  # numbered within the batch that was left


# ---- the books -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("compact", ["auto", True, False])
@pytest.mark.parametrize(
    "solver", [Picard(), Anderson(), Halpern(), Safeguarded(Anderson(), Picard()), NewtonKrylov(inner=2)], ids=str
)
def test_work_is_what_was_called(solver, compact, every):
    """Row-evaluations: NewtonKrylov calls through torch.func.jvp, whose tensors have their rows too."""
    eq, _, T = mixed()
    with torch.no_grad():
        stop = Tolerance(1e-9, max_steps=600, every=every)
        sol = solve(eq, solver=solver, stop=stop, adjoint=Unrolled(), compact=compact)
    assert sol.work == T.rows
    if compact is False:
        assert int(sol.evals.max()) == T.calls


def test_work_of_a_check_that_fails():
    a = torch.tensor(RATES, dtype=DOUBLE)[:, None]
    T = Counted(lambda x: a[: len(x)] * x)
    with torch.no_grad():
        sol = solve(Equation(T, torch.ones(8, 3, dtype=DOUBLE)), stop=STOP, adjoint=Unrolled())
    assert sol.notes
    assert sol.work == T.rows
    assert int(sol.evals.max()) == T.calls


@pytest.mark.parametrize("check", [False, True])
def test_work_of_fixed_steps(check):
    for solver, each in ((Picard(), 1), (NewtonKrylov(inner=3), 4)):
        eq, _, T = mixed()
        with torch.no_grad():
            sol = solve(eq, solver=solver, stop=FixedSteps(5, check=check))
        assert sol.work == T.rows == 8 * (5 * each + check)
        assert sol.evals.tolist() == [T.calls] * 8


def test_work_of_auto():
    """Its trials are counted too."""
    eq, _, T = mixed()
    with torch.no_grad():
        sol = solve(eq, solver=Auto(), stop=STOP, adjoint=Unrolled())
    assert sol.work == T.rows


class Extra(PicardSolver):
    """Picard that calls the operator once more a step, and says so by a tensor."""

    def step(self, eq, z, r, state):
        eq.flat(z)
        moved, state, _ = super().step(eq, z, r, state)
        return moved, state, torch.ones(len(z), dtype=torch.int64)


def test_evals_with_extras_as_a_tensor():
    eq, _, T = mixed([0.5, 0.5])
    with torch.no_grad():
        sol = solve(eq, solver=Extra(), stop=STOP, adjoint=Unrolled())
    assert sol.evals.tolist() == [T.calls] * 2
    assert sol.evals.tolist() == (2 * sol.steps - 1).tolist()


@pytest.mark.parametrize("stop", [STOP, FixedSteps(4)], ids=str)
def test_work_with_extras_as_a_tensor(stop):
    eq, _, T = mixed()
    with torch.no_grad():
        sol = solve(eq, solver=Extra(), stop=stop, adjoint=Unrolled())
    assert sol.work == T.rows


@pytest.mark.parametrize("compact", [False, True, "auto"])
def test_the_trace_counts_as_the_solution_does(compact):
    """Never less than before, and at a row's last look what Solution.evals says."""
    eq, _, _ = mixed()
    sol = solve(eq, stop=STOP, trace=True, compact=compact)
    evals = sol.trace.evals
    assert bool((evals.diff(dim=0) >= 0).all())
    for row, steps in enumerate(sol.steps.tolist()):
        assert int(evals[steps - 1, row]) == int(sol.evals[row])


def test_the_trace_ends_with_its_row():
    eq, _, _ = mixed()
    sol = solve(eq, stop=STOP, trace=True)
    residual = sol.trace.residual
    assert residual.shape == (int(sol.steps.max()), 8)
    for row, steps in enumerate(sol.steps.tolist()):
        assert bool(residual[:steps, row].isfinite().all())
        assert bool(residual[steps:, row].isnan().all())
        assert float(residual[steps - 1, row]) == float(sol.residual[row])


def test_weights_go_with_the_rows():
    """Gathered rows stop by the same norm."""
    space = Rows(torch.tensor([1e-4, 1.0, 1e4], dtype=DOUBLE))
    eq, _ = factors(RATES)
    eq = Equation(eq.operator, eq.f, space=space, context=eq.context)
    a, b = (solve(eq, stop=STOP, compact=c) for c in (True, False))
    assert torch.equal(a.steps, b.steps)
    gap = (space.weights * eq.residual(a.value) ** 2).sum(1).sqrt()
    assert bool((gap <= 1e-9).all())
    assert {Status(s) for s in a.status.tolist()} == {Status.CONVERGED}
