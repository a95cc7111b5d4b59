"""Solvers without the driver, method by method. Oracles: the formulas in their papers, scipy, closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from tests.cells import DOUBLE, Affine, Counted, affine, rotation
from torch import Tensor

from settlepoint import (
    Aitken,
    Anderson,
    Auto,
    Broyden,
    Chebyshev,
    Equation,
    FixedSteps,
    Halpern,
    Mann,
    NewtonKrylov,
    Picard,
    Safeguarded,
    Solver,
    Status,
    Tolerance,
    solve,
)
from settlepoint.solvers.auto import asymptotic_rate, evaluations_per_efold
from settlepoint.solvers.least_squares import _eliminated
from settlepoint.solvers.solver import (
    Stateless,
    clone_state,
    gather_state,
    guarded_ratio,
    placed,
    rowwise,
)


def walk(solver: Solver, eq: Equation, z: Tensor, steps: int) -> list[Tensor]:
    """The iterates of `steps` steps, without stop, status or compaction."""
    path, state = [z], None
    with torch.no_grad():
        for _ in range(steps):
            r = eq.flat(z) - z
            state = solver.init(eq, z, r) if state is None else state
            z, state, _ = solver.step(eq, z, r, state)
            path.append(z)
    return path


@pytest.fixture
def problem(generator) -> Affine:
    return affine(generator, rows=2, width=8, low=-0.6, high=0.9)


# ---- Picard, Mann --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [0.0, 0.25, 0.9])
def test_picard_is_its_formula(problem, a):
    eq, z = problem.equation, problem.f
    for ours in walk(Picard(a), eq, z, 5):
        assert torch.allclose(ours, z, rtol=1e-13)
        z = a * z + (1 - a) * eq.image(z)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [([0.9, 0.5, 0.1], [0.9, 0.5, 0.1, 0.1, 0.1]), (lambda k: 1 / (k + 2), [1 / (k + 2) for k in range(5)])],
    ids=["list", "function"],
)
def test_mann_takes_its_schedule(problem, schedule, values):
    """A list whose last value goes on, and a function of the step count, against the formula."""
    z, path = problem.f, walk(Mann(schedule), problem.equation, problem.f, 5)
    for ours, a in zip(path[1:], values, strict=True):
        z = a * z + (1 - a) * problem.equation.image(z)
        assert torch.allclose(ours, z, rtol=1e-6)  # 1 / (k + 2) of an integer tensor k is float32


def test_mann_settles_what_picard_cycles():
    """1 - z with a_k = 1/(k + 2)."""
    sol = solve(Equation(lambda z: 1 - z), torch.zeros(1, 1, dtype=DOUBLE), Mann(lambda k: 1 / (k + 2)))
    assert sol.require().value.item() == pytest.approx(0.5, abs=1e-6)


# ---- Halpern -------------------------------------------------------------------------------------------------------


def test_halpern_is_its_formula(problem):
    eq, x0 = problem.equation, problem.f
    z = x0
    for k, ours in enumerate(walk(Halpern(restart=None), eq, x0, 6)):
        assert torch.allclose(ours, z, rtol=1e-12)
        z = x0 / (k + 2) + (k + 1) / (k + 2) * eq.image(z)


def test_halpern_keeps_lieders_bound():
    """|P(x_k) - x_k| <= 2 |x_0 - x*| / (k + 1) for nonexpansive P: here a rotation."""
    T = rotation()
    path = walk(Halpern(restart=None), Equation(T), torch.tensor([[1.0, 0.0]], dtype=DOUBLE), 50)
    for k, x in enumerate(path):
        assert float((T(x) - x).norm()) <= 2 / (k + 1) + 1e-12


def test_restarts_make_halpern_linear(problem):
    steps = {r: int(solve(problem.equation, solver=Halpern(r), stop=Tolerance(1e-4, max_steps=5000)).steps.max())
             for r in (None, 0.5)}  # fmt: skip
    assert steps[0.5] < 0.2 * steps[None]


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_halpern_finds_the_smallest_displacement(size):
    """The second coordinate settles, the first moves by v for ever."""
    T = lambda x: torch.stack((x[:, 0] + size, 0.5 * x[:, 1]), 1)  # noqa: E731
    x0 = torch.tensor([[0.0, size]], dtype=DOUBLE)
    sol = solve(Equation(T), x0, Halpern(), Tolerance(1e-6 * size, max_steps=1000))
    assert torch.allclose(sol.displacement, torch.tensor([[size, 0.0]], dtype=DOUBLE), atol=0.1 * size)
    # the residual still falls towards |v|, as it would towards a far fixed point: no verdict, but the displacement
    assert sol.status.tolist() == [Status.MAX_STEPS]


# ---- Aitken, Chebyshev ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-1.9, -0.5, 0.9, 0.999, 1.9])
def test_aitken_is_exact_for_one_linear_unknown(rate):
    """Three evaluations: start, Picard step, secant step."""
    sol = solve(Equation(lambda z: rate * z + 1), torch.zeros(1, 1, dtype=DOUBLE), Aitken(1e4), Tolerance(1e-9))
    assert int(sol.evals) == 3
    assert sol.value.item() == pytest.approx(1 / (1 - rate), rel=1e-9)


def test_aitken_limits_its_factor():
    """Rate .9999 asks for a factor 1e4; with limit 10 the step is ten residuals long."""
    path = walk(Aitken(10.0), Equation(lambda z: 0.9999 * z + 1), torch.zeros(1, 1, dtype=DOUBLE), 2)
    assert path[2].item() == pytest.approx(1 + 10 * 0.9999)


def test_chebyshev_is_the_chebyshev_polynomial(generator):
    """Residual polynomial T_k((c - x)/d) / T_k(c/d) of I - W on [1 - high, 1 - low], eigenvalue by eigenvalue."""
    low, high, steps = -0.5, 0.9, 7
    values = torch.linspace(low, high, 9, dtype=DOUBLE)[None]
    x0 = torch.ones_like(values)
    c, d = 1 - (low + high) / 2, (high - low) / 2
    T = lambda n, x: np.cosh(n * np.arccosh(x + 0j)).real  # noqa: E731
    end = walk(Chebyshev(low, high), Equation(lambda x: values * x), x0, steps)[-1]
    expected = T(steps, (c - (1 - values.numpy())) / d) / T(steps, c / d)
    assert np.allclose(end.numpy(), expected, atol=1e-13)


def test_chebyshev_of_a_point():
    """low = high: one step solves it."""
    assert int(solve(Equation(lambda x: 0.7 * x + 1), torch.zeros(1, 1, dtype=DOUBLE), Chebyshev(0.7, 0.7)).evals) == 2


# ---- Anderson ------------------------------------------------------------------------------------------------------


def least_squares_anderson(eq: Equation, z: Tensor, depth: int, steps: int) -> Tensor:
    """Walk & Ni's type II with numpy.linalg.lstsq, one row."""
    xs, gs = [z[0].numpy()], []
    for _ in range(steps):
        gs.append(eq.image(torch.from_numpy(xs[-1])[None])[0].numpy())
        m = min(depth, len(gs) - 1)
        r = [g - x for g, x in zip(gs, xs, strict=True)]
        if not m:
            xs.append(gs[-1])
            continue
        dR = np.stack([r[-i] - r[-i - 1] for i in range(1, m + 1)], 1)
        dG = np.stack([gs[-i] - gs[-i - 1] for i in range(1, m + 1)], 1)
        gamma = np.linalg.lstsq(dR, r[-1], rcond=None)[0]
        xs.append(gs[-1] - dG @ gamma)
    return torch.from_numpy(xs[-1])


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_anderson_is_least_squares(generator, depth):
    """Oracle: numpy.linalg.lstsq, nonlinear operator, more steps than slots."""
    problem = affine(generator, rows=1, width=10)
    eq = Equation(lambda x: torch.tanh(x @ problem.W) + problem.f)
    ours = walk(Anderson(depth), eq, problem.f, 9)[-1][0]
    theirs = least_squares_anderson(eq, problem.f, depth, 9)
    assert torch.allclose(ours, theirs, atol=1e-7)  # normal equations lose half of the digits


def test_anderson_on_linear_problems_is_gmres(problem):
    """Depth >= width: exact after width + 2 evaluations (Walker & Ni 2011, Theorem 2.2)."""
    sol = solve(problem.equation, solver=Anderson(10), stop=Tolerance(1e-8))
    assert int(sol.evals.max()) <= 8 + 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_both_small_solvers_agree(generator, dtype):
    """LAPACK a row, and elimination of all rows at once; oracle: torch.linalg.solve in float64."""
    a = torch.randn(40, 5, 5, dtype=DOUBLE, generator=generator)
    a = a @ a.mT + 0.1 * torch.eye(5, dtype=DOUBLE)
    b = torch.randn(40, 5, dtype=DOUBLE, generator=generator)
    right, room = torch.linalg.solve(a, b), 1e3 * torch.finfo(dtype).eps
    for small in (lambda a, b: torch.linalg.solve_ex(a, b)[0], _eliminated):
        x = small(a.to(dtype), b.to(dtype)).double()
        assert float(((x - right).norm(dim=1) / right.norm(dim=1)).max()) <= room * float(torch.linalg.cond(a).max())


def test_elimination_of_singular_systems():
    """Pivots that are zero, or lost to rounding, give zeros; other rows do not notice."""
    a = torch.zeros(3, 3, 3, dtype=DOUBLE)
    a[1] = torch.eye(3)
    a[2] = torch.eye(3)
    a[2, 1, 1] = 0
    g = _eliminated(a, torch.ones(3, 3, dtype=DOUBLE))
    assert g.tolist() == [[0, 0, 0], [1, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("ridge", [0.0, None, 1e-8])
@pytest.mark.parametrize("rows", [4, 300])
def test_parallel_differences(rows, ridge):
    """Width 1: all five differences are multiples of each other, which a ridge of zero leaves singular."""
    rates = torch.linspace(-0.5, 0.8, rows, dtype=DOUBLE)[:, None]
    eq = Equation(lambda x, a: a * torch.tanh(x), torch.ones(rows, 1, dtype=DOUBLE), context=(rates,))
    with torch.no_grad():
        sol = solve(eq, solver=Anderson(5, ridge=ridge), stop=Tolerance(1e-10))
    assert sol.counts() == {"CONVERGED": rows}


@pytest.mark.parametrize("rows", [256, 257])
def test_large_and_small_batches_take_the_same_steps(generator, rows):
    """The two code paths part at 256 rows; the first rows cannot tell."""
    problem = affine(generator, rows=257, width=6)
    part = Equation(lambda x: x @ problem.W, problem.f[:rows])
    with torch.no_grad():
        sol = solve(part, solver=Anderson(), stop=Tolerance(1e-8))
        alone = solve(Equation(lambda x: x @ problem.W, problem.f[:3]), solver=Anderson(), stop=Tolerance(1e-8))
    assert sol.counts() == {"CONVERGED": rows}
    assert int((sol.evals[:3] - alone.evals).abs().max()) <= 2
    assert bool(
        (problem.error(sol.value) if rows == 257 else (sol.value - problem.answer[:rows]).norm(dim=1) <= 1e-6).all()
    )


def test_a_ridge_of_infinity_is_picard(problem):
    ours = walk(Anderson(3, ridge=1e300), problem.equation, problem.f, 4)[-1]
    assert torch.allclose(ours, walk(Picard(), problem.equation, problem.f, 4)[-1], rtol=1e-12)


def test_anderson_forgets_after_a_leap():
    """A residual beyond growth times the best: of all differences only the one that leapt is kept."""
    solver = Anderson(3, growth=10.0)
    eq = Equation(lambda x: 0.5 * x + 1)
    z = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
    with torch.no_grad():
        r = eq.flat(z) - z
        _, state, _ = solver.step(eq, z, r, solver.init(eq, z, r))
        far = torch.tensor([[1e3, 2e3]], dtype=DOUBLE)
        r = eq.flat(far) - far
        moved, state, _ = solver.step(eq, far, r, state)
    assert int(state.used.sum()) <= 1
    assert bool(moved.isfinite().all())


# ---- Broyden -------------------------------------------------------------------------------------------------------


def test_broyden_is_its_formula(generator):
    """Oracle: the dense rank-one updates of H, in numpy."""
    problem = affine(generator, rows=1, width=6, low=-0.5, high=0.7)
    eq = Equation(lambda x: torch.tanh(x @ problem.W) + problem.f)
    path = walk(Broyden(), eq, problem.f, 8)
    image = lambda x: eq.image(torch.from_numpy(x)[None])[0].numpy()  # noqa: E731
    x, H = problem.f[0].numpy(), np.eye(6)
    r = image(x) - x
    for ours in path[1:]:
        new = x + H @ r
        assert np.allclose(ours[0].numpy(), new, atol=1e-10)
        r_new = image(new) - new
        s, y = new - x, r - r_new
        H = H + np.outer(s - H @ y, y) / (y @ y)
        x, r = new, r_new


def test_broyden_forgets_when_full(problem):
    """Memory 3: the fourth update starts from nothing."""
    solver, eq, z, state = Broyden(3), problem.equation, problem.f, None
    held = []
    with torch.no_grad():
        for _ in range(8):
            r = eq.flat(z) - z
            state = solver.init(eq, z, r) if state is None else state
            z, state, _ = solver.step(eq, z, r, state)
            held.append(int(state.left[0].any(1).sum()))
    assert held == [0, 1, 2, 3, 1, 2, 3, 1]


def test_broyden_steps_back_after_a_leap():
    """x^3 - type humps: a step that makes the residual 10 times its best goes on from the best."""
    F = lambda x: torch.atan(4 * x)  # noqa: E731  (Newton's and secant steps overshoot from here)
    sol = solve(Equation.from_root(F), torch.tensor([[1.5]], dtype=DOUBLE), Broyden(), Tolerance(1e-10))
    assert sol.require().value.abs().item() <= 1e-10


# ---- Newton-Krylov -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_newton_krylov_needs_no_more_products_than_gmres(generator, dtype):
    """Linear problem, 1e-6 relative: scipy's gmres without restart counts the products."""
    problem = affine(generator, rows=1, width=64, low=-0.95, high=0.95)
    A, b = (torch.eye(64, dtype=DOUBLE) - problem.W.T).numpy(), problem.f[0].numpy()
    seen = []
    scipy.sparse.linalg.gmres(A, b, rtol=1e-6, restart=64, maxiter=1, callback=seen.append, callback_type="pr_norm")
    sol = solve(
        problem.to(dtype).equation, None, NewtonKrylov(inner=4, restart=64), Tolerance(0.0, 1e-6, max_steps=200)
    )
    assert sol.counts() == {"CONVERGED": 1}
    assert int(sol.evals) <= 1.3 * len(seen) + 8  # one evaluation a step of 4 products, and the last step whole


def test_newton_converges_quadratically():
    """x = cos x, whole Krylov space: the error is squared from step to step."""
    z = torch.tensor([[1.0]], dtype=DOUBLE)
    path = walk(NewtonKrylov(inner=1, restart=1), Equation(torch.cos), z, 4)
    errors = [abs(p.item() - 0.7390851332151607) for p in path]
    assert all(b <= 0.5 * a * a + 1e-15 for a, b in pairwise(errors))


def test_the_line_search_tames_newton():
    """atan from 3: the full Newton step diverges (beyond 1.39), halved steps do not; rows are searched on their own."""
    x0 = torch.tensor([[3.0], [0.1], [20.0]], dtype=DOUBLE)
    sol = solve(Equation.from_root(torch.atan), x0, NewtonKrylov(inner=1, restart=1), Tolerance(1e-10))
    assert sol.counts() == {"CONVERGED": 3}
    assert float(sol.value.abs().max()) <= 1e-9
    assert int(sol.steps[1]) <= 5 < int(sol.steps[0])


def test_the_line_search_steps_back_from_nan():
    """log x = 1 - x... from 5 Newton leaves the domain of the logarithm; halving comes back."""
    x0 = torch.tensor([[5.0], [1.5]], dtype=DOUBLE)
    sol = solve(Equation.from_root(torch.log), x0, NewtonKrylov(inner=1, restart=1), Tolerance(1e-10))
    assert torch.allclose(sol.require().value, torch.ones(2, 1, dtype=DOUBLE))


def test_products_are_counted(problem):
    sol = solve(problem.equation, solver=NewtonKrylov(inner=3), stop=FixedSteps(4))
    assert sol.evals.tolist() == [16, 16]


# ---- Safeguarded ---------------------------------------------------------------------------------------------------


class Spoiled(Picard):
    """Fine for `after` steps, then what `how` makes of it."""

    def __init__(self, after: int, how: str):
        super().__init__()
        self.after, self.how = after, how

    def init(self, eq, z, r):
        from settlepoint.solvers.mann import MannState

        return MannState(z.new_zeros((), dtype=torch.int64))

    def step(self, eq, z, r, state):
        moved = {"nan": z * math.nan, "far": z + 1e6, "still": z, "slightly worse": z - 0.2 * r}[self.how]
        good = state.step < self.after
        return torch.where(good, z + r, moved), type(state)(state.step + 1), 0


@pytest.mark.parametrize("how", ["nan", "far", "still", "slightly worse"])
@pytest.mark.parametrize("after", [0, 3])
def test_the_fallback_takes_over(problem, how, after):
    sol = solve(problem.equation, solver=Safeguarded(Spoiled(after, how), Picard()), stop=Tolerance(max_steps=400))
    plain = solve(problem.equation, solver=Picard(), stop=Tolerance(max_steps=400))
    assert sol.counts() == {"CONVERGED": 2}
    assert int(sol.steps.max()) <= int(plain.steps.max()) + 12  # patience, and what was lost on the way


def test_a_good_primary_is_left_alone(problem):
    """Step for step Anderson's own."""
    a, b = (solve(problem.equation, solver=s) for s in (Anderson(), Safeguarded(Anderson(), Picard())))
    assert torch.equal(a.value, b.value)
    assert torch.equal(a.evals, b.evals)


def test_trust_is_lost_row_by_row():
    """Chebyshev solves x/2 in one step, and runs to and fro on -atan(9x)/9, where damped Picard settles."""
    eq = Equation(lambda x: torch.cat((0.5 * x[:1], -torch.atan(9 * x[1:]) / 9)))
    with torch.no_grad():
        sol = solve(
            eq, torch.tensor([[1.0], [4.0]], dtype=DOUBLE), Safeguarded(Chebyshev(0.5, 0.5), Picard(0.5)), compact=False
        )
    assert sol.counts() == {"CONVERGED": 2}
    assert sol.steps[0] == 2  # Chebyshev's own single step
    assert sol.steps[1] > 8  # Picard's, after the patience of 5


# ---- Auto ----------------------------------------------------------------------------------------------------------


def test_auto_says_what_it_chose():
    problem = affine(torch.Generator().manual_seed(0), rows=64, width=64, low=-0.99, high=0.99)
    with torch.no_grad():
        sol = solve(problem.equation, solver=Auto(), stop=Tolerance(0.0, 1e-6, max_steps=2000))
    assert sol.counts() == {"CONVERGED": 64}
    (note,) = [n for n in sol.notes if n.startswith("Auto: ")]
    for name in ("Picard", "Aitken", "Anderson", "NewtonKrylov", "rate 0.9"):
        assert name in note


def test_rate_of_auto():
    """Ratios rho - c/k have the limit rho; rows that stand still or are lost are left out."""
    ratios = np.array([0.95 - 0.3 / k for k in range(4, 17)])
    norms = np.cumprod(np.concatenate(([1.0], ratios)))[:, None]
    assert asymptotic_rate(norms, 16) == pytest.approx(0.95, abs=1e-12)
    still, lost = np.ones_like(norms), np.full_like(norms, np.nan)
    assert asymptotic_rate(np.concatenate((norms, still, lost), 1), 16) == pytest.approx(0.95, abs=1e-12)
    assert asymptotic_rate(0.5 ** np.arange(8.0)[:, None], 8) == pytest.approx(0.5)
    assert asymptotic_rate(1.7 ** np.arange(8.0)[:, None], 8) == 0.9999


def test_costs_of_auto():
    """Picard 1/log(1/rho) evaluations an e-fold; GMRES about 1/log(1/s), s = rho/(1 + sqrt(1 - rho^2))."""
    picard, *others = evaluations_per_efold(0.99)
    s = 0.99 / (1 + math.sqrt(1 - 0.99**2))
    assert picard == pytest.approx(1 / math.log(1 / 0.99))
    assert others[-1] == pytest.approx(1 / math.log(1 / s), rel=0.2)
    assert all(n < picard for n in others)


@pytest.mark.parametrize("choice", range(4))
def test_auto_solves_with_every_choice(problem, choice, monkeypatch):
    """Whatever the clock says: each candidate is led to its end, and counted."""
    counts = [1e4] * 4
    counts[choice] = 1.0
    monkeypatch.setattr("settlepoint.solvers.auto.evaluations_per_efold", lambda rate: tuple(counts))
    T = Counted(problem.equation.operator)
    with torch.no_grad():
        sol = solve(Equation(T, problem.f), solver=Auto(), stop=Tolerance(1e-9, max_steps=400), compact=False)
    assert sol.counts() == {"CONVERGED": 2}
    assert sol.work == T.rows
    assert int(sol.evals.max()) == T.calls
    assert ("Picard", "Aitken", "Anderson", "NewtonKrylov")[choice] + " after" in sol.notes[0]


def test_auto_drops_a_choice_that_falls_behind(monkeypatch):
    """Aitken on a rotation does not help; foretold a hundred e-folds a step, it is dropped for the next."""
    monkeypatch.setattr("settlepoint.solvers.auto.evaluations_per_efold", lambda rate: (9e3, 0.01, 9.0, 1.0))
    T = rotation(0.99)
    eq = Equation(lambda x: torch.cat((T(x[:, :2]), 0.97 * x[:, 2:]), 1), torch.ones(1, 6, dtype=DOUBLE))
    with torch.no_grad():
        sol = solve(eq, solver=Auto(), stop=Tolerance(1e-8, max_steps=3000, window=200))
    assert sol.counts() == {"CONVERGED": 1}
    assert "Aitken after" in sol.notes[0]
    assert "Aitken fell behind" in sol.notes[1]


def test_auto_lends_its_choice_the_recovery_it_needs():
    auto = Auto()
    assert auto.recovery >= max(c.recovery for c in auto._candidates)


def test_safeguarded_passes_on_the_displacement():
    """x + 1 by a spoiled primary and Halpern behind it."""
    sol = solve(Equation(lambda x: x + 1), torch.zeros(1, 1), Safeguarded(Spoiled(0, "still"), Halpern()))
    assert sol.status.tolist() == [Status.NO_FIXED_POINT]


# ---- what all of them use ------------------------------------------------------------------------------------------


def test_helpers():
    a = torch.tensor([1.0, 0.0, -1.0])
    assert guarded_ratio(a, torch.zeros(3), 7.0).tolist() == [7, 7, 7]
    assert guarded_ratio(a, torch.full((3,), 2.0), 7.0).tolist() == [0.5, 0, -0.5]
    assert rowwise(a, torch.zeros(3, 2, 4)).shape == (3, 1, 1)
    history, new = torch.zeros(1, 3, 2), torch.ones(1, 2)
    fresh = placed(history, new, torch.tensor([1]))
    assert not bool(history.any())  # grad mode: written elsewhere
    with torch.no_grad():
        assert torch.equal(placed(history, new, torch.tensor([1])), fresh)
    assert torch.equal(history, fresh)  # no_grad: in place


def test_states_are_gathered_and_cloned(problem):
    solver, eq = Anderson(), problem.equation
    with torch.no_grad():
        state = solver.init(eq, problem.f, eq.image(problem.f) - problem.f)
        part = gather_state(state, torch.tensor([1]))
        copy = clone_state(state)
    assert part.moves.shape == (1, 5, 8)
    assert torch.equal(part.z, problem.f[1:])
    assert part.step is state.step
    assert copy.moves is not state.moves
    assert torch.equal(copy.z, state.z)
    assert gather_state(None, torch.tensor([0])) is None
    assert Stateless() == Stateless()
