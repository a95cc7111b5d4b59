"""solve, the front door: defaults, starts, and states of every kind. Oracle: closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells import DOUBLE, affine, factors

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
    Segments,
    Solution,
    Status,
    Tolerance,
    solve,
)

SOLVERS = (Picard(), Halpern(), Anderson(), Broyden(), NewtonKrylov(inner=2), Auto())


def kind(solver) -> str:
    return type(solver).__name__


def test_defaults():
    """Picard, Tolerance(1e-6), started at f."""
    eq, answer = factors([0.5])
    sol = solve(eq)
    plain = solve(eq, eq.f, Picard(), Tolerance(1e-6, 0.0, 100))
    assert torch.equal(sol.value, plain.value)
    assert sol.evals.tolist() == plain.evals.tolist()
    assert float((sol.value - answer).norm()) <= 2e-6
    assert isinstance(sol, Solution)


def test_cosine():
    """The fixed point of cos, 0.7390851332151607 (Dottie)."""
    sol = solve(Equation(torch.cos), torch.ones(1, 1, dtype=DOUBLE), Anderson(2), Tolerance(1e-14))
    assert sol.require().value.item() == pytest.approx(0.7390851332151607, abs=1e-14)


@pytest.mark.parametrize("solver", SOLVERS, ids=kind)
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (4, 1, 5, 5), (7,), (1, 1)], ids=str)
def test_shapes(solver, shape):
    """x = x/2 - |x|_mean/4 + 1 elementwise: here -x/4 + 1 is solved by 4/5."""
    sol = solve(Equation(lambda x: -0.25 * x + 1), torch.zeros(shape, dtype=DOUBLE), solver)
    assert sol.require().value.shape == shape
    assert torch.allclose(sol.value, torch.full(shape, 0.8, dtype=DOUBLE), atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=kind)
def test_several_tensors(solver):
    """a = b/2 + 1, b = -a/2 + c: by hand a = (1 + c/2)/1.25, b = c - a/2."""
    c = torch.tensor([[1.0], [2.0], [3.0]], dtype=DOUBLE)
    T = lambda x, c: (0.5 * x[1].sum((1, 2))[:, None] + 1, (c - 0.5 * x[0])[:, :, None])  # noqa: E731
    sol = solve(
        Equation(T, context=(c,)), (torch.zeros(3, 1, dtype=DOUBLE), torch.zeros(3, 1, 1, dtype=DOUBLE)), solver
    )
    a = (1 + c / 2) / 1.25
    assert torch.allclose(sol.require().value[0], a, atol=1e-5)
    assert torch.allclose(sol.value[1][:, :, 0], c - a / 2, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=kind)
def test_complex(solver):
    """x = c x + 1 has 1/(1 - c), also where c turns."""
    c = torch.tensor([[0.5j], [0.3 - 0.4j]], dtype=torch.complex128)
    sol = solve(Equation(lambda x, c: c * x, torch.ones(2, 3, dtype=torch.complex128), context=(c,)), solver=solver)
    assert sol.require().value.dtype == torch.complex128
    assert torch.allclose(sol.value, (1 / (1 - c)).expand(2, 3), atol=1e-5)
    assert sol.residual.dtype == DOUBLE


def test_a_mapping_that_is_not_holomorphic():
    """x = conj(x)/2 + i: real part 0, imaginary part 2/3."""
    sol = solve(Equation(lambda x: x.conj() / 2 + 1j), torch.zeros(1, 1, dtype=torch.complex128), NewtonKrylov(inner=2))
    assert complex(sol.require().value) == pytest.approx(2j / 3, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS, ids=kind)
def test_segments(solver):
    """Every node is pulled to the mean of its graph: x = (mean + u)/2, so mean = mean(u), by hand."""
    index = torch.tensor([0, 1, 1, 2, 0, 2, 2])
    u = torch.arange(7, dtype=DOUBLE)[:, None]
    sizes = torch.bincount(index).double()[:, None]
    mean = lambda x: torch.zeros(3, 1, dtype=DOUBLE).index_add(0, index, x) / sizes  # noqa: E731
    sol = solve(Equation(lambda x: 0.5 * mean(x)[index], 0.5 * u, space=Segments(index, 3)), solver=solver)
    assert torch.allclose(sol.require().value, (mean(u)[index] + u) / 2, atol=1e-5)
    assert sol.status.shape == (3,)


def test_the_norm_is_that_of_the_space():
    """The stop looks at the weighted norm: a heavy coordinate keeps a row at work."""
    T = lambda x: x * torch.tensor([0.9, 0.1], dtype=DOUBLE)  # noqa: E731
    x0 = torch.ones(1, 2, dtype=DOUBLE)
    light, heavy = (
        solve(Equation(T, space=Rows(torch.tensor([w, 1.0], dtype=DOUBLE))), x0, stop=Tolerance(1e-3, max_steps=200))
        for w in (1e-6, 1e6)
    )
    assert int(light.steps) < int(heavy.steps)
    x = heavy.value
    assert float(((T(x) - x).square() * torch.tensor([1e6, 1.0])).sum().sqrt()) <= 1e-3


def test_lam_scales_the_operator():
    """x = lam cos(x) + 1 with one lam a row, against one solve each."""
    lam = torch.tensor([0.1, 0.5, -0.5], dtype=DOUBLE)
    one = torch.ones(3, 1, dtype=DOUBLE)
    together = solve(Equation(torch.cos, one, lam)).value
    alone = [solve(Equation(torch.cos, one[:1], float(a))).value for a in lam]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)
    assert torch.allclose(together, lam[:, None] * torch.cos(together) + 1, atol=1e-6)


def test_the_trace_can_be_asked_for():
    eq, _ = factors([0.5, 0.75])
    sol = solve(eq, trace=True, compact=False)
    assert torch.allclose(sol.trace.residual[1, 0] / sol.trace.residual[0, 0], torch.tensor(0.5, dtype=DOUBLE))
    assert torch.allclose(sol.trace.residual[9, 1] / sol.trace.residual[8, 1], torch.tensor(0.75, dtype=DOUBLE))
    assert torch.equal(sol.trace.evals[:, 1], torch.arange(1, len(sol.trace.evals) + 1))
    assert solve(eq).trace is None


def test_state_is_kept_for_warm_starts_only():
    eq, _ = factors([0.5])
    assert solve(eq, solver=Anderson(), compact=False).state is not None
    assert solve(eq, solver=Anderson()).state is None


def test_random_contractions_are_solved(generator):
    """Not symmetric, 20 unknowns; oracle: torch.linalg.solve."""
    W = torch.randn(20, 20, dtype=DOUBLE, generator=generator)
    W = 0.8 * W / torch.linalg.matrix_norm(W, 2)
    f = torch.randn(5, 20, dtype=DOUBLE, generator=generator)
    answer = torch.linalg.solve(torch.eye(20, dtype=DOUBLE) - W.T, f.T).T
    for solver in SOLVERS:
        sol = solve(Equation(lambda x: x @ W, f), solver=solver, stop=Tolerance(1e-10, max_steps=400))
        assert float((sol.require().value - answer).norm(dim=1).max()) <= 1e-10 / 0.2


@pytest.mark.parametrize(
    ("solver", "rho", "evals"),
    [
        (Anderson(5), 0.9, 50), (Anderson(5), 0.99, 300), (NewtonKrylov(), 0.99, 70), (Broyden(), 0.99, 70),
        (Picard(), 0.9, 125), (NewtonKrylov(), 0.9, 70),
    ],
    ids=lambda v: str(v).split("(")[0],
)  # fmt: skip
def test_evaluations_of_the_target_table(generator, solver, rho, evals):
    """B64 D64, symmetric spectrum in [-rho, rho], 1e-6 relative: the evaluation targets of specs/solvers.md."""
    problem = affine(generator, rows=64, width=64, low=-rho, high=rho)
    for dtype in (torch.float64, torch.float32) if isinstance(solver, NewtonKrylov) else (torch.float64,):
        with torch.no_grad():
            sol = solve(problem.to(dtype).equation, solver=solver, stop=Tolerance(0.0, 1e-6, max_steps=2000))
        assert sol.counts() == {"CONVERGED": 64}
        assert int(sol.evals.max()) <= evals


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_anderson_is_never_much_worse_than_picard(generator, scale):
    """At most 1.1 times Picard's evaluations, on random nonsymmetric contractions."""
    for _ in range(6):
        W = torch.randn(10, 10, dtype=DOUBLE, generator=generator)
        W = scale * W / torch.linalg.eigvals(W).abs().max()
        eq = Equation(W.T.__rmatmul__, torch.randn(3, 10, dtype=DOUBLE, generator=generator))
        ours, plain = (
            int(solve(eq, solver=s, stop=Tolerance(max_steps=900)).evals.max()) for s in (Anderson(), Picard())
        )
        assert ours <= math.ceil(1.1 * plain)


def test_smoothing_weighs_the_old_state():
    """One step with a = .3 from 0 towards P(0) = 1 is .7."""
    sol = solve(Equation(lambda x: 0.5 * x + 1), torch.zeros(1, 1, dtype=DOUBLE), Picard(0.3), FixedSteps(1))
    assert sol.value.item() == 0.7
    assert sol.status.tolist() == [Status.COMPLETED]
