"""The contracts, as suites, and the tables of everything that has to pass them.

A new Solver or Adjoint joins by ONE line in SOLVERS or ADJOINTS. The suites are run by test_contract.py in
tests/solvers and tests/adjoints.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch
from tests.cells import DOUBLE, Affine, Counted, affine, host_reads
from torch import Tensor

import settlepoint
from settlepoint import (
    R2N2,
    Aitken,
    Anderson,
    Auto,
    Broyden,
    Chebyshev,
    Checkpointed,
    Equation,
    FirstStep,
    FixedSteps,
    Halpern,
    Implicit,
    Mann,
    NewtonKrylov,
    Picard,
    Rows,
    Safeguarded,
    Solver,
    Status,
    Tolerance,
    Truncated,
    Unrolled,
    solve,
)
from settlepoint.adjoints import Adjoint
from settlepoint.solvers.solver import clone_state


@dataclass(frozen=True)
class Promise:
    """What a solver promises: to reach atol within max_steps on symmetric affine rows with this spectrum.

    evals: at most so many operator calls for it. host: reads on the host and depends on the clock (Auto): exempt from
    fullgraph, host reads and bitwise repeat.
    """

    solver: Callable[[], Solver]
    evals: int
    low: float = -0.9
    high: float = 0.9
    atol: float = 1e-8
    host: bool = False

    def __str__(self) -> str:
        return " ".join(repr(self.solver()).split())

    def stop(self, **changes) -> Tolerance:
        return Tolerance(**{"atol": self.atol, "max_steps": self.evals} | changes)

    def problem(self, generator: torch.Generator, **sizes) -> Affine:
        return affine(generator, low=self.low, high=self.high, **sizes)


SOLVERS = (
    Promise(lambda: Picard(), 220),
    Promise(lambda: Picard(damping=0.3), 300),
    Promise(lambda: Mann([0.5, 0.25, 0.0]), 220),
    Promise(lambda: Halpern(), 700),
    Promise(lambda: Halpern(restart=None), 900, low=-0.5, high=0.5, atol=1e-2),  # the classical rate is 1/k
    Promise(lambda: Aitken(), 90, low=0.2),
    Promise(lambda: Chebyshev(-0.9, 0.9), 60),
    Promise(lambda: Chebyshev(-3.0, 0.5), 60, low=-3.0, high=0.5),  # no contraction, and yet within the interval
    Promise(lambda: Anderson(), 60),
    Promise(lambda: Anderson(depth=2, damping=0.2), 130),
    Promise(lambda: Broyden(), 45),
    Promise(lambda: Broyden(memory=5), 90),
    Promise(lambda: NewtonKrylov(inner=2), 60),
    Promise(lambda: NewtonKrylov(), 60, low=-3.0, high=0.9),
    Promise(lambda: Safeguarded(Anderson(), Picard()), 60),
    Promise(lambda: Safeguarded(NewtonKrylov(inner=2), Anderson()), 60, host=True),  # reads whose rows to evaluate
    Promise(lambda: Auto(), 220, host=True),
    Promise(lambda: R2N2(3), 220),
    Promise(lambda: R2N2(2, "forward_difference", epsilon=0.5, theta=[1, 2, 1]), 220),  # small ones amplify rounding
    Promise(lambda: R2N2(2, "jvp", per_iteration=2, theta=[1, 2, 1, 1.9, 0.9]), 220),
    Promise(lambda: R2N2(2, carry=1, theta=[1, 1, 1, 0.1, 0.05]), 260),
    Promise(lambda: R2N2(3, output="least_squares"), 90),
    Promise(lambda: R2N2(1, output="least_squares", per_iteration=2, carry=2), 90),
    Promise(lambda: FirstStep(Anderson(), 1, coefficients=[0.0, 3.0, 0.1], low=[-3.0, -3.0], high=[3.0, 3.0]), 62),
)


def bits(x: Tensor) -> Tensor:
    """x as integers: equal only bit for bit, NaN included."""
    return x.detach().contiguous().view(torch.int64 if x.dtype == DOUBLE else torch.int32)


def tensors(state) -> list[Tensor]:
    """Every tensor in a solver state."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, tuple):
        return [t for s in state for t in tensors(s)]
    if is_dataclass(state):
        return [t for f in fields(state) for t in tensors(getattr(state, f.name))]
    return []


def bound(problem: Affine) -> tuple[Equation, Tensor, Tensor]:
    """A bound equation, an iterate and its residual, ready for init and step."""
    z = problem.f.clone()
    eq = problem.equation.at(z)
    return eq, z, eq.flat(z) - z


class SolverContract:
    """What every Solver has to hold."""

    # ---- it solves ---------------------------------------------------------------------------------------------

    def test_solves_affine_rows(self, promise: Promise, generator):
        """Oracle: torch.linalg.solve. Error bound: |x - x*| <= |r| / (1 - high), symmetric W, high < 1."""
        problem = promise.problem(generator)
        with torch.no_grad():
            sol = solve(problem.equation, solver=promise.solver(), stop=promise.stop())
        assert sol.counts() == {"CONVERGED": 6}
        assert int(sol.evals.max()) <= promise.evals
        assert bool((problem.error(sol.value) <= 1.01 * promise.atol / (1 - promise.high)).all())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_keeps_the_dtype(self, promise: Promise, generator, dtype):
        problem = promise.problem(generator, dtype=dtype)
        atol = max(promise.atol, 3e-5 if dtype == torch.float32 else 0)  # |x| about 20: 200 rounding units
        with torch.no_grad():
            sol = solve(problem.equation, solver=promise.solver(), stop=promise.stop(atol=atol))
        assert sol.value.dtype == sol.residual.dtype == dtype
        assert sol.counts() == {"CONVERGED": 6}

    def test_solves_a_single_row(self, promise: Promise, generator):
        problem = promise.problem(generator, rows=1)
        with torch.no_grad():
            sol = solve(Equation(lambda x: x @ problem.W, problem.f[0]), None, promise.solver(), promise.stop())
        assert sol.value.shape == (12,)
        assert sol.counts() == {"CONVERGED": 1}

    def test_solves_a_single_number(self, promise: Promise):
        """x = x/4 + 1, so x = 4/3; a state of no dimension at all."""
        sol = solve(Equation(lambda x: 0.25 * x + 1), torch.tensor(0.0), promise.solver(), promise.stop(atol=1e-2))
        assert sol.value.shape == ()
        assert sol.counts() == {"CONVERGED": 1}
        assert abs(float(sol.value) - 4 / 3) <= 0.02

    def test_empty_batch(self, promise: Promise):
        sol = solve(Equation(lambda x: 0.5 * x), torch.zeros(0, 3), promise.solver())
        assert sol.value.shape == (0, 3)
        assert sol.work == 0

    # ---- rows do not talk --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("neighbour", [math.nan, 1e300, 50.0], ids=["nan", "overflows", "slow"])
    def test_rows_do_not_talk(self, promise: Promise, generator, neighbour):
        """The same rows beside a good and beside a bad row: 1e-12 leaves room for another order of summation."""
        problem = promise.problem(generator)
        bad = problem.f.clone()
        bad[2] = neighbour
        good = [0, 1, 3, 4, 5]
        run = lambda f: solve(Equation(lambda x: x @ problem.W, f), solver=promise.solver(), stop=promise.stop())  # noqa: E731
        with torch.no_grad():
            alone, beside = run(problem.f), run(bad)
        if promise.host:  # its choice is made for the whole batch
            assert bool((problem.error(beside.value)[good] <= 1e-6).all())
            return
        assert torch.equal(beside.steps[good], alone.steps[good])
        assert int((beside.evals - alone.evals)[good].abs().max()) <= 1  # the check before rows are first gathered
        gap = (beside.value - alone.value)[good].abs().max()
        assert float(gap) <= 1e-12 * float(alone.value.abs().max())
        if math.isnan(neighbour):
            assert int(beside.status[2]) == Status.NONFINITE

    def test_commutes_with_permutation(self, promise: Promise, generator):
        problem = promise.problem(generator)
        order = torch.randperm(6, generator=generator)
        mixed = Affine(problem.W, problem.f[order])
        with torch.no_grad():
            a = solve(problem.equation, solver=promise.solver(), stop=promise.stop())
            b = solve(mixed.equation, solver=promise.solver(), stop=promise.stop())
        if not promise.host:
            assert torch.equal(a.steps[order], b.steps)
        scale = float(a.value.abs().max())
        room = 4 * promise.atol if promise.host else 1e-12 * scale  # summation order of BLAS tails
        assert float((a.value[order] - b.value).abs().max()) <= room / (1 - promise.high)

    # ---- gradients ---------------------------------------------------------------------------------------------

    def test_unrolled_gradient_agrees_with_finite_differences(self, promise: Promise, generator):
        """Oracle: torch.autograd.gradcheck, to operator, f and x0."""
        problem = promise.problem(generator, rows=2, width=3)
        W, f = problem.W.clone().requires_grad_(), problem.f.clone().requires_grad_()
        x0 = torch.randn(2, 3, dtype=DOUBLE, generator=generator, requires_grad=True)

        def end(W, f, x0):
            eq = Equation(lambda x: torch.tanh(x @ W), f)
            return solve(eq, x0, promise.solver(), FixedSteps(3), Unrolled()).value

        assert torch.autograd.gradcheck(end, (W, f, x0))

    # ---- purity ------------------------------------------------------------------------------------------------

    def test_never_overwrites_iterate_or_residual(self, promise: Promise, generator):
        """Under no_grad only the state is donated."""
        eq, z, r = bound(promise.problem(generator))
        solver = promise.solver()
        with torch.no_grad():
            state = solver.init(eq, z, r)
            for _ in range(4):
                kept = bits(z).clone(), bits(r).clone()
                moved, state, _ = solver.step(eq, z, r, state)
                assert torch.equal(bits(z), kept[0])
                assert torch.equal(bits(r), kept[1])
                z, r = moved, eq.flat(moved) - moved

    def test_leaves_the_state_alone_under_grad(self, promise: Promise, generator):
        eq, z, r = bound(promise.problem(generator))
        solver = promise.solver()
        with torch.enable_grad():
            state = solver.init(eq, z, r)
            for _ in range(4):
                kept = [t.clone() for t in tensors(state)]
                moved, after, _ = solver.step(eq, z, r, state)
                assert all(torch.equal(a, b) for a, b in zip(tensors(state), kept, strict=True))
                z, r, state = moved, eq.flat(moved) - moved, after

    def test_donated_state_gives_the_same_numbers(self, promise: Promise, generator):
        if promise.host:
            pytest.skip("its choice depends on the clock")
        eq, z, r = bound(promise.problem(generator))
        solver, ends = promise.solver(), []
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                x, residual = z, r
                state = solver.init(eq, x, residual)
                for _ in range(5):
                    x, state, _ = solver.step(eq, x, residual, state)
                    residual = eq.flat(x) - x
                ends.append(x.detach())
        assert float((ends[0] - ends[1]).abs().max()) <= 1e-12 * float(ends[0].abs().max())

    def test_state_leads_with_rows(self, promise: Promise, generator):
        """Compaction is index_select(0) on every tensor of at least one dimension."""
        eq, z, r = bound(promise.problem(generator, rows=7))
        solver = promise.solver()
        state = solver.init(eq, z, r)
        for s in (state, solver.step(eq, z, r, clone_state(state))[1]):
            assert all(t.ndim == 0 or len(t) == 7 for t in tensors(s))

    def test_repeats_bit_for_bit(self, promise: Promise, generator):
        if promise.host:
            pytest.skip("its choice depends on the clock")
        problem, solver = promise.problem(generator), promise.solver()
        with torch.no_grad():
            a, b = (solve(problem.equation, solver=solver, stop=promise.stop(), trace=True) for _ in range(2))
        assert torch.equal(bits(a.value), bits(b.value))
        assert torch.equal(bits(a.trace.residual), bits(b.trace.residual))

    # ---- speed: no reads, one graph ----------------------------------------------------------------------------

    @pytest.mark.parametrize("every", [1, 4])
    def test_host_reads(self, promise: Promise, generator, monkeypatch, every):
        """One read a look, and no tensor is read by itself but once where gathered rows were checked."""
        if promise.host:
            pytest.skip("reads on the host by design")
        problem = promise.problem(generator)
        with torch.no_grad(), host_reads(monkeypatch) as reads:
            sol = solve(problem.equation, solver=promise.solver(), stop=promise.stop(every=every))
        assert sol.counts() == {"CONVERGED": 6}
        assert reads.looks == math.ceil(int(sol.steps.max()) / every)
        assert reads.scalars <= 1

    def test_no_host_reads_in_fixed_steps(self, promise: Promise, generator, monkeypatch):
        if promise.host:
            pytest.skip("reads on the host by design")
        problem = promise.problem(generator)
        with torch.no_grad(), host_reads(monkeypatch) as reads:
            solve(problem.equation, solver=promise.solver(), stop=FixedSteps(5))
        assert (reads.looks, reads.scalars) == (0, 0)

    def test_step_traces_fullgraph(self, promise: Promise, generator):
        """One graph without breaks; backend eager runs the same kernels, so the numbers are equal."""
        if promise.host:
            pytest.skip("reads on the host by design")
        eq, z, r = bound(promise.problem(generator, rows=3, width=4))
        solver = promise.solver()
        torch.compiler.reset()
        with torch.no_grad():
            state = solver.init(eq, z, r)
            z, state, _ = solver.step(eq, z, r, state)
            r = eq.flat(z) - z
            compiled = torch.compile(solver.step, fullgraph=True, backend="eager")
            ours, _, _ = solver.step(eq, z, r, clone_state(state))
            theirs, _, _ = compiled(eq, z, r, clone_state(state))
        assert torch.equal(bits(ours), bits(theirs))

    # ---- as a value --------------------------------------------------------------------------------------------

    def test_pickles_and_copies(self, promise: Promise, generator):
        problem, solver = promise.problem(generator), promise.solver()
        for twin in (pickle.loads(pickle.dumps(solver)), copy.deepcopy(solver)):
            assert repr(twin) == repr(solver)
            if not promise.host:
                with torch.no_grad():
                    a, b = (solve(problem.equation, solver=s, stop=FixedSteps(3)) for s in (solver, twin))
                assert torch.equal(bits(a.value), bits(b.value))

    def test_repr_round_trips(self, promise: Promise):
        solver = promise.solver()
        twin = eval(repr(solver), dict(vars(settlepoint)))
        assert type(twin) is type(solver)
        assert repr(twin) == repr(solver)

    def test_refuses_unknown_options(self, promise: Promise):
        with pytest.raises(TypeError, match="dampng"):
            type(promise.solver())(dampng=0.1)


@dataclass(frozen=True)
class Gradients:
    """What an adjoint promises: the gradient of the fixed point, or of the iteration, to rtol.

    of: "iteration" where it equals Unrolled to rounding, "root" where it equals the analytic gradient, "neither" where
    it is only near it (error at most rtol).
    """

    adjoint: Adjoint
    of: str
    rtol: float = 1e-8

    def __str__(self) -> str:
        return repr(self.adjoint)


ADJOINTS = (
    Gradients(Unrolled(), "iteration"),
    Gradients(Checkpointed(), "iteration"),
    Gradients(Checkpointed(every=3), "iteration"),
    Gradients(Truncated(), "neither", rtol=0.6),  # rate .5: I instead of (I - J)^-1
    Gradients(Truncated(steps=12), "neither", rtol=1e-3),  # .5^12 = 2.4e-4
    Gradients(Implicit(), "root"),
    Gradients(Implicit(order=1), "root"),
    Gradients(Implicit(NewtonKrylov(), Tolerance(0.0, 1e-11)), "root"),
)
TIGHT = Tolerance(1e-12, max_steps=300)


def tanh_cell(generator: torch.Generator, *, rows: int = 3, width: int = 4) -> tuple[Tensor, Tensor]:
    """W, f of x = tanh(x W) + f with |W| = 0.5."""
    W = affine(generator, rows=rows, width=width, low=-0.5, high=0.5)
    return W.W.clone().requires_grad_(), W.f.clone().requires_grad_()


def root_gradient(W: Tensor, f: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dW, dL/df at a root of x = tanh(x W) + f by a dense solve of (I - J)^T v = g in every row."""
    W, f, x = W.detach(), f.detach(), x.detach()
    slope = 1 - torch.tanh(x @ W) ** 2  # (R, D)
    J = slope[:, :, None] * W.T[None]  # d tanh(xW)_i / d x_j = slope_i W_ji
    v = torch.linalg.solve((torch.eye(len(W), dtype=W.dtype) - J).mT, g)
    return x.T @ (v * slope), v


class AdjointContract:
    """What every Adjoint has to hold."""

    def test_value_is_that_of_the_loop(self, promised: Gradients, generator):
        """Bit for bit, for a loop that converged, one that did not and one of fixed steps."""
        W, f = tanh_cell(generator)
        for stop in (TIGHT, Tolerance(1e-12, max_steps=5), FixedSteps(4)):
            run = lambda adjoint: solve(Equation(lambda x: torch.tanh(x @ W), f), stop=stop, adjoint=adjoint)  # noqa: B023, E731
            with torch.no_grad():
                plain = run(Unrolled())
            mine = run(promised.adjoint)
            assert torch.equal(bits(mine.value), bits(plain.value))
            assert torch.equal(mine.status, plain.status)
            assert mine.value.requires_grad

    def test_gradient(self, promised: Gradients, generator):
        """Oracle: a dense solve with the Jacobian written by hand; for the iteration also plain autograd."""
        W, f = tanh_cell(generator)
        g = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
        sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT, adjoint=promised.adjoint)
        mine = torch.autograd.grad(sol.value, (W, f), g)
        for a, b in zip(mine, root_gradient(W, f, sol.value, g), strict=True):
            assert float((a - b).norm() / b.norm()) <= promised.rtol

    def test_gradient_of_the_iteration(self, promised: Gradients, generator):
        """Oracle: a loop of four damped steps under autograd; only for adjoints that follow the iteration."""
        if promised.of != "iteration":
            pytest.skip("is not the gradient of the iteration")
        W, f = tanh_cell(generator)
        x = torch.zeros_like(f)
        for _ in range(4):
            x = 0.25 * x + 0.75 * (torch.tanh(x @ W) + f)
        eq = Equation(lambda x: torch.tanh(x @ W), f)
        mine = solve(eq, torch.zeros_like(f), Picard(0.25), FixedSteps(4), promised.adjoint).value
        pairs = zip(*(torch.autograd.grad((y**2).sum(), (W, f)) for y in (mine, x)), strict=True)
        assert all(float((a - b).norm()) <= 1e-12 * float(b.norm()) for a, b in pairs)

    @pytest.mark.parametrize(
        "solver", [Anderson(), Broyden(memory=4), NewtonKrylov(inner=2)], ids=lambda s: type(s).__name__
    )
    def test_gradient_does_not_depend_on_the_solver(self, promised: Gradients, generator, solver):
        W, f = tanh_cell(generator)
        g = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
        sol = solve(Equation(lambda x: torch.tanh(x @ W), f), solver=solver, stop=TIGHT, adjoint=promised.adjoint)
        if promised.of == "iteration":
            ours = torch.autograd.grad(sol.value, (W, f), g)
            again = solve(Equation(lambda x: torch.tanh(x @ W), f), solver=solver, stop=TIGHT, adjoint=Unrolled())
            theirs, room = torch.autograd.grad(again.value, (W, f), g), 1e-9  # replay sums in another order
        else:
            ours, theirs = torch.autograd.grad(sol.value, (W, f), g), root_gradient(W, f, sol.value, g)
            room = promised.rtol
        assert all(float((a - b).norm() / b.norm()) <= room for a, b in zip(ours, theirs, strict=True))

    def test_several_tensors(self, promised: Gradients, generator):
        """A state (a, b) with a = f + b/4, b = a/2: a = f/(1 - 1/8), by hand."""
        f = torch.randn(3, 2, dtype=DOUBLE, generator=generator, requires_grad=True)
        T = lambda x: (f + x[1] / 4, x[0] / 2)  # noqa: E731
        sol = solve(Equation(T), (torch.zeros_like(f), torch.zeros_like(f)), stop=TIGHT, adjoint=promised.adjoint)
        (g,) = torch.autograd.grad(sol.value[0].sum(), f)
        assert sol.value[0].requires_grad
        assert float((g - 8 / 7).abs().max()) <= max(promised.rtol, 1e-10)

    def test_complex_state(self, promised: Gradients):
        """x = c x + 1, x = 1/(1 - c): dL/dc for L = |x|^2, by torch autograd of the closed form."""
        c = torch.tensor(0.3 + 0.2j, dtype=torch.complex128, requires_grad=True)
        one = torch.ones(2, 1, dtype=torch.complex128)
        sol = solve(Equation(lambda x: c * x, one), stop=TIGHT, adjoint=promised.adjoint)
        assert sol.value.dtype == torch.complex128
        (mine,) = torch.autograd.grad(sol.value.abs().square().sum(), c)
        (exact,) = torch.autograd.grad((one / (1 - c)).abs().square().sum(), c)
        assert abs(complex(mine - exact)) <= max(promised.rtol, 1e-9) * abs(complex(exact))

    def test_weighted_rows(self, promised: Gradients, generator):
        """Weights change where a solve stops, not what its gradient is."""
        W, f = tanh_cell(generator)
        g = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
        space = Rows(torch.tensor([1e-3, 1.0, 10.0, 1e3], dtype=DOUBLE))
        sol = solve(Equation(lambda x: torch.tanh(x @ W), f, space=space), stop=TIGHT, adjoint=promised.adjoint)
        mine = torch.autograd.grad(sol.value, (W, f), g)
        for a, b in zip(mine, root_gradient(W, f, sol.value, g), strict=True):
            assert float((a - b).norm() / b.norm()) <= promised.rtol

    def test_parameters_reached_twice(self, promised: Gradients, generator):
        """a enters the operator, f and the readout: all paths add up, by autograd of the closed form."""
        a = torch.tensor(0.4, dtype=DOUBLE, requires_grad=True)
        loss = lambda x: (a * x).sum()  # noqa: E731
        sol = solve(
            Equation(lambda x: a * x + a), torch.zeros(2, 1, dtype=DOUBLE), stop=TIGHT, adjoint=promised.adjoint
        )
        (mine,) = torch.autograd.grad(loss(sol.value), a)
        (exact,) = torch.autograd.grad(2 * a * a / (1 - a), a)
        assert abs(float(mine - exact)) <= max(promised.rtol, 1e-9) * float(exact)

    def test_two_solves_before_backward(self, promised: Gradients, generator):
        """One operator in two solves, and one backward of both: the sum of the two gradients."""
        W, f = tanh_cell(generator)
        run = lambda h: solve(Equation(lambda x: torch.tanh(x @ W), h), stop=TIGHT, adjoint=promised.adjoint).value  # noqa: E731
        once = [torch.autograd.grad(run(h).sum(), W)[0] for h in (f, 2 * f)]
        (both,) = torch.autograd.grad(run(f).sum() + run(2 * f).sum(), W)
        assert float((both - sum(once)).norm()) <= 1e-12 * float(both.norm())

    def test_backward_twice_is_linear(self, promised: Gradients, generator):
        """A second backward through the same graph, with a cotangent 1e-3 as large, is 1e-3 times the first."""
        W, f = tanh_cell(generator)
        x = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT, adjoint=promised.adjoint).value
        (a,) = torch.autograd.grad(x.sum(), W, retain_graph=True)
        (b,) = torch.autograd.grad(1e-3 * x.sum(), W)
        assert float((1e3 * b - a).norm()) <= 1e-8 * float(a.norm())

    def test_no_extra_evaluation_without_grad(self, promised: Gradients, generator):
        W, f = tanh_cell(generator)
        T = Counted(lambda x: torch.tanh(x @ W))
        with torch.no_grad():
            sol = solve(Equation(T, f), stop=TIGHT, adjoint=promised.adjoint, compact=False)
        assert T.calls == int(sol.evals.max())

    def test_no_graph_where_nothing_asks_for_one(self, promised: Gradients, generator):
        problem = affine(generator, low=-0.5, high=0.5)
        sol = solve(problem.equation, stop=TIGHT, adjoint=promised.adjoint)
        assert not sol.value.requires_grad
        assert sol.counts() == {"CONVERGED": 6}

    def test_slow_rows_do_not_change_others(self, promised: Gradients):
        """Per-row factors from context: dx/da = 1/(1 - a)^2 in closed form."""
        a = torch.tensor([0.1, 0.3, 0.5], dtype=DOUBLE, requires_grad=True)
        eq = Equation(lambda x, a: a[:, None] * x, torch.ones(3, 2, dtype=DOUBLE), context=(a,))
        sol = solve(eq, stop=TIGHT, adjoint=promised.adjoint)
        (g,) = torch.autograd.grad(sol.value.sum(), a)
        exact = 2 / (1 - a.detach()) ** 2
        assert float(((g - exact) / exact).abs().max()) <= max(promised.rtol, 1e-8)

    def test_pickles_and_repr_round_trips(self, promised: Gradients):
        for twin in (
            pickle.loads(pickle.dumps(promised.adjoint)),
            eval(repr(promised.adjoint), dict(vars(settlepoint))),
        ):
            assert repr(twin) == repr(promised.adjoint)

    def test_refuses_unknown_options(self, promised: Gradients):
        with pytest.raises(TypeError, match="ordr"):
            type(promised.adjoint)(ordr=1)


__all__ = ["ADJOINTS", "SOLVERS", "AdjointContract", "SolverContract"]
