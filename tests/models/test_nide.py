"""Neural integro-differential equations: solutions by hand, memory as an ordinary equation, gradients, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from settlepoint import Anderson, FixedSteps, NewtonKrylov, Picard, Tolerance, certify, solve
from settlepoint.experiments.nide_systems import EXACT, SYSTEMS
from settlepoint.layers import MemoryOperator, RandomNodes, gauss_legendre
from settlepoint.models import NIDE

DOUBLE = torch.float64
TIGHT = Tolerance(1e-12, 1e-12, max_steps=400, growth=1e12, window=400)


def one(t: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(y)


def hyperbolic() -> MemoryOperator:
    """y' = 1 + int_0^t y ds, y(0) = 0: y = sinh t."""
    return MemoryOperator(one, one, lambda t, s: torch.ones_like(t * s))


def test_iterates_are_taylor_polynomials() -> None:
    """From 0: t, t + t^3 / 6, ..., the partial sums of sinh."""
    rule = gauss_legendre(10)
    for steps in (1, 2, 4):
        y = NIDE(hyperbolic(), rule, stop=FixedSteps(steps))(torch.zeros(1, 1, dtype=DOUBLE))
        expected = sum(rule.nodes ** (2 * j + 1) / math.factorial(2 * j + 1) for j in range(steps))
        torch.testing.assert_close(y[0, :, 0], expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("cell", list(EXACT))
def test_solutions_by_hand(cell: str) -> None:
    problem = EXACT[cell]()
    model = NIDE(problem.operator, gauss_legendre(12, 0.0, problem.end, panels=8), solver=NewtonKrylov(), stop=TIGHT)
    times = torch.linspace(0, problem.end, 20, dtype=DOUBLE)
    y = model(torch.full((1, 1), problem.start, dtype=DOUBLE), times)
    torch.testing.assert_close(y[0, :, 0], problem.exact(times), atol=1e-9, rtol=0)


@pytest.mark.parametrize("cell", list(EXACT))
def test_the_known_solutions_solve_their_equations(cell: str) -> None:
    """dy/dt of the formula by autograd against the slope that the operator gives along it."""
    problem = EXACT[cell]()
    rule = gauss_legendre(12, 0.0, problem.end, panels=8)
    t = rule.nodes.clone().requires_grad_()
    (slope,) = torch.autograd.grad(problem.exact(t).sum(), t)
    found = problem.operator.slope(problem.exact(rule.nodes)[None, :, None], rule)
    torch.testing.assert_close(found[0, :, 0], slope, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_memory_is_an_ordinary_equation_beside(name: str) -> None:
    """The linear chain trick with scipy.integrate.solve_ivp against the integral operator, on finer nodes."""
    system, rule = SYSTEMS[name](), gauss_legendre(10, 0.0, 3.0, panels=6)
    start, y = system.trajectories(3, rule, torch.Generator().manual_seed(0))
    model = NIDE(system.operator, rule, solver=NewtonKrylov(), stop=TIGHT)
    torch.testing.assert_close(model(start), y, atol=1e-7, rtol=0)
    assert float((y - y[:, :1]).abs().max()) > 0.3


def test_without_memory_it_is_an_ordinary_equation() -> None:
    """y' = t - y^2 / 2 against solve_ivp."""
    model = NIDE(
        MemoryOperator(lambda t, y: t - y * y / 2),
        gauss_legendre(12, 0.0, 2.0, panels=2),
        solver=Anderson(5),
        stop=TIGHT,
    )
    y = model(torch.tensor([[0.5], [1.0]], dtype=DOUBLE), torch.tensor([2.0]))
    for row, start in zip(y, (0.5, 1.0), strict=True):
        expected = solve_ivp(lambda t, y: t - y * y / 2, (0, 2), [start], "DOP853", rtol=1e-11, atol=1e-11).y[0, -1]
        np.testing.assert_allclose(row.item(), expected, atol=1e-9)


def test_gradients_pass_the_implicit_adjoint(generator: torch.Generator) -> None:
    """In the start and in a parameter of the kernel, against finite differences and unrolling."""
    rule = gauss_legendre(5)
    start = torch.randn(2, 2, dtype=DOUBLE, generator=generator, requires_grad=True)
    a = torch.tensor([0.7, -0.4], dtype=DOUBLE, requires_grad=True)

    def settled(start: Tensor, a: Tensor, *, steps: int = 0) -> Tensor:
        operator = MemoryOperator(lambda t, y: torch.sin(y + t), lambda t, y: y, lambda t, s: a * (t - s), torch.tanh)
        return NIDE(operator, rule, stop=FixedSteps(steps) if steps else TIGHT)(start)

    assert torch.autograd.gradcheck(settled, (start, a), atol=1e-7)
    implicit = torch.autograd.grad(settled(start, a).square().sum(), (start, a))
    unrolled = torch.autograd.grad(settled(start, a, steps=60).square().sum(), (start, a))
    torch.testing.assert_close(implicit, unrolled, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("far", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("end", [1.0, 6.0])
def test_a_proved_radius_holds_the_true_error(far: float, end: float, generator: torch.Generator) -> None:
    """Against linear algebra: y = q (1 + q y) on the nodes."""
    rule = gauss_legendre(6, 0.0, end, panels=8)
    model, q = NIDE(hyperbolic(), rule), rule.cumulative
    eq, _ = model.posed(torch.zeros(1, 1, dtype=DOUBLE))
    eye, unit = torch.eye(len(q), dtype=DOUBLE), torch.ones(len(q), 1, dtype=DOUBLE)
    fixed = torch.linalg.solve(eye - q @ q, q @ unit)[None]
    x = fixed + far * torch.randn(fixed.shape, generator=generator, dtype=DOUBLE)
    found = certify.nodewise(eq, x, model.table(0.0, memory=1.0))
    assert found.counts() == {"proved": 1}
    assert float((rule.weights * (x - fixed)[0, :, 0].square()).sum().sqrt()) <= float(found.radius)


def test_a_constant_of_a_slope_that_is_too_large_for_its_nodes_is_refused_and_panels_help() -> None:
    operator = MemoryOperator(lambda t, y: 8 * torch.sin(y))
    kinds = []
    for panels in (1, 8):
        model = NIDE(operator, gauss_legendre(8, panels=panels), solver=Anderson(5), stop=TIGHT)
        eq, start = model.posed(torch.ones(1, 1, dtype=DOUBLE))
        kinds += certify.nodewise(eq, solve(eq, start, Anderson(5), TIGHT).value, model.table(8.0)).kind
    assert kinds == ["refused", "proved"]


def test_a_nan_stays_in_its_row() -> None:
    model = NIDE(hyperbolic(), gauss_legendre(4), solver=Picard(), stop=TIGHT)
    y = model(torch.tensor([[0.0], [math.nan]], dtype=DOUBLE))
    assert model.settle.last is not None
    assert model.settle.last.counts() == {"CONVERGED": 1, "NONFINITE": 1}
    assert bool(torch.isfinite(y[0]).all())


def test_what_does_not_fit_is_refused() -> None:
    model = NIDE(hyperbolic(), gauss_legendre(4))
    with pytest.raises(ValueError, match=r"start must be \(B, k\), one state a trajectory, got \(3,\)"):
        model(torch.zeros(3))
    with pytest.raises(ValueError, match=r"times must lie in \[0, 1\], got 1.5"):
        model(torch.zeros(1, 1), torch.tensor([1.5]))
    with pytest.raises(ValueError, match="slope must be >= 0, got -1"):
        model.table(-1.0)
    with pytest.raises(TypeError, match="rule must be a Quadrature, whose nodes are fixed, got RandomNodes"):
        NIDE(hyperbolic(), RandomNodes(4))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [lambda y: y[:, -1:], lambda y: y.sum(1, keepdim=True), lambda y: y[..., :1]])
def test_an_f_of_another_shape_is_refused(change) -> None:
    one = lambda t, y: torch.ones_like(y)  # noqa: E731
    operator = MemoryOperator(one, one, lambda t, s: torch.ones_like(t * s), change)
    rule = gauss_legendre(4)
    with pytest.raises(ValueError, match=r"F must give the shape of y, \(1, 4, 2\), got"):
        operator(torch.zeros(1, 4, 2, dtype=torch.float64), rule)
