"""Honest tolerances: no row is reported CONVERGED whose value misses the tolerance, whatever the solver and the dtype.

Oracle: the operator evaluated again in float64, outside the library.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import (
    Aitken,
    Anderson,
    Auto,
    Broyden,
    Chebyshev,
    Equation,
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

SOLVERS: dict[str, object] = {
    "Picard": lambda a: Picard(a),
    "Mann": lambda a: Mann([a, 0.5 * a]),
    "Halpern": lambda a: Halpern(),
    "Aitken": lambda a: Aitken(),
    "Chebyshev": lambda a: Chebyshev(-0.5, 0.9),
    "Anderson": lambda a: Anderson(3, damping=a),
    "Broyden": lambda a: Broyden(8),
    "NewtonKrylov": lambda a: NewtonKrylov(inner=2, restart=6),
    "Safeguarded": lambda a: Safeguarded(Anderson(3, damping=a), Picard(a)),
    "Auto": lambda a: Auto(),
}
EPS = {d: torch.finfo(d).eps for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


def maps(kind: str, seed: int, rate: float) -> tuple[Tensor, Tensor, object]:
    """(W, f, T) of a random P(x) = T(x, W) + f: affine, tanh, or one that may cycle, drift or run away."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(5, 5, dtype=DOUBLE, generator=generator)
    W = rate * W / torch.linalg.matrix_norm(W, 2)
    f = torch.randn(4, 5, dtype=DOUBLE, generator=generator)
    shapes = {
        "affine": lambda x, W: x @ W,
        "tanh": lambda x, W: torch.tanh(x @ W),
        "kink": lambda x, W: (x @ W).abs(),
        "sine": lambda x, W: torch.sin(3 * (x @ W)),
    }
    return W, f, shapes[kind]


def residual_in_double(T, x: Tensor, W: Tensor, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """|P(x) - x|, |P(x)|, |x| of every row, from the very W, f and x of the solve, in float64."""
    x, W, f = x.double(), W.double(), f.double()
    image = T(x, W) + f
    return (image - x).norm(dim=1), image.norm(dim=1), x.norm(dim=1)


CLAIMS = {
    "name": st.sampled_from(sorted(SOLVERS)),
    "damping": st.sampled_from([0.0, 0.3, 0.9, 0.99]),
    "dtype": st.sampled_from([torch.float64, torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    "limits": st.tuples(st.sampled_from([0.0, 1e-10, 1e-6, 1e-3, 1e-1]), st.sampled_from([0.0, 1e-8, 1e-4, 1e-2])),
    "every": st.sampled_from([1, 2, 7]),
    "kind": st.sampled_from(["affine", "tanh", "kink", "sine"]),
    "rate": st.sampled_from([0.3, 0.9, 0.99, 1.0, 1.3]),
    "compact": st.sampled_from(["auto", True, False]),
    "seed": st.integers(0, 2**16),
}


def check_claims(name, damping, dtype, limits, every, kind, rate, compact, seed) -> None:
    """||P(x) - x|| <= atol + rtol ||P(x)|| + 8 eps (||x|| + ||P(x)||) for every row that claims it."""
    W, f, T = maps(kind, seed, rate)
    W, f = W.to(dtype), f.to(dtype)
    atol, rtol = limits
    stop = Tolerance(atol, rtol, max_steps=150, every=every)
    with torch.no_grad():
        sol = solve(Equation(lambda x: T(x, W), f), f, SOLVERS[name](damping), stop, compact=compact)
    gap, image, size = residual_in_double(T, sol.value, W, f)
    claimed = sol.converged
    room = atol + rtol * image + 8 * EPS[dtype] * (image + size)
    assert bool((gap[claimed] <= room[claimed]).all())
    assert bool(sol.value.isfinite().all())
    assert bool((sol.status != int(Status.COMPLETED)).all())


@settings(max_examples=300)
@given(**CLAIMS)
@example("Picard", 0.99, torch.float64, (1e-6, 0.0), 1, "affine", 0.9, "auto", 1)
@example("Anderson", 0.0, torch.bfloat16, (0.0, 1e-2), 2, "tanh", 0.9, "auto", 2)
def test_no_false_claims(name, damping, dtype, limits, every, kind, rate, compact, seed):
    check_claims(name, damping, dtype, limits, every, kind, rate, compact, seed)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(**CLAIMS)
def test_no_false_claims_at_length(name, damping, dtype, limits, every, kind, rate, compact, seed):
    check_claims(name, damping, dtype, limits, every, kind, rate, compact, seed)


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(SOLVERS)),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    kind=st.sampled_from(["affine", "tanh", "sine"]),
    rate=st.sampled_from([0.5, 0.9, 1.3]),
    seed=st.integers(0, 2**16),
)
def test_the_reported_residual_is_that_of_the_value(name, dtype, kind, rate, seed):
    """For every status with a value: Solution.residual is ||P(x) - x|| of the x that is returned, to rounding."""
    W, f, T = maps(kind, seed, rate)
    W, f = W.to(dtype), f.to(dtype)
    with torch.no_grad():
        sol = solve(Equation(lambda x: T(x, W), f), f, SOLVERS[name](0.0), Tolerance(1e-4, max_steps=60))
    gap, image, size = residual_in_double(T, sol.value, W, f)
    assert bool(((gap - sol.residual.double()).abs() <= 8 * EPS[dtype] * (image + size)).all())


@settings(max_examples=40)
@given(
    name=st.sampled_from(["Picard", "Anderson", "Broyden", "NewtonKrylov"]),
    rate=st.sampled_from([1.0, 1.3, 3.0]),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["affine", "sine", "kink"]),
)
def test_a_row_that_fails_keeps_its_best_look(name, rate, seed, kind):
    """The residual of the value is the smallest of the trace, where the row did not converge."""
    W, f, T = maps(kind, seed, rate)
    with torch.no_grad():
        sol = solve(Equation(lambda x: T(x, W), f), f, SOLVERS[name](0.0), Tolerance(1e-13, max_steps=40), trace=True)
    best = sol.trace.residual.nan_to_num(torch.inf).min(0).values
    failed = ~sol.converged
    assert bool((sol.residual[failed] <= best[failed] * (1 + 1e-12)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_zero_tolerance_ends_without_a_claim_it_cannot_hold(name, dtype):
    """atol = rtol = 0 can only be met exactly: every CONVERGED row has P(x) == x in its own arithmetic."""
    W, f, T = maps("tanh", 3, 0.5)
    W, f = W.to(dtype), f.to(dtype)
    solver: Solver = SOLVERS[name](0.0)
    with torch.no_grad():
        sol = solve(Equation(lambda x: T(x, W), f), f, solver, Tolerance(0.0, max_steps=300), compact=False)
        again = T(sol.value, W) + f
    met = sol.converged
    assert torch.equal(again[met], sol.value[met])
    assert set(sol.counts()) <= {"CONVERGED", "STALLED", "CYCLING", "MAX_STEPS"}


@pytest.mark.parametrize("solver", [Anderson(2), Anderson(3), Broyden()], ids=repr)
@pytest.mark.parametrize("A", [[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]], ids=["zero", "singular"])
def test_a_system_without_a_solution_is_never_converged(solver, A):
    """At ||x|| = 1e16 rounding swallows b: P(x) - x vanishes in float64, while A x = b holds nowhere."""
    matrix, b = torch.tensor(A, dtype=torch.float64), torch.tensor([[0.3, -0.7], [1.0, 0.5]], dtype=torch.float64)
    eq = Equation(lambda x: x - (x @ matrix.T - b))
    sol = solve(eq, torch.zeros_like(b), solver, Tolerance(1e-8, max_steps=300))
    assert not bool(sol.converged.any()), sol.counts()


def test_large_values_converge_to_what_they_can_be_judged_by():
    """||x|| = 1e6 in float32 and float64, to tolerances above their rounding."""
    for dtype, atol in ((torch.float64, 1e-8), (torch.float32, 1.0)):
        f = torch.full((3, 4), 1e6, dtype=dtype)
        sol = solve(Equation(lambda x: x / 2, f), torch.zeros_like(f), stop=Tolerance(atol, max_steps=200))
        assert sol.counts() == {"CONVERGED": 3}
