"""R2N2 against hand-written steps, SciPy's Runge-Kutta and GMRES, dense algebra and plain autograd."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.sparse.linalg
import torch
from tests.cells import DOUBLE, Counted, affine
from torch import Tensor

import settlepoint
from settlepoint import (
    R2N2,
    Anderson,
    Checkpointed,
    Equation,
    FixedSteps,
    Implicit,
    Picard,
    Rows,
    Safeguarded,
    Segments,
    Solver,
    Status,
    Tolerance,
    Truncated,
    Unrolled,
    solve,
)
from settlepoint.problems import LinearFamily, from_callable
from settlepoint.solvers import tableaus
from settlepoint.solvers.difference import forward_difference

LAYERS = ("evaluation", "forward_difference", "jvp")
VARIANTS = [
    (layer, output, carry) for layer in LAYERS for output in ("weights", "least_squares") for carry in (0, 2)
]  # fmt: skip
variants = pytest.mark.parametrize(("layer", "output", "carry"), VARIANTS)


def scattered(generator: torch.Generator, stages: int, *options, size: float = 0.5, **named) -> R2N2:
    """An R2N2 with random weights."""
    solver = R2N2(stages, *options, **named)
    return solver.assign(size * torch.randn(len(solver.theta), dtype=DOUBLE, generator=generator))


def walk(solver: Solver, eq: Equation, z: Tensor, steps: int) -> list[Tensor]:
    """The iterates after 1, ..., `steps` steps, without stop, status or compaction."""
    path, state = [], None
    for _ in range(steps):
        r = eq.flat(z) - z
        state = solver.init(eq, z, r) if state is None else state
        z, state, _ = solver.step(eq, z, r, state)
        path.append(z)
    return path


def field(x: Tensor) -> Tensor:
    """The van der Pol oscillator."""
    return torch.stack((x[:, 1], 1.5 * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]), 1)


def bent(x: Tensor) -> Tensor:
    """A smooth contraction that mixes the components of a row."""
    return 0.4 * torch.tanh(x + 0.5 * x.roll(1, 1)) + 0.1 * torch.cos(x.roll(-1, 1)) + 0.2


def far(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-300))


@pytest.fixture
def start(generator) -> Tensor:
    """Points in the region of the paper's van der Pol problems."""
    return torch.randn(5, 2, dtype=DOUBLE, generator=generator) + torch.tensor([-3.0, 1.0], dtype=DOUBLE)


@pytest.fixture
def h(generator) -> Tensor:
    return 0.01 + 0.09 * torch.rand(5, dtype=DOUBLE, generator=generator)


# ---- classical methods --------------------------------------------------------------------------------------------


def shu_osher(f, x, h):
    """SSP-RK3 as convex combinations of Euler steps (Shu & Osher 1988)."""
    u = x + h * f(x)
    u = 3 / 4 * x + 1 / 4 * (u + h * f(u))
    return x / 3 + 2 / 3 * (u + h * f(u))


def heun(f, x, h):
    k = f(x)
    return x + h / 2 * (k + f(x + h * k))


def ralston(f, x, h):
    k = f(x)
    return x + h * (k / 4 + 3 * f(x + 2 / 3 * h * k) / 4)


def kutta(f, x, h):
    k1 = f(x)
    k2 = f(x + h * k1 / 2)
    return x + h * (k1 + 4 * k2 + f(x - h * k1 + 2 * h * k2)) / 6


def runge_kutta(f, x, h):
    k1 = f(x)
    k2 = f(x + h * k1 / 2)
    k3 = f(x + h * k2 / 2)
    return x + h * (k1 + 2 * k2 + 2 * k3 + f(x + h * k3)) / 6


@pytest.mark.parametrize(
    ("tableau", "by_hand"),
    [
        (tableaus.EULER, lambda f, x, h: x + h * f(x)),
        (tableaus.HEUN, heun),
        (tableaus.MIDPOINT, lambda f, x, h: x + h * f(x + h * f(x) / 2)),
        (tableaus.RALSTON, ralston),
        (tableaus.KUTTA3, kutta),
        (tableaus.SSPRK3, shu_osher),
        (tableaus.RK4, runge_kutta),
    ],
    ids=["euler", "heun", "midpoint", "ralston", "kutta3", "ssprk3", "rk4"],
)
def test_tableaus_are_the_methods_written_by_hand(start, h, tableau, by_hand):
    eq, x = Equation(lambda x: x + field(x), scale=h).at(start), start
    for ours in walk(R2N2.from_tableau(tableau), eq, start, 3):
        x = by_hand(field, x, h[:, None])
        assert far(ours, x) <= 1e-14


@pytest.mark.parametrize(
    ("method", "tableau"), [(scipy.integrate.RK23, tableaus.BOGACKI_SHAMPINE), (scipy.integrate.RK45, None)]
)
def test_steps_of_scipy(start, method, tableau):
    """One step of scipy.integrate's pairs; RK45 from SciPy's own table."""
    h = 0.05
    if tableau is None:
        A, n = method.A, method.n_stages
        rows = tuple(tuple(A[j, :j]) for j in range(1, n))
        tableau = tableaus.Tableau(rows, tuple(method.B))
    eq = Equation(lambda x: x + field(x), scale=torch.full((5,), h, dtype=DOUBLE)).at(start)
    (ours,) = walk(R2N2.from_tableau(tableau), eq, start, 1)
    for x, y in zip(start, ours, strict=True):
        rk = method(lambda t, x: field(torch.from_numpy(x)[None])[0].numpy(), 0, x.numpy(), h, rtol=1e6, first_step=h)
        rk.step()
        assert rk.t == h
        assert np.abs(rk.y - y.detach().numpy()).max() <= 1e-14 * np.abs(rk.y).max()


@pytest.mark.parametrize(("damping", "steps"), [(0.0, 1), (0.3, 1), (0.3, 4), (0.9, 2)])
def test_richardson_is_damped_picard(start, damping, steps):
    eq, x = Equation(lambda x: x + 0.1 * field(x)).at(start), start
    for ours in walk(R2N2.from_tableau(tableaus.richardson(damping, steps)), eq, start, 3):
        for _ in range(steps):
            x = damping * x + (1 - damping) * eq.flat(x)
        assert far(ours, x) <= 1e-14


def test_one_stage_is_picard(generator):
    problem = affine(generator)
    with torch.no_grad():
        a = solve(problem.equation, solver=R2N2(1, theta=[0.7]), stop=Tolerance(1e-8, max_steps=300))
        b = solve(problem.equation, solver=Picard(0.3), stop=Tolerance(1e-8, max_steps=300))
    assert torch.equal(a.evals, b.evals)
    assert far(a.value, b.value) <= 1e-13


def test_stage_times_of_a_carried_clock(generator):
    """x' = cos(3t) x - t^2 with the time as a column, against one step of SciPy's RK23."""
    slope = lambda x, t: math.cos(3 * t) * x - t**2  # noqa: E731
    family = from_callable(
        lambda x, p, t: torch.cos(3 * t)[:, None] * x - t[:, None] ** 2,
        lambda n, g: {
            "x0": torch.rand(n, 2, dtype=DOUBLE, generator=g),
            "t0": 0.4 + torch.rand(n, dtype=DOUBLE, generator=g),
            "h": torch.full((n,), 0.1, dtype=DOUBLE),
        },
        form="rhs",
        timed=True,
    )
    batch = family.sample(3, generator)
    with torch.no_grad():
        sol = solve(family.equation(batch), batch.x0, R2N2.from_tableau(tableaus.BOGACKI_SHAMPINE), FixedSteps(1))
    for x, y in zip(batch.x0, sol.value, strict=True):
        t = float(x[2])
        rk = scipy.integrate.RK23(lambda t, x: slope(x, t), t, x[:2].numpy(), t + 0.11, rtol=1e6, first_step=0.1)
        rk.step()
        assert abs(float(y[2]) - t - 0.1) <= 1e-15
        assert np.abs(rk.y - y[:2].numpy()).max() <= 1e-14


# ---- the step size ------------------------------------------------------------------------------------------------


@variants
def test_scale_is_the_h_of_euler(generator, layer, output, carry):
    """P(x) = x + f(x) with scale h, and P(x) = x + h f(x) without: the same iterates."""
    x, h = torch.randn(5, 8, dtype=DOUBLE, generator=generator), torch.linspace(0.2, 0.9, 5, dtype=DOUBLE)
    solver, f = scattered(generator, 3, layer, output, carry=carry, epsilon=1e-3), lambda x: bent(x) - x
    scaled, euler = Equation(lambda x: x + f(x), scale=h), Equation(lambda x: x + h[:, None] * f(x))
    with torch.no_grad():
        pairs = zip(*(walk(solver, eq.at(x), x, 3) for eq in (scaled, euler)), strict=True)
        room = 1e-12 if output == "weights" else 1e-9  # rounding over eps; normal equations of two close differences
        assert all(far(a, b) <= room for a, b in pairs)


@variants
def test_a_step_of_size_zero_stays(start, layer, output, carry):
    """h = 0 in one row of two: it never moves, and it is CONVERGED only where the residual is 0."""
    x0, h = torch.stack((start[0], torch.zeros(2, dtype=DOUBLE))), torch.zeros(2, dtype=DOUBLE)
    eq = Equation(lambda x: x + field(x), scale=h)
    with torch.no_grad():
        sol = solve(eq, x0, R2N2(2, layer, output, carry=carry), Tolerance(1e-9, max_steps=60))
    assert torch.equal(sol.value, x0)
    assert [Status(int(s)) is Status.CONVERGED for s in sol.status] == [False, True]


@variants
def test_no_steps_return_the_start(start, layer, output, carry):
    sol = solve(Equation(field), start, R2N2(3, layer, output, carry=carry), FixedSteps(0))
    assert torch.equal(sol.value, start)
    assert int(sol.evals.max()) == 0


# ---- layers of derivatives ----------------------------------------------------------------------------------------


def as_evaluations(solver: R2N2, epsilon: float) -> R2N2:
    """The evaluation layers that do the same as these forward differences (SM1.2)."""
    n, twin = solver.stages, R2N2(solver.stages)
    with torch.no_grad():
        a, b = solver.tableau()
        A, B = a.clone(), b / epsilon
        A[:, 0] = epsilon * a[:, 0] - a[:, 1:].sum(1)
        B[0] = b[0] - b[1:].sum() / epsilon
        i, j = torch.tril_indices(n, n, -1)
        return twin.assign(torch.cat((A[i, j], B)))


@pytest.mark.parametrize(("epsilon", "room"), [(1e-4, 1e-11), (1e-8, 1e-6)])
@pytest.mark.parametrize("scaled", [False, True])
def test_forward_differences_are_evaluations_with_other_weights(start, h, generator, epsilon, room, scaled):
    solver = scattered(generator, 4, "forward_difference", epsilon=epsilon, size=0.3)
    eq = Equation(lambda x: x + field(x), scale=h if scaled else None).at(start)
    with torch.no_grad():
        (ours,), (twin,) = (walk(s, eq, start, 1) for s in (solver, as_evaluations(solver, epsilon)))
    assert far(ours, twin) <= room


def test_epsilon_by_default_is_the_root_of_the_rounding_unit(start, generator):
    for dtype in (torch.float32, DOUBLE):
        x, e = start.to(dtype), torch.finfo(dtype).eps ** 0.5
        theta = torch.randn(3, dtype=DOUBLE, generator=generator)
        a, b = (
            walk(R2N2(2, "forward_difference", epsilon=epsilon, theta=theta), Equation(field).at(x), x, 1)[0]
            for epsilon in (None, e)
        )
        assert torch.equal(a, b)


def test_jvp_layers_are_products_with_the_dense_jacobian(generator):
    """v_1 = theta J r and v_2 = J (theta v_0 + theta v_1), J = f'(x) of every row by torch.autograd."""
    solver, x = scattered(generator, 3, "jvp"), torch.randn(4, 6, dtype=DOUBLE, generator=generator)
    t, v = solver.theta, bent(x) - x
    J = torch.stack(
        [torch.autograd.functional.jacobian(lambda y: (bent(y[None]) - y[None])[0], row) for row in x]
    )  # fmt: skip
    times = lambda d: (J @ d[:, :, None])[:, :, 0]  # noqa: E731
    v1 = times(t[0] * v)
    v2 = times(t[1] * v + t[2] * v1)
    (ours,) = walk(solver, Equation(bent).at(x), x, 1)
    assert far(ours, x + t[3] * v + t[4] * v1 + t[5] * v2) <= 1e-14


def test_jvp_is_the_limit_of_forward_differences(generator):
    x = torch.randn(4, 6, dtype=DOUBLE, generator=generator)
    exact, near = R2N2(3, "jvp"), R2N2(3, "forward_difference", epsilon=1e-6)
    theta = torch.randn(6, dtype=DOUBLE, generator=generator)
    (a,), (b,) = (walk(s.assign(theta), Equation(bent).at(x), x, 1) for s in (exact, near))
    assert 0 < far(a, b) <= 1e-5


def plain_difference(f, x, d, fx, epsilon):
    return (f(x + epsilon * d) - fx) / epsilon


@pytest.mark.parametrize("wanted", [(0, 1, 2), (0,), (1,), (2,)])
def test_backward_of_a_forward_difference(generator, wanted):
    """SM1.3, with J at x + eps d: against autograd through the formula."""
    x, d, fx, g = (torch.randn(3, 4, dtype=DOUBLE, generator=generator) for _ in range(4))
    given = [t.requires_grad_(i in wanted) for i, t in enumerate((x, d, fx))]
    pair = [
        torch.autograd.grad(difference(bent, *given, 0.3), [given[i] for i in wanted], g)
        for difference in (forward_difference, plain_difference)
    ]
    assert all(far(a, b) <= 1e-14 for a, b in zip(*pair, strict=True))


def test_backward_of_a_forward_difference_twice(generator):
    """Second derivatives through the hand-written backward, against autograd through the formula."""
    x, d, fx, g, u = (torch.randn(3, 4, dtype=DOUBLE, generator=generator) for _ in range(5))
    given = [t.requires_grad_() for t in (x, d, fx)]
    found = []
    for difference in (forward_difference, plain_difference):
        first = torch.autograd.grad(difference(bent, *given, 0.3), given[1], g, create_graph=True)
        found.append(torch.autograd.grad(first, given[:2], u))
    assert all(far(a, b) <= 1e-13 for a, b in zip(*found, strict=True))


def test_forward_difference_keeps_gradients_of_closures(generator):
    """Trainable W in f, with x and d constants or not."""
    W = torch.randn(4, 4, dtype=DOUBLE, generator=generator, requires_grad=True)
    x, d, g = (torch.randn(3, 4, dtype=DOUBLE, generator=generator) for _ in range(3))
    f = lambda x: torch.tanh(x @ W)  # noqa: E731
    for d_wanted in (False, True):
        d.requires_grad_(d_wanted)
        pair = [
            torch.autograd.grad(difference(f, x, d, f(x), 0.1), W, g)[0]
            for difference in (forward_difference, plain_difference)
        ]
        assert far(*pair) <= 1e-13


@pytest.mark.parametrize("inner", [True, False])
def test_gradients_through_forward_difference_layers(generator, inner):
    """To the weights and the start over three iterations, eps 1e-4; against autograd through loops of the formula."""
    x0 = torch.randn(3, 5, dtype=DOUBLE, generator=generator, requires_grad=True)
    solver, e = scattered(generator, 3, "forward_difference", epsilon=1e-4, size=0.3), 1e-4
    f = lambda x: bent(x) - x  # noqa: E731
    t, x = solver.theta.requires_grad_(), x0
    for _ in range(3):
        v = f(x)
        v1 = plain_difference(f, x, t[0] * v, v, e)
        v2 = plain_difference(f, x, t[1] * v + t[2] * v1, v, e)
        x = x + t[3] * v + t[4] * v1 + t[5] * v2
    solver.inner.requires_grad_(inner)
    ours = walk(solver, Equation(bent).at(x0), x0, 3)[-1]
    theirs = torch.autograd.grad(x.square().sum(), (t, x0))
    mine = torch.autograd.grad(ours.square().sum(), (*[solver.inner] * inner, solver.output, x0))
    weights = torch.cat(mine[:-1])
    assert far(weights, theirs[0][-len(weights) :]) <= 1e-5
    assert far(mine[-1], theirs[1]) <= 1e-5


def test_second_derivatives_through_forward_difference_layers(generator):
    """Hessian times vector in the start, against the same weights as evaluation layers."""
    x, u = (torch.randn(2, 4, dtype=DOUBLE, generator=generator) for _ in range(2))
    solver, x = scattered(generator, 3, "forward_difference", epsilon=0.1, size=0.3), x.requires_grad_()
    found = []
    for s in (solver, as_evaluations(solver, 0.1)):
        end = walk(s, Equation(bent).at(x), x, 2)[-1]
        (g,) = torch.autograd.grad(end.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(g, x, u)[0])
    assert far(*found) <= 1e-10


@variants
def test_evaluations_are_those_reported(generator, layer, output, carry):
    """Every call of the operator is counted: n an iteration."""
    T, x = Counted(bent), torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    with torch.no_grad():
        sol = solve(Equation(T), x, R2N2(3, layer, output, carry=carry), FixedSteps(4))
    assert int(sol.evals.max()) == T.calls == 12
    assert T.rows == sol.work == 36


# ---- linear problems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_the_residual_of_a_linear_problem_is_a_polynomial_of_the_operator(generator, layer):
    """p read off scalar problems x = t x + 1 by numpy.polyfit, applied as a dense matrix polynomial."""
    solver = scattered(generator, 4, layer, epsilon=0.5)
    t = torch.linspace(-1, 1, 5, dtype=DOUBLE)
    scalars = Equation(lambda x, t: t * x, torch.ones(5, 1, dtype=DOUBLE), context=(t[:, None],))
    x0 = torch.zeros(5, 1, dtype=DOUBLE)
    with torch.no_grad():
        eq = scalars.at(x0)
        (x1,) = walk(solver, eq, x0, 1)
        p = np.polyfit(t.numpy() - 1, (eq.flat(x1) - x1)[:, 0].numpy(), 4)
        problem = affine(generator, rows=3, width=7, low=-0.8, high=0.9)
        eq, z = problem.equation.at(problem.f), problem.f
        (z1,) = walk(solver, eq, z, 1)
    L, r = (problem.W - torch.eye(7, dtype=DOUBLE)).numpy(), (eq.flat(z) - z).numpy()
    expected = sum(c * r @ np.linalg.matrix_power(L, 4 - k) for k, c in enumerate(p))
    assert far(eq.flat(z1) - z1, torch.from_numpy(expected)) <= 1e-12


@variants
def test_commutes_with_orthogonal_embeddings(generator, layer, output, carry):
    """R2N2 Fig 6: residual norms in 15 dimensions are those in 5."""
    small = LinearFamily("A1")
    large = small.embedded(15, generator)
    solver = scattered(generator, 3, layer, output, carry=carry, size=0.3, epsilon=0.1)
    paths = []
    for family in (small, large):
        batch = family.sample(6, torch.Generator().manual_seed(3))
        with torch.no_grad():
            trace = solve(family.equation(batch), batch.x0, solver, FixedSteps(4), trace=True).trace
        assert trace is not None
        paths.append(trace.residual)
    assert bool((paths[0][1:] != paths[0][:-1]).any())
    assert float(((paths[0] - paths[1]) / paths[0][0]).abs().max()) <= 1e-9


@pytest.mark.parametrize("layer", LAYERS)
def test_one_solver_for_any_number_of_unknowns(generator, layer):
    """For f that acts on each component alone, the first 5 of 10^5 components are those of 5."""
    x = torch.randn(2, 100_000, dtype=DOUBLE, generator=generator)
    solver, f = scattered(generator, 3, layer, per_iteration=2, carry=1, size=0.3), torch.cos
    with torch.no_grad():
        large, small = (walk(solver, Equation(f).at(z), z, 3)[-1] for z in (x, x[:, :5].clone()))
    assert far(large[:, :5], small) <= 1e-7  # cos of 10^5 numbers and of 5 may differ in the last bit, over eps


# ---- the least-squares output -------------------------------------------------------------------------------------


def minimised(f, x: np.ndarray, theta: np.ndarray, b: float, weights: np.ndarray) -> np.ndarray:
    """One row by hand: x + b r - (S + b Y) g with scipy.linalg.lstsq in the norm of the weights."""
    r, moves, values = f(x), [], [f(x)]
    for row in theta:
        s = sum(t * v for t, v in zip(row, values, strict=True))
        moves.append(s)
        values.append(f(x + s))
    S = np.stack(moves, 1)
    Y = np.stack([v - r for v in values[1:]], 1)
    root = np.sqrt(weights)
    found = scipy.linalg.lstsq(root[:, None] * Y, root * r)
    assert found is not None
    return x + b * r - (S + b * Y) @ found[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_least_squares_output_by_hand(generator, weighted):
    x = torch.randn(4, 6, dtype=DOUBLE, generator=generator)
    solver = scattered(generator, 4, output="least_squares")
    w = torch.rand(6, dtype=DOUBLE, generator=generator) + 0.1 if weighted else torch.ones(6, dtype=DOUBLE)
    f = lambda x: (bent(torch.from_numpy(x)[None])[0]).numpy() - x  # noqa: E731
    t = solver.theta.numpy()
    rows = (t[:1], t[1:3], t[3:6])
    expected = np.stack([minimised(f, row.numpy(), rows, t[6], w.numpy()) for row in x])
    (ours,) = walk(solver, Equation(bent, space=Rows(w) if weighted else Rows()).at(x), x, 1)
    assert far(ours, torch.from_numpy(expected)) <= 1e-9  # normal equations: the square of the condition


@pytest.mark.parametrize("layer", LAYERS)
def test_least_squares_output_is_gmres_on_linear_problems(generator, layer):
    """b = 0: the residual after one iteration of n stages is that of scipy's GMRES(n - 1)."""
    problem = affine(generator, rows=3, width=8, low=-0.5, high=0.8)
    solver = R2N2(4, layer, "least_squares", epsilon=0.5)
    A = (torch.eye(8, dtype=DOUBLE) - problem.W).numpy()
    eq, x0 = problem.equation.at(problem.f), torch.zeros_like(problem.f)
    with torch.no_grad():
        solver.output.zero_()
        (x1,) = walk(solver, eq, x0, 1)
        residual = eq.norm(eq.flat(x1) - x1)
    for b, found in zip(problem.f.numpy(), residual, strict=True):
        y, _ = scipy.sparse.linalg.gmres(A, b, restart=3, maxiter=1, rtol=1e-15)
        assert abs(np.linalg.norm(b - A @ y) - float(found)) <= 1e-10 * np.linalg.norm(b)


@pytest.mark.parametrize(("depth", "damping"), [(1, 0.0), (2, 0.0), (2, 0.3), (4, 0.1)])
@pytest.mark.parametrize("operator", ["affine", "bent"])
def test_memory_and_least_squares_are_anderson(generator, depth, damping, operator):
    """R2N2(1, least_squares, carry = d) with b = 1 - damping takes the iterates of Anderson(d, damping)."""
    problem = affine(generator, low=-0.8, high=0.8)
    eq = problem.equation if operator == "affine" else Equation(bent, 0.1 * problem.f)
    eq = eq.at(problem.f)
    ours = R2N2(1, output="least_squares", carry=depth, theta=[1 - damping])
    with torch.no_grad():
        paths = zip(*(walk(s, eq, problem.f, 7) for s in (ours, Anderson(depth, damping))), strict=True)
        assert all(far(a, b) <= 1e-7 for a, b in paths)  # two orders of the same sums, then normal equations


def test_least_squares_output_survives_a_row_without_differences(generator):
    """An exact root beside another row: no NaN from Y = 0."""
    x = torch.stack((torch.zeros(4, dtype=DOUBLE), torch.randn(4, dtype=DOUBLE, generator=generator)))
    with torch.no_grad():
        for carry in (0, 2):
            path = walk(R2N2(2, output="least_squares", carry=carry), Equation(lambda x: 0.5 * x).at(x), x, 3)
            assert all(bool(torch.isfinite(z).all()) for z in path)
            assert float(path[-1][0].abs().max()) == 0


# ---- weights by iteration, memory, preconditioner -----------------------------------------------------------------


def test_weights_of_every_iteration_in_order_and_the_last_again(start):
    solver, x = R2N2(1, per_iteration=3, theta=[0.1, 0.2, 0.3]), start
    eq = Equation(lambda x: x + field(x)).at(start)
    for ours, b in zip(walk(solver, eq, start, 5), [0.1, 0.2, 0.3, 0.3, 0.3], strict=True):
        x = x + b * field(x)
        assert far(ours, x) <= 1e-14
    assert [solver.tableau(k)[1].item() for k in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3])


def test_weights_of_every_iteration_survive_compaction(generator):
    """A fast row leaves; the slow ones go on with the weights of their own iteration."""
    a = torch.tensor([[0.1], [0.9], [0.9]], dtype=DOUBLE)
    eq = Equation(lambda x, a: a * x, torch.ones(3, 2, dtype=DOUBLE), context=(a,))
    solver = R2N2(1, per_iteration=40, theta=torch.linspace(0.5, 1.5, 40, dtype=DOUBLE))
    with torch.no_grad():
        runs = [solve(eq, None, solver, Tolerance(1e-9, max_steps=200), compact=c) for c in (True, False)]
    assert runs[0].work < runs[1].work
    assert torch.equal(runs[0].steps, runs[1].steps)
    assert far(runs[0].value, runs[1].value) <= 1e-14


@pytest.mark.parametrize("layer", LAYERS)
def test_memory_takes_no_part_in_the_first_iteration(generator, layer):
    x = torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    for output in ("weights", "least_squares"):
        plain = R2N2(3, layer, output)
        keeps = scattered(generator, 3, layer, output, carry=2)
        with torch.no_grad():
            keeps.inner.copy_(plain.inner)
            keeps.output.copy_(plain.output)
            (a, a2), (b, b2) = (walk(s, Equation(bent).at(x), x, 2) for s in (plain, keeps))
        assert far(a, b) <= 1e-14
        assert far(a2, b2) > 1e-6


def test_memory_by_hand(generator):
    """Two stages, the two vectors of the iteration before: v_j and x_next gain sum m[l] (v'_l - v_0)."""
    x = torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    solver, f = scattered(generator, 2, carry=2), lambda x: bent(x) - x
    a, b0, b1, m00, m01, m10, m11 = solver.theta
    past = None
    for ours in walk(solver, Equation(bent).at(x), x, 4):
        v0 = f(x)
        u = [w - v0 for w in past] if past else [torch.zeros_like(x)] * 2
        v1 = f(x + a * v0 + m00 * u[0] + m01 * u[1])
        x = x + b0 * v0 + b1 * v1 + m10 * u[0] + m11 * u[1]
        past = (v0, v1)
        assert far(ours, x) <= 1e-13


@variants
def test_preconditioner_is_an_equation_of_its_own(generator, layer, output, carry):
    """M inside the layers is the same solver on x = x + M (P(x) - x)."""
    M = torch.randn(5, 5, dtype=DOUBLE, generator=generator) / 4 + torch.eye(5, dtype=DOUBLE)
    x = torch.randn(3, 5, dtype=DOUBLE, generator=generator)
    precondition = lambda v: v @ M  # noqa: E731
    solver = scattered(generator, 3, layer, output, carry=carry, epsilon=1e-2, size=0.3)
    with_m = R2N2(3, layer, output, carry=carry, epsilon=1e-2, preconditioner=precondition, theta=solver.theta)
    with torch.no_grad():
        inside = walk(with_m, Equation(bent).at(x), x, 3)
        outside = walk(solver, Equation(lambda x: x + precondition(bent(x) - x)).at(x), x, 3)
    assert all(far(a, b) <= 1e-9 for a, b in zip(inside, outside, strict=True))


# ---- inside solve -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@variants
def test_numbers_that_are_not_finite_are_never_success(layer, output, carry, bad):
    """Row 1 is not finite at once, row 2 from the second iterate on, row 0 is fine."""
    kind = torch.tensor([[0.0], [1.0], [2.0]], dtype=DOUBLE)

    def T(x, kind):
        broken = (kind == 1) | ((kind == 2) & (x > 0.5))
        return torch.where(broken, bad, 0.5 * x + 0.4)

    eq, x0 = Equation(T, context=(kind,)), torch.zeros(3, 2, dtype=DOUBLE)
    solver = R2N2(2, layer, output, carry=carry)
    for stop in (Tolerance(1e-8, max_steps=120), FixedSteps(12, check=True)):
        with torch.no_grad():
            status = [Status(int(s)) for s in solve(eq, x0, solver, stop).status]
        good = Status.CONVERGED if isinstance(stop, Tolerance) else Status.COMPLETED
        assert status[0] is good
        assert not {Status.CONVERGED, Status.COMPLETED} & set(status[1:])


@variants
def test_a_stage_outside_the_domain_is_a_status(layer, output, carry):
    """log at a negative stage: NaN though x itself is fine, then NONFINITE; beside it a row that converges."""
    eq = Equation(lambda x, c: 0.3 * torch.log(x) + c, context=(torch.tensor([[-40.0], [1.0]], dtype=DOUBLE),))
    solver = R2N2(2, layer, output, carry=carry, epsilon=1.0)
    with torch.no_grad():
        sol = solve(eq, torch.ones(2, 3, dtype=DOUBLE), solver, Tolerance(1e-8, max_steps=100))
    assert [Status(int(s)) for s in sol.status] == [Status.NONFINITE, Status.CONVERGED]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_function_of_the_wrong_shape(layer):
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 2\)|\(4, 2\).*\(4, 3\)"):
        solve(Equation(lambda x: x[:, :2]), torch.zeros(4, 3), R2N2(2, layer), FixedSteps(2))


@variants
def test_steps_of_every_row_follow_it_through_compaction(generator, layer, output, carry):
    """Rows with steps h and factors of their own: together, gathered, and one by one."""
    h = torch.tensor([1.0, 0.5, 0.2, 0.8], dtype=DOUBLE)
    a = torch.tensor([[0.1], [0.3], [-0.5], [0.6]], dtype=DOUBLE)
    x0 = torch.randn(4, 3, dtype=DOUBLE, generator=generator)
    make = lambda i: Equation(lambda x, a: a * torch.sin(x) + 0.3, scale=h[i], context=(a[i],))  # noqa: E731
    theta = [0.7, *([0.9, 0.1] if output == "weights" else [0.8])]
    solver, stop = R2N2(2, layer, output, carry=carry, epsilon=0.1), Tolerance(1e-9, max_steps=600)
    solver.assign([*theta, *[0.01] * solver.memory.numel()])
    with torch.no_grad():
        whole = solve(make(slice(None)), x0, solver, stop, compact=True)
        alone = [solve(make(slice(i, i + 1)), x0[i : i + 1], solver, stop) for i in range(4)]
    assert whole.counts() == {"CONVERGED": 4}
    assert len(set(whole.steps.tolist())) > 1
    assert whole.steps.tolist() == [int(s.steps) for s in alone]
    assert far(whole.value, torch.cat([s.value for s in alone])) <= 1e-11


def test_a_safeguarded_solver_converges_where_the_learned_one_blows_up(generator):
    problem, wild = affine(generator), R2N2(2, theta=[1.0, 4.0, 4.0])
    stop = Tolerance(1e-8, max_steps=150)
    with torch.no_grad():
        alone = solve(problem.equation, solver=wild, stop=stop)
        guarded = solve(problem.equation, solver=Safeguarded(wild, Anderson()), stop=stop)
    assert alone.counts() == {"DIVERGED": 6}
    assert guarded.counts() == {"CONVERGED": 6}


@pytest.mark.parametrize("output", ["weights", "least_squares"])
@pytest.mark.parametrize("layer", LAYERS)
def test_complex_states_and_tuples_and_graphs(generator, layer, output):
    """x = c x + 1 with complex c; (a, b) = (1 + b/4, a/2); segments of several lengths: closed forms."""
    solver, stop = R2N2(2, layer, output, epsilon=0.1), Tolerance(1e-9, max_steps=300)
    c, one = 0.3 + 0.2j, torch.ones(2, 3, dtype=torch.complex128)
    with torch.no_grad():
        z = solve(Equation(lambda x: c * x, one), None, solver, stop).require().value
        a, b = torch.zeros(3, 2, dtype=DOUBLE), torch.zeros(3, 1, dtype=DOUBLE)
        pair = (
            solve(Equation(lambda x: (1 + x[1].expand(-1, 2) / 4, x[0][:, :1] / 2)), (a, b), solver, stop)
            .require()
            .value
        )
        space = Segments(torch.tensor([0, 0, 1, 1, 1]), 2)
        nodes = torch.randn(5, 2, dtype=DOUBLE, generator=generator)
        graph = solve(Equation(lambda x: x / 3, nodes, space=space), None, solver, stop).require().value
    assert float((z - 1 / (1 - c)).abs().max()) <= 1e-8
    assert float((pair[0] - 8 / 7).abs().max()) <= 1e-8
    assert far(graph, 1.5 * nodes) <= 1e-8


# ---- gradients ----------------------------------------------------------------------------------------------------


def plain_loop(theta: Tensor, T, x: Tensor, steps: int) -> Tensor:
    """Two stages of evaluations, by hand."""
    f = lambda x: T(x) - x  # noqa: E731
    for _ in range(steps):
        v0 = f(x)
        v1 = f(x + theta[0] * v0)
        x = x + theta[1] * v0 + theta[2] * v1
    return x


@pytest.mark.parametrize("adjoint", [Unrolled(), Checkpointed(), Checkpointed(every=2)], ids=repr)
def test_gradients_of_the_iteration(generator, adjoint):
    """To the weights of the solver, the operator and the start: plain autograd through the loop by hand."""
    W = affine(generator, rows=3, width=4, low=-0.6, high=0.6).W.requires_grad_()
    x0 = torch.randn(3, 4, dtype=DOUBLE, generator=generator, requires_grad=True)
    T = lambda x: torch.tanh(x @ W) + 0.1  # noqa: E731
    solver = scattered(generator, 2)
    theta = solver.theta.requires_grad_()
    theirs = torch.autograd.grad(plain_loop(theta, T, x0, 4).square().sum(), (theta, W, x0))
    value = solve(Equation(T), x0, solver, FixedSteps(4), adjoint).value
    inner, output, *rest = torch.autograd.grad(value.square().sum(), (solver.inner, solver.output, W, x0))
    for a, b in zip((torch.cat((inner, output)), *rest), theirs, strict=True):
        assert far(a, b) <= 1e-12


@pytest.mark.parametrize(("adjoint", "room"), [(Implicit(), 1e-8), (Truncated(40), 1e-8)], ids=repr)
@pytest.mark.parametrize("output", ["weights", "least_squares"])
def test_gradients_of_the_root(generator, adjoint, room, output):
    """Those of a long plain iteration; the weights of the solver do not move a root."""
    W = affine(generator, rows=3, width=4, low=-0.6, high=0.6).W.requires_grad_()
    T = lambda x: torch.tanh(x @ W) + 0.1  # noqa: E731
    x0, solver = torch.zeros(3, 4, dtype=DOUBLE), R2N2(2, output=output, theta=None)
    x = x0
    for _ in range(80):
        x = T(x)
    (theirs,) = torch.autograd.grad(x.sum(), W)
    sol = solve(Equation(T), x0, solver, Tolerance(1e-12, max_steps=200), adjoint)
    ours, inner = torch.autograd.grad(sol.value.sum(), (W, solver.inner), allow_unused=True)
    assert sol.counts() == {"CONVERGED": 3}
    assert far(ours, theirs) <= room
    assert inner is None or float(inner.abs().max()) <= 1e-10


@variants
def test_vmap_over_weights_is_a_loop_over_weights(generator, layer, output, carry):
    """What multistart training stands on, forward and by torch.func.jvp."""
    x = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
    solver = R2N2(2, layer, output, 2, carry=carry, epsilon=1e-2)
    starts = solver.theta + 0.2 * torch.randn(3, len(solver.theta), dtype=DOUBLE, generator=generator)
    shapes = {k: p.shape for k, p in solver.named_parameters()}

    class Run(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.solver = solver

        def forward(self):
            return walk(self.solver, Equation(bent).at(x), x, 3)[-1]

    def end(theta):
        parts = theta.split([s.numel() for s in shapes.values()])
        named = {f"solver.{k}": p.reshape(s) for (k, s), p in zip(shapes.items(), parts, strict=True)}
        return torch.func.functional_call(Run(), named, ())

    tangent = lambda t: torch.func.jvp(end, (t,), (torch.ones_like(t),))[1]  # noqa: E731
    for function in (end, tangent):
        together = torch.func.vmap(function)(starts)
        assert far(together, torch.stack([function(t) for t in starts])) <= 1e-10
    with torch.no_grad():
        assert far(end(starts[0]), walk(solver.assign(starts[0]), Equation(bent).at(x), x, 3)[-1]) <= 1e-12
    step = 1e-5
    slope = (end(starts[1] + step) - end(starts[1] - step)) / (2 * step)
    assert far(tangent(starts[1]), slope) <= 1e-5  # rounding over step, curvature times step^2


# ---- as a value ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_iteration", [None, 2])
@variants
def test_lives_on_any_one_device(layer, output, carry, per_iteration):
    """On the meta device: no tensor is made elsewhere, and none is read on the host."""
    solver = R2N2(3, layer, output, per_iteration, carry=carry).to("meta")
    x, h = torch.zeros(4, 5, device="meta"), torch.ones(4, device="meta")
    for scale in (None, h):
        with torch.no_grad():
            path = walk(solver, Equation(bent, scale=scale).at(x), x, 3)
        assert {(z.device.type, z.dtype, z.shape) for z in path} == {("meta", torch.float32, (4, 5))}


@variants
def test_repr_pickle_and_copies_keep_every_bit_of_the_weights(generator, layer, output, carry):
    solver = scattered(generator, 3, layer, output, 2, carry=carry)
    built = eval(repr(solver), dict(vars(settlepoint)))
    for twin in (built, pickle.loads(pickle.dumps(solver)), copy.deepcopy(solver)):
        assert torch.equal(twin.theta, solver.theta)
        assert [p.shape for p in twin.parameters()] == [p.shape for p in solver.parameters()]
        assert twin.inner is not solver.inner


def test_weights_keep_their_dtype_and_take_that_of_the_state(generator):
    solver = scattered(generator, 3, size=0.2)
    x = torch.randn(3, 4, generator=generator)
    value = solve(Equation(bent), x, solver, FixedSteps(3)).value
    twice = solve(Equation(bent), x.double(), solver, FixedSteps(3)).value
    assert value.dtype == torch.float32
    assert solver.theta.dtype == DOUBLE
    assert far(value.double(), twice) <= 1e-5  # three iterations in float32


def test_untrained_solvers_are_picard(generator):
    """n evaluations: n steps; derivatives: one."""
    x = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
    eq = Equation(bent).at(x)
    for layer, count in (("evaluation", 3), ("forward_difference", 1), ("jvp", 1)):
        (ours,) = walk(R2N2(3, layer), eq, x, 1)
        assert far(ours, walk(Picard(), eq, x, count)[-1]) <= 1e-14


def test_tableau_and_theta_agree():
    """KUTTA3 in, KUTTA3 out; tableau is differentiable in the weights."""
    solver = R2N2.from_tableau(tableaus.KUTTA3)
    a, b = solver.tableau()
    A, B = tableaus.KUTTA3.matrices()
    assert torch.equal(a, A)
    assert torch.equal(b, B)
    assert solver.theta.tolist() == [0.5, -1.0, 2.0, 1 / 6, 2 / 3, 1 / 6]
    (g,) = torch.autograd.grad(a[2, 1], solver.inner)
    assert g.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: R2N2(0), "stages must be an integer >= 1, got 0"),
        (lambda: R2N2(True), "stages must be an integer >= 1, got True"),
        (lambda: R2N2(2.0), "stages must be an integer >= 1, got 2.0"),  # pyright: ignore[reportArgumentType]
        (lambda: R2N2(2, "secant"), "layer must be one of evaluation, forward_difference, jvp, got 'secant'"),
        (lambda: R2N2(2, output="mean"), "output must be one of weights, least_squares, got 'mean'"),
        (lambda: R2N2(2, per_iteration=0), "per_iteration must be an integer >= 1, got 0"),
        (lambda: R2N2(2, carry=-1), "carry must be an integer >= 0, got -1"),
        (lambda: R2N2(2, epsilon=0.0), "epsilon must be a finite number > 0, got 0.0"),
        (lambda: R2N2(2, epsilon=math.nan), "epsilon must be a finite number > 0, got nan"),
        (lambda: R2N2(2, theta=[1.0]), r"theta must hold 3 weights in one sequence, got shape \(1,\)"),
        (lambda: R2N2(2).assign(torch.ones(3, 1)), r"theta must hold 3 weights in one sequence, got shape \(3, 1\)"),
        (lambda: R2N2(2, output="least_squares").tableau(), "least_squares output has no tableau"),
        (lambda: tableaus.Tableau(((1,), (1,)), (1, 0, 0)), r"rows must hold 1, 2, ..., 2 entries.*got \[1, 1\]"),
        (lambda: tableaus.richardson(0.1, 0), "steps must be an integer >= 1, got 0"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_layers_and_outputs_have_no_other_names():
    """What the parametrised tests of this file walk through is all there is."""
    from settlepoint.solvers import r2n2

    assert r2n2.LAYERS == LAYERS
    assert r2n2.OUTPUTS == ("weights", "least_squares")
