"""Bad input: every message names the argument, the rule and what came; nothing already computed is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.cells import DOUBLE, Counted, factors, raising

from settlepoint import (
    Aitken,
    Anderson,
    Auto,
    Broyden,
    Chebyshev,
    Equation,
    FixedPoint,
    FixedSteps,
    Halpern,
    Implicit,
    Mann,
    NewtonKrylov,
    Picard,
    Safeguarded,
    SolveError,
    Status,
    Tolerance,
    Unrolled,
    solve,
)

HALF = Equation(lambda x: 0.5 * x)
ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: solve(HALF), ValueError, "x0 must be given when the equation has no f"),
        (lambda: solve(HALF, [1.0, 2.0]), TypeError, "x0 must be a tensor or a tuple of tensors, got list"),
        (lambda: solve(HALF, np.ones(3)), TypeError, "x0 must be a tensor or a tuple of tensors, got ndarray"),
        (lambda: solve(HALF, 1.0), TypeError, "x0 must be .* got float"),
        (lambda: solve(HALF, (1.0, ONES)), TypeError, "x0 must be .* got tuple"),
        (lambda: solve(HALF, ONES.long()), ValueError, "x0 must be of a floating .* got torch.int64"),
        (lambda: solve(torch.cos, ONES), TypeError, r"eq must be an Equation, .* solve\(Equation\(T\), x0\)"),
        (lambda: solve(HALF, ONES, "picard"), TypeError, r"solver must be a Solver such as Anderson\(\), got 'picard'"),
        (lambda: solve(HALF, ONES, Picard), TypeError, "solver must be a Solver"),
        (lambda: solve(HALF, ONES, stop=1e-6), TypeError, "stop must be a Stop such as Tolerance.*, got 1e-06"),
        (lambda: solve(HALF, ONES, adjoint="implicit"), TypeError, r"adjoint must be an Adjoint such as Implicit\(\)"),
        (lambda: solve(HALF, ONES, compact="yes"), ValueError, "compact must be 'auto', True or False, got 'yes'"),
        (lambda: solve(HALF, ONES, warm=ONES), TypeError, "warm must be a Solution, got Tensor"),
        (lambda: solve(Equation(torch.cos, torch.ones(4)), ONES), ValueError, r"f must broadcast .* got \(4,\)"),
        (lambda: solve(Equation(max, context=(torch.ones(5),)), ONES), ValueError, r"context must .* got \(5,\)"),
        (lambda: FixedPoint(torch.cos, inject="x"), ValueError, "inject must be 'f', 'init' or 'input', got 'x'"),
        (lambda: FixedPoint(torch.cos, "anderson"), TypeError, "solver must be a Solver"),
        (lambda: FixedPoint(torch.cos, stop=5), TypeError, "stop must be a Stop"),
        (lambda: FixedPoint(torch.cos, adjoint=5), TypeError, "adjoint must be an Adjoint"),
    ],
)  # fmt: skip
def test_wrong_calls(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (lambda x: x[:, :2], ValueError, r"the result of operator must have the shape of x, \(2, 3\), got \(2, 2\)"),
        (lambda x: x.sum(), ValueError, r"got \(\)"),
        (lambda x: x[None], ValueError, r"got \(1, 2, 3\)"),
        (lambda x: x.double(), ValueError, "result of operator must have the dtype of x, .* got torch.float64"),
        (lambda x: x.long(), ValueError, "got torch.int64"),
        (lambda x: (x, x), TypeError, r"must be a tensor of shape \(2, 3\), got tuple"),
        (lambda x: [x], TypeError, "got list"),
        (lambda x: None, TypeError, "got NoneType"),
        (lambda x: 1.0, TypeError, "got float"),
        (lambda x: x.numpy(), TypeError, "got ndarray"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stop", [Tolerance(), FixedSteps(3)], ids=["tolerance", "steps"])
def test_wrong_results_of_the_operator(image, kind, message, stop):
    with pytest.raises(kind, match=message):
        solve(Equation(image), ONES, stop=stop)


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (lambda x: x[0], TypeError, "must be a tuple of 2 tensors, got Tensor"),
        (lambda x: (x[0],), TypeError, "must be a tuple of 2 tensors"),
        (lambda x: [x[0], x[1]], TypeError, "must be a tuple of 2 tensors, got list"),
        (lambda x: (x[1], x[0]), ValueError, r"must have the shape of x, \(2, 3\), got \(2, 1\)"),
        (lambda x: (x[0], x[1].double()), ValueError, "dtype of x, torch.float32, got torch.float64"),
    ],
)
def test_wrong_results_for_several_tensors(image, kind, message):
    with pytest.raises(kind, match=message):
        solve(Equation(image), (ONES, torch.ones(2, 1)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Picard(1.0), r"damping must lie in \[0, 1\), got 1.0"),
        (lambda: Picard(-0.1), r"damping must lie in \[0, 1\), got -0.1"),
        (lambda: Picard(math.nan), r"damping must lie in \[0, 1\), got nan"),
        (lambda: Mann([]), "schedule must hold at least one damping"),
        (lambda: Mann([0.5, 1.0]), r"damping must lie in \[0, 1\), got 1.0"),
        (lambda: Halpern(restart=1.0), r"restart must lie in \(0, 1\) or be None, got 1.0"),
        (lambda: Halpern(restart=0), "restart must lie in"),
        (lambda: Aitken(1.0), "limit must be > 1, got 1.0"),
        (lambda: Chebyshev(0.0, 1.0), "low <= high < 1, got low=0.0, high=1.0"),
        (lambda: Chebyshev(0.5, 0.4), "low <= high < 1"),
        (lambda: Chebyshev(math.nan, 0.4), "low <= high < 1"),
        (lambda: Anderson(0), "depth must be an integer >= 1, got 0"),
        (lambda: Anderson(2.0), "depth must be an integer >= 1, got 2.0"),
        (lambda: Anderson(damping=1), r"damping must lie in \[0, 1\), got 1"),
        (lambda: Anderson(ridge=-1e-9), "ridge must be >= 0, got -1e-09"),
        (lambda: Anderson(growth=1), "growth must be > 1, got 1"),
        (lambda: Broyden(0), "memory must be an integer >= 1, got 0"),
        (lambda: Broyden(True), "memory must be an integer >= 1, got True"),
        (lambda: Broyden(growth=0.5), "growth must be > 1, got 0.5"),
        (lambda: NewtonKrylov(0), "inner must be an integer >= 1, got 0"),
        (lambda: NewtonKrylov(restart=0), "restart must be an integer >= 1, got 0"),
        (lambda: NewtonKrylov(halvings=1.5), "halvings must be an integer >= 1, got 1.5"),
        (lambda: NewtonKrylov(inner=8, restart=4), "restart must be at least inner, got restart=4, inner=8"),
        (lambda: Safeguarded(Picard(), Picard(), growth=0.5), "growth must be >= 1, got 0.5"),
        (lambda: Safeguarded(Picard(), Picard(), patience=0), "patience must be an integer >= 1, got 0"),
        (lambda: Auto(probe=3), "probe must be an integer >= [0-9], got 3"),
    ],
)
def test_wrong_options_of_solvers(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["primary", "fallback"])
def test_safeguarded_holds_solvers(name):
    with pytest.raises(TypeError, match=f"{name} must be a Solver, got str"):
        Safeguarded(**({"primary": Picard(), "fallback": Picard()} | {name: "picard"}))


# ---- numbers that are wrong become statuses ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_x0_that_is_not_finite(bad):
    """NONFINITE after one evaluation, the other row untouched; the value is what was given."""
    x0 = torch.tensor([[1.0, 1.0], [bad, 1.0]])
    sol = solve(HALF, x0)
    assert sol.status.tolist() == [Status.CONVERGED, Status.NONFINITE]
    assert int(sol.evals[1]) == 1
    assert torch.equal(sol.value[1].nan_to_num(), x0[1].nan_to_num())
    assert math.isnan(float(sol.residual[1]))


def test_f_that_is_not_finite():
    f = torch.tensor([[1.0], [math.nan]])
    assert solve(Equation(lambda x: 0.5 * x, f), torch.zeros(2, 1)).status.tolist() == [
        Status.CONVERGED,
        Status.NONFINITE,
    ]


@pytest.mark.parametrize("shape", [(0, 3), (0,), (3, 0), (0, 0), (0, 4, 5)])
@pytest.mark.parametrize("stop", [Tolerance(), FixedSteps(2), FixedSteps(2, check=True)], ids=str)
def test_states_without_entries(shape, stop):
    sol = solve(HALF, torch.zeros(shape), stop=stop, trace=True)
    assert sol.value.shape == shape
    assert sol.require() is sol
    assert len(sol.status) == (shape[0] if len(shape) > 1 else 1)


# ---- operators that misbehave --------------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [lambda x: x.mul_(0.5), lambda x: x.copy_(0.5 * x), lambda x: x.relu_()])
@pytest.mark.parametrize("stop", [Tolerance(), FixedSteps(3)], ids=["tolerance", "steps"])
def test_an_operator_that_overwrites_its_input(inplace, stop):
    with pytest.raises(ValueError, match=r"operator must not change its input in place.*return a new tensor"):
        solve(Equation(inplace), torch.ones(2, 3), stop=stop)


def test_an_operator_that_overwrites_a_part():
    def T(x):
        x[0][:, 0] = 3.0
        return (0.5 * x[0], 0.5 * x[1])

    with pytest.raises(ValueError, match="operator must not change its input in place"):
        solve(Equation(T), (torch.ones(2, 3), torch.ones(2, 1)))


def test_an_operator_that_overwrites_later():
    """What was computed before is in the error."""
    calls = 0

    def T(x):
        nonlocal calls
        calls += 1
        return x.mul_(0.5) if calls == 4 else 0.5 * x

    with pytest.raises(SolveError, match="must not change its input") as caught:
        solve(Equation(T), torch.ones(2, 3))
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_operator_that_reuses_its_output():
    """One buffer for every result: iterates are not tied to it."""
    buffer = torch.empty(2, 3, dtype=DOUBLE)
    sol = solve(Equation(lambda x: torch.mul(x, 0.5, out=buffer) + 1), torch.zeros(2, 3, dtype=DOUBLE))
    assert torch.allclose(sol.value, torch.full((2, 3), 2.0, dtype=DOUBLE), atol=1e-5)
    with torch.no_grad():
        sol = solve(Equation(lambda x: torch.mul(x, 0.5, out=buffer)), torch.ones(2, 3, dtype=DOUBLE))
    assert sol.counts() == {"CONVERGED": 2}
    assert float(sol.value.norm()) <= 1e-5


def test_the_first_call_raises_as_it_is():
    """Nothing has been computed: it is the user's own error."""
    for stop in (Tolerance(), FixedSteps(3)):
        with pytest.raises(OSError, match="disk gone"):
            solve(Equation(raising(lambda x: 0.5 * x, 1)), ONES, stop=stop)


@pytest.mark.parametrize("every", [1, 3])
def test_an_operator_that_raises_midway(every):
    """After four evaluations of x/2 from 1; rows known to be done keep their status."""
    x0 = torch.tensor([[1.0], [1e-9]], dtype=DOUBLE)
    stop = Tolerance(every=every)
    with pytest.raises(SolveError, match=r"raised at evaluation 5: OSError\('disk gone'\); .solution holds") as caught:
        solve(Equation(raising(lambda x: 0.5 * x, 5)), x0, stop=stop, adjoint=Unrolled(), trace=True, compact=False)
    sol, cause = caught.value.solution, caught.value.__cause__
    assert isinstance(cause, OSError)
    assert sol.status.tolist() == [Status.MAX_STEPS, Status.CONVERGED]
    assert int(sol.evals[0]) == 4
    assert sol.work == 8
    assert float(sol.value[0]) == 0.5 ** (3 // every * every if every == 1 else 2)  # the last look's iterate
    assert float(sol.residual[0]) == 0.5 * float(sol.value[0])
    assert len(sol.trace.residual) == 4 // every


def test_an_operator_that_raises_before_the_first_look():
    with pytest.raises(SolveError) as caught:
        solve(Equation(raising(lambda x: 0.5 * x, 3)), ONES, stop=Tolerance(every=10))
    sol = caught.value.solution
    assert sol.status.tolist() == [Status.MAX_STEPS] * 2
    assert sol.value.shape == ONES.shape
    assert sol.evals.tolist() == [2, 2]


def test_an_operator_that_raises_in_fixed_steps():
    with pytest.raises(SolveError, match="raised at evaluation 4") as caught:
        solve(Equation(raising(lambda x: 0.5 * x, 4)), torch.ones(2, 1), stop=FixedSteps(5))
    sol = caught.value.solution
    assert sol.value.flatten().tolist() == [0.125, 0.125]
    assert (sol.steps.tolist(), sol.evals.tolist()) == ([3, 3], [3, 3])


def test_the_books_of_fixed_steps_that_raised():
    with pytest.raises(SolveError) as caught:
        solve(Equation(raising(lambda x: 0.5 * x, 4)), torch.ones(2, 1), stop=FixedSteps(5), trace=True)
    assert caught.value.solution.work == 6
    assert caught.value.solution.trace.residual.shape == (3, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda T: solve(Equation(T), ONES, NewtonKrylov(inner=3), FixedSteps(3)),
        lambda T: solve(Equation(T), ONES, stop=FixedSteps(3, check=True)),
        lambda T: torch.func.grad(lambda x0: solve(Equation(T), x0, adjoint=Implicit()).value.sum())(ONES),
    ],
    ids=["a solver's own calls", "the check of FixedSteps", "the passes of Implicit"],
)
def test_an_operator_that_raises_elsewhere(call):
    """At the last call of all, whoever makes it."""
    T = Counted(torch.sigmoid)
    call(T)
    with pytest.raises(SolveError):
        call(raising(torch.sigmoid, T.calls))


def test_interrupts_pass():
    """Ctrl-C is not an error of the operator."""

    def T(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(Equation(T), ONES)


def test_a_solve_leaves_its_arguments_alone():
    eq, _ = factors([0.5, 0.9])
    x0 = torch.zeros(2, 3, dtype=DOUBLE)
    kept = [t.clone() for t in (x0, eq.f, eq.context[0])]
    for solver in (Picard(), Anderson(), Broyden(), NewtonKrylov()):
        with torch.no_grad():
            solve(eq, x0, solver)
    assert all(torch.equal(a, b) for a, b in zip((x0, eq.f, eq.context[0]), kept, strict=True))
