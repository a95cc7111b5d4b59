"""The driver, with stub solvers that go wrong on purpose: what it measures, freezes, counts and refuses to believe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from tests.cells import DOUBLE, Counted, HostReads, factors, host_reads
from torch import Tensor

from settlepoint import Equation, FixedSteps, Solver, Status, Tolerance, Unrolled, iterate, solve
from settlepoint.solvers import State


@dataclass(frozen=True)
class Steps(State):
    """count: (R,) steps taken; seen: 0-d, shared."""

    count: Tensor
    seen: Tensor
    notes: tuple[str, ...] = ()


class Stub(Solver):
    """Picard, with a hook to spoil its step."""

    def init(self, eq, z, r):
        return Steps(z.new_zeros(len(z)), z.new_zeros(()))

    def spoil(self, z: Tensor, moved: Tensor, state: Steps) -> Tensor:
        return moved

    def step(self, eq, z, r, state):
        moved = self.spoil(z, z + r, state)
        return moved, Steps(state.count + 1, state.seen + 1, state.notes), 0


class NaNs(Stub):
    """A step that is not a number, from the third on."""

    def spoil(self, z, moved, state):
        return torch.where((state.count >= 2)[:, None], torch.full_like(z, math.nan), moved)


class Wanders(Stub):
    """Right for five steps, then off to somewhere far away."""

    def spoil(self, z, moved, state):
        return torch.where((state.count >= 5)[:, None], z + 100.0, moved)


class Sleeps(Stub):
    """Never moves."""

    def spoil(self, z, moved, state):
        return z


class Lies(Stub):
    """Tells by its notes that all is well, and jumps to a place that is no fixed point."""

    def init(self, eq, z, r):
        return Steps(z.new_zeros(len(z)), z.new_zeros(()), ("converged",))

    def spoil(self, z, moved, state):
        return z + 1e-9 * (moved - z)


class Hops(Stub):
    """Two steps ahead, one to a worse place."""

    def spoil(self, z, moved, state):
        worse = torch.remainder(state.count, 3) == 2
        return torch.where(worse[:, None], 3 * z + 0.5, moved)


EQ, ANSWER = factors([0.5, 0.25])
X0 = torch.zeros(2, 3, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("solver", "status", "best"),
    [(NaNs(), Status.NONFINITE, 2), (Wanders(), Status.DIVERGED, 5), (Sleeps(), Status.STALLED, 0)],
    ids=["nan", "wanders", "sleeps"],
)
def test_a_solver_that_goes_wrong(solver, status, best):
    """The best finite iterate comes back, with its true residual: that of `best` Picard steps."""
    sol = solve(EQ, X0, solver, Tolerance(1e-12, growth=100.0))
    assert sol.status.tolist() == [status] * 2
    expected = X0
    for _ in range(best):
        expected = EQ.image(expected)
    assert torch.allclose(sol.value, expected, rtol=1e-14)
    assert torch.allclose(sol.residual, EQ.residual(sol.value).norm(dim=1), rtol=1e-12)


def test_a_solver_is_not_believed():
    sol = solve(EQ, X0, Lies(), Tolerance(1e-6, max_steps=30))
    assert "CONVERGED" not in sol.counts()
    assert sol.notes == ("converged",)


def test_hops_are_forgiven():
    sol = solve(EQ, X0, Hops(), Tolerance(1e-1, max_steps=60))
    assert torch.allclose(sol.residual, EQ.residual(sol.value).norm(dim=1), rtol=1e-12)
    assert bool((sol.residual <= EQ.residual(X0).norm(dim=1)).all())


@dataclass(frozen=True)
class Nested(State):
    """A state with everything that may be in one."""

    inner: Steps
    several: tuple[Tensor, Tensor]
    number: int
    word: str
    none: None


class Nests(Stub):
    """Checks in every step that its state was gathered with the rows."""

    def init(self, eq, z, r):
        rows = torch.arange(len(z), dtype=z.dtype)
        steps = Steps(rows, z.new_zeros(()))
        return Nested(steps, (rows, z.clone()), 3, "word", None)

    def step(self, eq, z, r, state):
        assert len(state.inner.count) == len(state.several[0]) == len(state.several[1]) == len(z) == eq.layout.rows
        assert torch.equal(state.inner.count, eq.context[1])
        assert (state.number, state.word, state.none, state.inner.seen.ndim) == (3, "word", None, 0)
        return z + r, state, 0


def test_nested_states_are_gathered():
    a = torch.tensor([0.1, 0.5, 0.9, 0.95], dtype=DOUBLE)[:, None]
    numbers = torch.arange(4, dtype=DOUBLE)
    eq = Equation(lambda x, a, n: a * x, torch.ones(4, 1, dtype=DOUBLE), context=(a, numbers))
    sol = solve(eq, solver=Nests(), stop=Tolerance(1e-8, max_steps=500))
    assert sol.counts() == {"CONVERGED": 4}
    assert sol.work < 4 * int(sol.steps.max())


class Extras(Stub):
    """Calls the operator `calls` more times a step; says so as an int, or as a tensor."""

    def __init__(self, calls: int, as_tensor: bool):
        super().__init__()
        self.calls, self.as_tensor = calls, as_tensor

    def step(self, eq, z, r, state):
        for _ in range(self.calls):
            eq.flat(z)
        moved, state, _ = super().step(eq, z, r, state)
        return moved, state, z.new_full((len(z),), self.calls, dtype=torch.int64) if self.as_tensor else self.calls


@pytest.mark.parametrize("as_tensor", [False, True], ids=["int", "tensor"])
@pytest.mark.parametrize("stop", [Tolerance(), FixedSteps(5), FixedSteps(5, check=True)], ids=str)
def test_extra_evaluations(as_tensor, stop):
    """N evaluations of the driver and 2 (N - 1) of the solver, which does not step after the last look."""
    T = Counted(EQ.operator)
    eq = Equation(T, EQ.f, context=EQ.context)
    with torch.no_grad():
        sol = solve(eq, X0, Extras(2, as_tensor), stop, Unrolled(), compact=False, trace=True)
    assert int(sol.evals.max()) == T.calls
    after = 0 if isinstance(stop, Tolerance) else 2 + stop.check  # the last step of FixedSteps comes after its look
    assert sol.trace.evals.gather(0, sol.steps[None] - 1)[0].tolist() == (sol.evals - after).tolist()


def test_a_row_keeps_its_own_extras():
    """Rows that end early have fewer: evals = 3 steps - 2."""
    eq, _ = factors([0.1, 0.5, 0.9, 0.95])
    for as_tensor in (False, True):
        sol = solve(eq, solver=Extras(2, as_tensor), stop=Tolerance(1e-6, max_steps=500), compact=True)
        assert sol.evals.tolist() == (3 * sol.steps - 2).tolist()


def test_an_extra_tensor_may_differ_by_row():
    class Uneven(Stub):
        def step(self, eq, z, r, state):
            moved, state, _ = super().step(eq, z, r, state)
            return moved, state, torch.tensor([0, 5])[: len(z)]

    sol = solve(EQ, X0, Uneven(), FixedSteps(4))
    assert sol.evals.tolist() == [4, 24]


# ---- the loop itself -----------------------------------------------------------------------------------------------


def test_iterate_goes_on_where_it_stopped():
    """Three and then four steps with the state handed on are seven."""
    eq = EQ.at(X0)
    whole = iterate(eq, X0, Nudge(), FixedSteps(7))
    first = iterate(eq, X0, Nudge(), FixedSteps(3))
    second = iterate(eq, first.z, Nudge(), FixedSteps(4), state=first.state)
    assert torch.equal(whole.z, second.z)
    assert not torch.equal(whole.z, iterate(eq, first.z, Nudge(), FixedSteps(4)).z)


class Nudge(Stub):
    """Adds its step count, so that a lost state shows."""

    def spoil(self, z, moved, state):
        return moved + 0.01 * state.count[:, None]


def test_taken_says_how_many_steps_are_behind_a_value():
    """A value that converged at its n-th look has taken n - 1 steps; the best of a row that failed is its own."""
    eq = EQ.at(X0)
    out = iterate(eq, X0, Stub(), Tolerance())
    for row, taken in enumerate(out.taken.tolist()):
        z = X0
        for _ in range(taken):
            z = EQ.image(z)
        assert torch.allclose(z[row], out.z[row], rtol=1e-14)
    assert out.taken.tolist() == (out.steps - 1).tolist()
    assert iterate(eq, X0, Wanders(), Tolerance(1e-12, growth=100.0)).taken.tolist() == [5, 5]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_one_read_a_look(monkeypatch, every):
    with torch.no_grad(), host_reads(monkeypatch) as reads:
        sol = solve(EQ, X0, stop=Tolerance(every=every, rtol=1e-9))
    assert reads.looks == math.ceil(int(sol.steps.max()) / every)
    assert reads.scalars <= 1


def test_fixed_steps_read_nothing_with_a_trace():
    with torch.no_grad(), HostReads() as reads:
        solve(EQ, X0, stop=FixedSteps(5, check=True), trace=True)
    assert reads.count == 0


def test_inference_mode():
    with torch.inference_mode():
        sol = solve(EQ, X0.clone())
    assert sol.counts() == {"CONVERGED": 2}


def test_grad_mode_changes_no_number():
    with torch.no_grad():
        a = solve(EQ, X0, trace=True)
    b = solve(EQ, X0.clone().requires_grad_(), adjoint=Unrolled(), trace=True)
    assert torch.equal(a.value, b.value)
    assert torch.equal(a.trace.residual.nan_to_num(), b.trace.residual.nan_to_num())
