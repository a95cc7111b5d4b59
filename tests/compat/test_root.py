"""root through the calls that SciPy's own users make. Oracles: scipy.optimize.newton_krylov and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import NoConvergence, newton_krylov

from settlepoint import R2N2, Anderson, Broyden, Safeguarded
from settlepoint.compat.scipy import root


def heated(n: int = 12):
    """After SciPy's documentation: u_xx + u_yy + 5 mean(cosh u)^2 = 0, with u = 1 on one side and 0 on the others."""
    h = 1 / (n + 1)

    def residual(P):
        padded = np.pad(P, 1)
        padded[:, -1] = 1.0
        around = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
        return (around - 4 * P) / h**2 + 5 * np.cosh(P).mean() ** 2

    return residual, np.zeros((n, n))


def chandrasekhar(m: int = 50, c: float = 0.9):
    mu = (np.arange(m) + 0.5) / m
    A = c * mu[:, None] / (2 * m * (mu[:, None] + mu))
    return (lambda x: x - 1 / (1 - A @ x)), np.ones(m)


CASES = {
    "heated": heated(),
    "chandrasekhar": chandrasekhar(),
    "almost singular": chandrasekhar(c=0.99),
    "one unknown": (lambda x: x**3 - 2 * x - 5, np.array([2.0])),
    "a number": (lambda x: x**2 - 2, 1.0),
    "a list": (lambda x: [x[0] + 0.5 * x[1] - 1.0, 0.5 * (x[1] - x[0]) ** 2], [0.0, 0.0]),
    "integers": (lambda x: np.exp(x) - [2.0, 3.0], [0, 1]),
    "complex": (lambda z: z**2 + 1, np.array([0.5 + 0.5j, 0.8j])),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("f_tol", [1e-4, 1e-9])
def test_both_find_the_same_root(name, f_tol):
    """Beside newton_krylov: both meet the tolerance, in shape and dtype of x0."""
    F, x0 = CASES[name]
    ours, theirs = root(F, x0, f_tol=f_tol), newton_krylov(F, x0, f_tol=f_tol)
    for x in (ours, theirs):
        assert np.abs(F(x)).max() <= f_tol
    assert ours.shape == theirs.shape == np.shape(x0)
    assert ours.dtype == theirs.dtype
    if f_tol < 1e-6 and name != "a list":  # whose root is double, so that x is known to the root of f_tol only
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_evaluations_stay_near_those_of_newton_krylov():
    """Ours makes eight products a step, whatever the step needs; twice as many is where the price would show."""
    for F, x0 in (heated(), chandrasekhar()):
        counts = []
        for find in (root, newton_krylov):
            calls: list = []
            find(lambda x, F=F, calls=calls: (calls.append(1), F(x))[1], x0, f_tol=1e-8)
            counts.append(len(calls))
        assert counts[0] <= 2 * counts[1]


@pytest.mark.parametrize("size", [1e-200, 1e-9, 1.0, 1e9, 1e200])
def test_the_unit_of_f_is_free(size):
    """Newton's method knows no unit; x - F(x) alone would lose every digit of 1e-9."""
    x = root(lambda x: size * (x**3 - 1), np.full(5, 2.0), f_tol=1e-7 * size)
    assert np.allclose(x, 1.0, atol=1e-6)


def test_the_maximum_norm_decides():
    """1,000 equal unknowns: the solve may end where each is within f_tol, at 30 times that in the Euclidean norm."""
    calls: list = []

    def F(x):
        calls.append(np.abs(x).max())
        return x - 0.5 * x

    root(F, np.ones(1000), solver=R2N2(1), f_tol=1e-3)
    assert len(calls) == 1 + np.ceil(np.log2(0.5e3))


def test_float32_stays_float32():
    x = root(lambda x: x**2 - np.float32(2), np.ones(3, dtype=np.float32), f_tol=1e-5)
    assert x.dtype == np.float32
    assert np.allclose(x, 2**0.5, atol=1e-5)


# ---- callbacks, maxiter --------------------------------------------------------------------------------------------


def test_callbacks_get_x_and_its_residual_flat():
    F, x0 = heated()
    seen: list = []
    x = root(F, x0, f_tol=1e-8, callback=lambda x, f: seen.append((x, f)))
    assert len(seen) > 1
    for at, value in seen:
        assert at.shape == value.shape == (x0.size,)
        assert np.array_equal(value, F(at.reshape(x0.shape)).ravel())
    assert np.array_equal(seen[-1][0], x.ravel())


def test_a_root_that_is_given_needs_one_evaluation():
    calls, seen = [], []
    x = root(lambda x: (calls.append(1), x - 1)[1], np.ones(4), callback=lambda x, f: seen.append(x))
    assert (len(calls), len(seen)) == (1, 0)
    assert np.array_equal(x, np.ones(4))


def test_giving_up_carries_the_best_x():
    """x^2 + 1 has no real root; its smallest value is at 0."""
    with pytest.raises(NoConvergence) as caught:
        root(lambda x: x**2 + 1, np.array([3.0, -2.0]))
    x = caught.value.args[0]
    assert x.shape == (2,)
    assert np.abs(x**2 + 1).max() < 10


def test_a_constant_has_no_root():
    with pytest.raises(NoConvergence):
        root(lambda x: 0 * x + 1, np.ones(2))
    assert np.array_equal(root(lambda x: 0 * x, np.ones(2)), np.ones(2))


def test_maxiter_is_kept():
    F, x0 = heated()
    seen: list = []
    with pytest.raises(NoConvergence):
        root(F, x0, f_tol=1e-12, maxiter=2, callback=lambda x, f: seen.append(1))
    assert len(seen) == 2


def test_what_f_and_the_callback_raise_comes_through():
    calls: list = []

    def F(x):
        calls.append(1)
        if len(calls) > 4:
            raise ArithmeticError("no more")
        return np.exp(x) - 2

    with pytest.raises(ArithmeticError, match="no more"):
        root(F, np.zeros(3))

    def stop(x, f):
        raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough"):
        root(lambda x: np.exp(x) - 2, np.zeros(3), callback=stop)


# ---- solvers of ours, tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver",
    [
        Anderson(2),
        Broyden(),
        R2N2(3),
        R2N2(3, output="least_squares"),
        R2N2(2, "jvp"),
        Safeguarded(R2N2(2), Anderson()),
    ],
    ids=lambda s: f"{type(s).__name__}-{s.extra_repr()[:20]}",
)
def test_any_solver_may_be_given(solver):
    F, x0 = chandrasekhar()
    x = root(F, x0, solver=solver, f_tol=1e-10)
    assert np.abs(F(x)).max() <= 1e-10


def test_a_solver_that_diverges_is_not_believed():
    with pytest.raises(NoConvergence):
        root(lambda x: -3 * x + 1, np.ones(3), solver=R2N2(2))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_tensors_in_tensors_out(shape):
    """Derivatives are exact there: Newton's method doubles the digits, to rounding within few steps."""
    x = root(lambda x: torch.exp(x) - 2, torch.zeros(shape, dtype=torch.float64), f_tol=1e-15)
    assert isinstance(x, torch.Tensor)
    assert x.shape == shape
    assert torch.allclose(x, torch.full(shape, np.log(2), dtype=torch.float64), rtol=1e-15)


def test_parameters_that_train_do_not_disturb():
    w = torch.tensor(2.0, requires_grad=True)
    x = root(lambda x: torch.exp(x) - w, torch.zeros(2))
    assert not x.requires_grad
    assert torch.allclose(x, torch.tensor(2.0).log(), atol=1e-5)


def test_f_may_write_into_what_it_is_given():
    def F(x):
        x -= 0.5 * np.cos(x)
        return x

    x = root(F, np.zeros(3))
    assert np.allclose(x, 0.5 * np.cos(x), atol=1e-5)


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_no_root(bad):
    with pytest.raises(NoConvergence):
        root(lambda x: x * bad, np.ones(3))
    with pytest.raises(NoConvergence):
        root(lambda x: x - 1, np.array([bad, 1.0]))


def test_a_start_outside_the_domain_of_f_later_on():
    """sqrt is NaN beyond 0: steps that lead there are halved, and the root is found."""
    with np.errstate(invalid="ignore"):
        x = root(lambda x: np.sqrt(x) - 0.01, np.array([1.0, 4.0]), f_tol=1e-8)
    assert np.allclose(x, 1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("F", "x0", "error", "message"),
    [
        (None, [1.0], TypeError, "F must be callable, got NoneType"),
        (lambda x: x[:2], np.ones(3), ValueError, r"F must return the shape it is given.*got \(2,\)"),
        (lambda x: None, np.ones(3), TypeError, "F must return numbers"),
        (lambda x: 1j * x, np.ones(3), ValueError, "F must return real numbers for real ones, got complex128"),
        (lambda x: x, ["a"], TypeError, "x0 must hold numbers"),
        (lambda x: x, np.ones(0), ValueError, "x0 must hold at least one value"),
        (lambda x: x, torch.ones(3, dtype=torch.int64), TypeError, "x0 must be of a floating or complex dtype"),
        (lambda x: x[:2], torch.ones(3), ValueError, r"F must return as many values as x0 holds, 3, got shape \(2,\)"),
        (lambda x: x.double(), torch.ones(3), ValueError, "F must return the dtype of x0"),
        (lambda x: x.numpy(), torch.ones(3), TypeError, "F must return a tensor for a tensor, got ndarray"),
    ],
)
def test_wrong_calls_raise(F, x0, error, message):
    with pytest.raises(error, match=message):
        root(F, x0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"f_tol": -1.0}, ValueError),
        ({"f_tol": float("nan")}, ValueError),
        ({"maxiter": 0}, ValueError),
        ({"solver": "anderson"}, TypeError),
    ],
)
def test_wrong_options_raise(change, error):
    with pytest.raises(error, match=next(iter(change))):
        root(lambda x: x, [1.0], **change)
