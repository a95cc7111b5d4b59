"""LearnedRK through solve_ivp. Oracles: SciPy's RK23, whose tableau it reproduces bit by bit, and DOP853."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from settlepoint import R2N2, Anderson
from settlepoint.compat.error_weights import embedded_weights, fit_error_weights
from settlepoint.compat.formula import Formula
from settlepoint.compat.scipy import LearnedRK
from settlepoint.solvers.tableaus import BOGACKI_SHAMPINE, EULER, HEUN, KUTTA3, MIDPOINT, RALSTON, RK4, SSPRK3, Tableau

ORDERS = [(EULER, 1), (HEUN, 2), (MIDPOINT, 2), (RALSTON, 2), (KUTTA3, 3), (SSPRK3, 3), (BOGACKI_SHAMPINE, 3), (RK4, 4)]
NAMES = ["Euler", "Heun", "midpoint", "Ralston", "Kutta3", "SSP3", "BS3", "RK4"]


def forced(t, y):
    """Van der Pol's oscillator under a force that depends on the time."""
    return np.array([y[1], 1.5 * (1 - y[0] ** 2) * y[1] - y[0] + np.sin(t)])


def vdp(t, y, a=1.5):
    return np.array([y[1], a * (1 - y[0] ** 2) * y[1] - y[0]])


START = [-2.0, 1.0]


def exact(fun, span, y0, **options):
    return solve_ivp(fun, span, y0, "DOP853", rtol=1e-12, atol=1e-13, **options)


def perturbed(size: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Kutta's third-order tableau with noise on its weights: an order it only nearly has, as of a learned one."""
    A, b = (np.asarray(m) for m in KUTTA3.matrices())
    return A, b + size * np.random.default_rng(seed).normal(size=3)


# ---- the same as RK23 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rtol": 1e-6, "atol": 1e-9},
        {"atol": [1e-4, 1e-7]},
        {"max_step": 0.1},
        {"first_step": 0.1},
        {"args": (3.0,)},
    ],
    ids=["plain", "fine", "vector atol", "max_step", "first_step", "args"],
)
@pytest.mark.parametrize("span", [(0.0, 8.0), (1.0, 0.8)], ids=["forward", "backward"])
def test_bogacki_shampine_is_rk23(options, span):
    """Steps, evaluations, error weights, first step and dense output: one and the same."""
    fun = vdp if "args" in options else forced
    times = np.linspace(*span, 33)
    theirs = solve_ivp(fun, span, START, "RK23", dense_output=True, **options)
    ours = solve_ivp(fun, span, START, LearnedRK, dense_output=True, learned=BOGACKI_SHAMPINE, **options)
    assert ours.success
    assert theirs.success
    assert ours.nfev == theirs.nfev
    assert np.allclose(ours.t, theirs.t, rtol=1e-9)
    assert np.allclose(ours.y, theirs.y, rtol=1e-8, atol=1e-10)
    assert np.allclose(ours.sol(times), theirs.sol(times), rtol=1e-8, atol=1e-10)


def test_its_error_weights_are_those_of_the_pair():
    """E of RK23: 5/72, -1/12, -1/9, 1/8."""
    e = embedded_weights(Formula.of(BOGACKI_SHAMPINE))
    assert np.allclose(e, [5 / 72, -1 / 12, -1 / 9, 1 / 8], atol=1e-14)


def test_t_eval_events_and_vectorized_as_in_rk23():
    def falls(t, y):
        return y[0]

    def fun(t, y):
        return np.stack([y[1], -9.81 + 0 * y[1]])

    falls.terminal, falls.direction = True, -1  # type: ignore[attr-defined]
    options = {"events": falls, "t_eval": np.linspace(0, 3, 31), "vectorized": True, "max_step": 0.3}
    theirs = solve_ivp(fun, (0, 3), [5.0, 10.0], "RK23", **options)
    ours = solve_ivp(fun, (0, 3), [5.0, 10.0], LearnedRK, learned=BOGACKI_SHAMPINE, **options)
    assert ours.status == theirs.status == 1
    assert np.allclose(ours.t, theirs.t)
    assert np.allclose(ours.y, theirs.y)
    lands = (10 + np.sqrt(100 + 2 * 9.81 * 5)) / 9.81
    assert np.allclose(ours.t_events[0], lands, atol=1e-9)


def test_complex_states():
    found = solve_ivp(lambda t, y: 1j * y, (0, 3), [1.0 + 0j], LearnedRK, learned=KUTTA3, rtol=1e-8, atol=1e-10)
    assert found.y.dtype == complex
    assert abs(found.y[0, -1] - np.exp(3j)) < 1e-6


def test_nothing_to_integrate():
    assert solve_ivp(forced, (1.0, 1.0), START, LearnedRK, learned=KUTTA3).success
    assert solve_ivp(lambda t, y: y, (0.0, 1.0), [], LearnedRK, learned=KUTTA3).success


# ---- orders, tolerances --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tableau", "order"), ORDERS, ids=NAMES)
def test_steps_of_one_size_show_the_order(tableau, order):
    """Halving the step divides the error by 2^order; the force makes stage times count."""
    truth = exact(forced, (0, 1), START).y[:, -1]
    errors = []
    for steps in (40, 80):
        h = 1 / steps
        options = {"max_step": h, "first_step": h, "rtol": 1.0, "atol": 1e3}
        found = solve_ivp(forced, (0, 1), START, LearnedRK, learned=tableau, **options)
        assert steps <= len(found.t) - 1 <= steps + 1
        errors.append(np.linalg.norm(found.y[:, -1] - truth))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.35


@pytest.mark.parametrize(("tableau", "order"), ORDERS, ids=NAMES)
def test_errors_follow_the_tolerance(tableau, order):
    """The global error stays within 100 tolerances and falls with them; Euler's steps number 1/sqrt(rtol), so that
    theirs adds up to its root.
    """
    truth = exact(forced, (0, 4), START).y[:, -1]
    errors = []
    for rtol in (1e-3, 1e-5):
        found = solve_ivp(forced, (0, 4), START, LearnedRK, learned=tableau, rtol=rtol, atol=rtol)
        errors.append(np.linalg.norm(found.y[:, -1] - truth))
        assert errors[-1] <= (100 * rtol if order > 1 else 10 * rtol**0.5)
    assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("tableau", [t for t, _ in ORDERS], ids=NAMES)
def test_evaluations_are_counted(tableau):
    """Two to begin with, and n for every step that was tried: f(t + h, y_new) is the first of the next."""
    calls: list = []
    found = solve_ivp(lambda t, y: (calls.append(1), -y)[1], (0, 1), [1.0], LearnedRK, learned=tableau)
    assert found.nfev == len(calls)
    assert (found.nfev - 2) % len(tableau.b) == 0
    assert found.nfev - 2 >= len(tableau.b) * (len(found.t) - 1)


def test_an_r2n2_is_its_tableau():
    a = solve_ivp(forced, (0, 2), START, LearnedRK, learned=R2N2.from_tableau(KUTTA3))
    b = solve_ivp(forced, (0, 2), START, LearnedRK, learned=KUTTA3.matrices())
    assert np.array_equal(a.y, b.y)


def test_a_nan_at_the_start_fails_at_once():
    """SciPy's own methods never return from it."""
    assert not solve_ivp(lambda t, y: np.nan * y, (0, 1), [1.0], LearnedRK, learned=KUTTA3).success


def test_a_nan_shortens_the_step():
    """sqrt(1 - t) ends at 1: the integration gets there, or fails, and never returns NaN."""
    with np.errstate(invalid="ignore"):
        found = solve_ivp(lambda t, y: -np.sqrt(1 - t + 0 * y), (0, 2), [1.0], LearnedRK, learned=KUTTA3)
    assert not found.success
    assert np.isfinite(found.y).all()
    assert found.t[-1] == pytest.approx(1.0, abs=1e-2)


# ---- estimates of the error ----------------------------------------------------------------------------------------


def samples(count: int, seed: int, h: tuple[float, float]):
    """Starts and steps of the van der Pol family of the R2N2 paper."""
    rng = np.random.default_rng(seed)
    y = np.stack([rng.uniform(-4, -3, count), rng.uniform(0, 2, count)], 1)
    return y, rng.uniform(*h, count)


def ratios(learned, e: np.ndarray, y: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Estimated by true local error of every sample."""
    formula, out = Formula.of(learned), []
    for start, size in zip(y, h, strict=True):
        new, k = formula.step(vdp, 0.0, start, size, vdp(0.0, start))
        error = new - exact(vdp, (0, size), start).y[:, -1]
        out.append(np.linalg.norm(size * (e @ k)) / np.linalg.norm(error))
    return np.array(out)


@pytest.mark.parametrize("learned", [perturbed(1e-3), perturbed(1e-3, 1), perturbed(1e-2)], ids=["a", "b", "c"])
def test_low_order_defects_are_estimated_exactly(learned):
    """Where the step is short, sum b - 1 is all that is wrong, and the estimate is the error itself."""
    y, h = samples(30, 0, (1e-4, 1e-3))
    assert np.allclose(ratios(learned, embedded_weights(Formula.of(learned)), y, h), 1.0, atol=0.03)


def test_the_estimate_is_on_the_safe_side_where_orders_show():
    """Kutta-3 in short steps: the error of order 3 is estimated by one of order 2, as in RK23."""
    y, h = samples(30, 0, (1e-3, 1e-2))
    assert ratios(KUTTA3, embedded_weights(Formula.of(KUTTA3)), y, h).min() > 1


@pytest.mark.parametrize(
    "learned", [KUTTA3, perturbed(1e-3), perturbed(1e-2), HEUN], ids=["Kutta3", "1e-3", "1e-2", "Heun"]
)
def test_fitted_weights_track_the_error_where_they_were_fitted(learned):
    """On the family of the paper, h in [.01, .1], on steps not seen: 4 of 5 estimates within 30 % of the error.

    There `embedded_weights` (and RK23's own) are four times too small in the median.
    """
    y, h = samples(60, 0, (0.01, 0.1))
    e = fit_error_weights(learned, vdp, y, h)
    seen, fresh = ratios(learned, e, y, h), ratios(learned, e, *samples(40, 1, (0.01, 0.1)))
    assert 0.85 <= (seen >= 1 - 1e-9).mean() <= 0.95  # cover = 0.9
    assert 0.8 < np.quantile(fresh, 0.1) < np.quantile(fresh, 0.9) < 1.3


def test_fitted_weights_stay_right_for_shorter_steps():
    """The conditions of order 1 and 2 hold: fitted at .01 to .1, and within 20 % of the error a hundred times below."""
    learned = perturbed(1e-3)
    e = fit_error_weights(learned, vdp, *samples(60, 0, (0.01, 0.1)))
    found = ratios(learned, e, *samples(20, 1, (1e-4, 1e-3)))
    assert np.allclose(found, np.median(found), rtol=0.02)
    assert 0.8 < np.median(found) < 1.3


def test_fitted_weights_steer_solve_ivp():
    """Kutta-3 at rtol .1 on the family: half the error of the embedded weights or less, for at most 1.2 x the work."""
    e = fit_error_weights(KUTTA3, vdp, *samples(60, 0, (0.01, 0.1)))
    work, errors = np.zeros(2), np.zeros(2)
    for start in samples(8, 3, (0.1, 0.2))[0]:
        truth = exact(vdp, (0, 0.5), start).y[:, -1]
        for i, weights in enumerate((None, e)):
            options = {"rtol": 0.1, "atol": 0.1, "learned": KUTTA3, "error_weights": weights}
            found = solve_ivp(vdp, (0, 0.5), start, LearnedRK, **options)
            work[i] += found.nfev
            errors[i] += np.log(np.linalg.norm(found.y[:, -1] - truth)) / 8
    assert errors[1] < errors[0] - np.log(2)
    assert work[1] < 1.2 * work[0]


def test_arguments_go_to_their_samples():
    y, h = samples(12, 0, (0.01, 0.1))
    one = fit_error_weights(KUTTA3, vdp, y, h, args=(np.full(12, 1.5),))
    assert np.array_equal(one, fit_error_weights(KUTTA3, vdp, y, h))
    assert not np.allclose(one, fit_error_weights(KUTTA3, vdp, y, h, args=(np.full(12, 1.2),)))


def test_more_cover_is_a_multiple():
    y, h = samples(20, 0, (0.01, 0.1))
    low, high = (fit_error_weights(KUTTA3, vdp, y, h, cover=c) for c in (0.5, 0.95))
    assert np.allclose(high / low, (high / low)[0])
    assert (high / low)[0] > 1


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learned", "error", "message"),
    [
        (None, ValueError, "learned must be given"),
        (Anderson(), TypeError, "learned must be an R2N2, a Tableau or a pair"),
        (R2N2(3, "jvp"), ValueError, "plain evaluations"),
        (R2N2(3, output="least_squares", carry=1), ValueError, "plain evaluations"),
        (R2N2(3, output="least_squares"), ValueError, "no tableau"),
        (R2N2(3, per_iteration=2), ValueError, "plain evaluations"),
        ((np.zeros((2, 3)), np.ones(2)), ValueError, r"shapes \(n, n\) and \(n,\), got \(2, 3\) and \(2,\)"),
        ((np.eye(2), np.ones(2)), ValueError, "strictly lower triangular"),
        ((np.zeros((1, 1)), np.array([np.nan])), ValueError, "finite"),
        (Tableau(((0,), (0, 0)), (1, 0, 0)), ValueError, "give error_weights"),
    ],
)
def test_what_is_no_formula_is_refused(learned, error, message):
    with pytest.raises(error, match=message):
        solve_ivp(forced, (0, 1), START, LearnedRK, learned=learned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_step": 0.0}, "max_step must be positive, got 0.0"),
        ({"first_step": -1.0}, "first_step must be positive"),
        ({"first_step": 2.0}, "first_step must not exceed"),
        ({"atol": -1.0}, "atol must be >= 0"),
        ({"atol": [1e-3] * 3}, r"atol must be a number or have shape \(2,\)"),
        ({"error_weights": [1.0, 2.0]}, "error_weights must be 4 finite numbers"),
        ({"error_weights": [1.0, 2.0, 3.0, np.nan]}, "error_weights"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        solve_ivp(forced, (0, 1), START, LearnedRK, learned=KUTTA3, **options)


def test_what_scipy_warns_of_is_warned_of():
    with pytest.warns(UserWarning, match="rtol is raised to 2.2e-14"):
        solve_ivp(lambda t, y: -y, (0, 1e-3), [1.0], LearnedRK, learned=RK4, rtol=1e-20)
    with pytest.warns(UserWarning, match="does not use these arguments: jac"):
        solve_ivp(forced, (0, 0.1), START, LearnedRK, learned=KUTTA3, jac=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cover": 1.0}, "cover must lie in"),
        ({"y": np.ones(2)}, r"y must have shape \(S, m\)"),
        ({"y": np.ones((0, 2))}, r"y must have shape \(S, m\)"),
        ({"args": (np.ones(3),)}, "args must have one entry for each of the 2 samples, got 3"),
        ({"fun": lambda t, y: 0 * y}, "no finite error other than zero"),
        ({"fun": lambda t, y: np.nan * y}, "no finite error other than zero"),
    ],
)
def test_wrong_fits_raise(change, message):
    with pytest.raises(ValueError, match=message):
        fit_error_weights(**({"learned": KUTTA3, "fun": vdp, "y": np.ones((2, 2)), "h": 0.1} | change))
