"""Neural integral equations: Neumann series and factorials by hand, gradients, certificates, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import root
from torch import Tensor, nn

from settlepoint import Anderson, FixedSteps, Implicit, Picard, Solution, Tolerance, certify, solve
from settlepoint.layers import IntegralOperator, Quadrature, RandomNodes, gauss_legendre, joined, trapezoidal
from settlepoint.models import NIE

DOUBLE = torch.float64
TIGHT = Tolerance(1e-13, 1e-13, max_steps=400, growth=1e12, window=400)


def separable(lam: float, rule: Quadrature | RandomNodes, **given: Any) -> NIE:
    """y = t + lam int_0^1 t s y ds, by y = t / (1 - lam / 3)."""
    return NIE(IntegralOperator(lambda y, t, s: lam * t * s * y), rule, **given)


def growing(c: float, rule: Quadrature, **given: Any) -> NIE:
    """y = 1 + c int_0^t y ds, by y = e^{ct}."""
    return NIE(IntegralOperator(lambda y, t, s: c * y, volterra=True), rule, **given)


def ones(t: Tensor) -> Tensor:
    return torch.ones_like(t)[None]


def identity(t: Tensor) -> Tensor:
    return t[None]


def last(model: NIE) -> Solution:
    assert model.settle.last is not None
    return model.settle.last


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_iterates_are_partial_sums_of_the_neumann_series(steps: int) -> None:
    """y_k = t sum_{j <= k} (lam / 3)^j, started at f = t."""
    rule = gauss_legendre(2)  # t s t is of degree 2 in s
    y = separable(0.9, rule, stop=FixedSteps(steps))(identity)
    expected = rule.nodes * sum(0.3**j for j in range(steps + 1))
    torch.testing.assert_close(y[0, :, 0], expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_iterates_of_a_volterra_equation_are_taylor_polynomials(steps: int) -> None:
    """y_k = sum_{j <= k} (c t)^j / j!, exact on the nodes while the degree fits."""
    rule = gauss_legendre(8, 0.0, 1.5)
    y = growing(2.0, rule, stop=FixedSteps(steps))(ones)
    expected = sum((2 * rule.nodes) ** j / math.factorial(j) for j in range(steps + 1))
    torch.testing.assert_close(y[0, :, 0], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("c", [1.0, 4.0, 16.0])
def test_volterra_equations_settle_factorially_whatever_the_constant(c: float) -> None:
    """The residual of iterate k is at most c^{k+1} / (k+1)! in the sup norm, hence in L2(0, 1)."""
    model = growing(c, gauss_legendre(12, panels=16))
    eq, start = model.posed(ones)
    sol = solve(eq, start, Picard(), TIGHT, trace=True)
    assert sol.trace is not None
    assert sol.counts() == {"CONVERGED": 1}
    for k, residual in enumerate(sol.trace.residual[:, 0].tolist()):
        assert residual <= c ** (k + 1) / math.factorial(k + 1) * (1 + 1e-9) + 1e-13 * math.exp(c)
    model.settle.stop = TIGHT
    assert float(model(ones, torch.tensor([1.0])).squeeze()) == pytest.approx(math.exp(c), rel=1e-11)


def test_beyond_the_contraction_another_solver_finds_it() -> None:
    """lam / 3 = 5 / 3: Picard leaves, Anderson gives t / (1 - 5 / 3)."""
    rule, times = gauss_legendre(6), torch.tensor([0.0, 0.4, 1.0], dtype=DOUBLE)
    picard = separable(5.0, rule)
    picard(identity)
    assert last(picard).counts() == {"DIVERGED": 1}
    y = separable(5.0, rule, solver=Anderson(5), stop=TIGHT)(identity, times)
    torch.testing.assert_close(y[0, :, 0], -1.5 * times, atol=1e-11, rtol=0)


def test_a_nonlinear_equation_is_that_of_scipy() -> None:
    """y = t + int_0^1 1 / (1 + t + s + y^2) ds, two components that do not talk, on 40 nodes by scipy.optimize.root."""
    model = NIE(
        IntegralOperator(lambda y, t, s: 1 / (1 + t + s + y * y)), gauss_legendre(14), solver=Anderson(5), stop=TIGHT
    )
    times = torch.tensor([0.0, 0.35, 1.0], dtype=DOUBLE)
    found = model(lambda t: torch.cat((t, 2 * t), 1)[None], times)
    x, w = np.polynomial.legendre.leggauss(40)
    s, w = (x + 1) / 2, w / 2
    for k in (1, 2):
        G = lambda y, t: (1 / (1 + t[:, None] + s + y * y)) @ w  # noqa: E731
        y = root(lambda y, k=k, G=G: k * s + G(y, s) - y, s, tol=1e-14).x
        expected = k * times.numpy() + G(y, times.numpy())
        np.testing.assert_allclose(found[0, :, k - 1].numpy(), expected, atol=1e-11)


def test_a_local_term_counts() -> None:
    """y = f + y / 2 + int_0^1 t s y ds: (1/2) y = t + a t, a = int s y = 2 (1 + a) / 3, so a = 2, y = 6 t."""
    operator = IntegralOperator(lambda y, t, s: t * s * y, local=lambda y, t: y / 2)
    model = NIE(operator, gauss_legendre(5), solver=Anderson(5), stop=TIGHT)
    torch.testing.assert_close(model(identity)[0, :, 0], 6 * model.rule.nodes, atol=1e-11, rtol=0)  # type: ignore[union-attr]
    assert float(certify.perron_bound(model.table(0.25, local=0.5))[0]) == pytest.approx(0.75)


def test_the_norm_is_that_of_l2() -> None:
    """The residual of y = 0 for f = t is ||t|| = 3^{-1/2} on any number of nodes, and Rows carries the weights."""
    for count in (2, 5, 40):
        eq, start = separable(0.0, gauss_legendre(count)).posed(identity)
        sol = solve(eq, torch.zeros_like(start), Picard(), FixedSteps(0, check=True))  # type: ignore[arg-type]
        assert float(sol.residual) == pytest.approx(3**-0.5, abs=1e-13)


def test_rows_settle_on_their_own_and_a_nan_stays_in_its_row() -> None:
    f = torch.stack((torch.zeros(6, 1), torch.ones(6, 1), torch.full((6, 1), math.nan))).double()
    model = separable(0.9, gauss_legendre(6), solver=Picard(), stop=TIGHT)
    y = model(f)
    assert last(model).converged.tolist() == [True, True, False]
    assert last(model).counts() == {"CONVERGED": 2, "NONFINITE": 1}
    torch.testing.assert_close(y[:2], torch.cat([model(row[None]) for row in f[:2]]), atol=1e-14, rtol=0)


def test_single_precision_stays_single() -> None:
    y = separable(0.9, gauss_legendre(6))(torch.ones(2, 6, 1), torch.tensor([0.5]))
    assert y.dtype == torch.float32
    expected = 1 + 0.5 * 0.9 * 0.5 / 0.7  # y = 1 + a t, a = .9 (1 / 2 + a / 3)
    torch.testing.assert_close(y, torch.full((2, 1, 1), expected), atol=1e-5, rtol=0)


# ---- Random nodes --------------------------------------------------------------------------------------------------


def test_random_nodes_settle_to_the_fixed_point_of_their_sample() -> None:
    """y_j = s_j / (1 - lam mean s^2): no noise is left in the solve, and another solve has other nodes."""
    model = separable(0.9, RandomNodes(200, generator=torch.Generator().manual_seed(0)), solver=Picard(), stop=TIGHT)
    first = model(identity)
    rule = model.held
    assert rule is not None
    expected = rule.nodes / (1 - 0.9 * rule.nodes.square().mean())
    torch.testing.assert_close(first[0, :, 0], expected, atol=1e-12, rtol=0)
    model(identity)
    assert model.held is not None
    assert not torch.equal(model.held.nodes, rule.nodes)


# ---- Gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("volterra", [False, True])
def test_gradients_pass_the_implicit_adjoint(volterra: bool, generator: torch.Generator) -> None:
    """gradcheck in the right-hand side and in a parameter of the kernel, and against unrolling."""
    rule, f = gauss_legendre(5), torch.randn(2, 5, 1, dtype=DOUBLE, generator=generator, requires_grad=True)
    a = torch.tensor(0.4, dtype=DOUBLE, requires_grad=True)

    def settled(f: Tensor, a: Tensor, *, steps: int = 0) -> Tensor:
        operator = IntegralOperator(lambda y, t, s: torch.sin(a * y * (1 + t)) * s, volterra=volterra)
        stop = FixedSteps(steps) if steps else TIGHT
        return NIE(operator, rule, stop=stop, adjoint=None if steps else Implicit())(f, torch.tensor([0.0, 0.5]))

    assert torch.autograd.gradcheck(settled, (f, a), atol=1e-7)
    implicit = torch.autograd.grad(settled(f, a).square().sum(), (f, a))
    unrolled = torch.autograd.grad(settled(f, a, steps=60).square().sum(), (f, a))
    torch.testing.assert_close(implicit, unrolled, atol=1e-9, rtol=1e-9)


def test_a_network_learns_its_kernel(generator: torch.Generator) -> None:
    """Every weight has a gradient, and ten steps lower the loss."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    model = NIE(IntegralOperator(lambda y, t, s: net(joined(y, t, s)) / 4), gauss_legendre(6), solver=Anderson(5))
    f = torch.randn(4, 6, 1, dtype=DOUBLE, generator=generator)
    with torch.no_grad():
        wanted = NIE(IntegralOperator(lambda y, t, s: t * s * y), gauss_legendre(6), stop=TIGHT)(f)
    optimiser, losses = torch.optim.Adam(net.parameters(), 0.01), []
    for _ in range(10):
        optimiser.zero_grad()
        loss = (model(f) - wanted).square().mean()
        loss.backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


# ---- Certificates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [0.0, 1e-8, 1e-2, 1.0])
@pytest.mark.parametrize(
    ("problem", "c"), [("fredholm", 0.9), ("fredholm", 2.9), ("volterra", 1.0), ("volterra", 6.0), ("trapezoid", 30.0)]
)
def test_a_proved_radius_holds_the_true_error(problem: str, c: float, far: float, generator: torch.Generator) -> None:
    """Linear equations, whose solution on the nodes is one of linear algebra: an oracle without any iteration."""
    if problem == "fredholm":
        model, bound = separable(c, gauss_legendre(6)), c * torch.outer(*2 * (gauss_legendre(6).nodes,))
    else:
        rule = trapezoidal(120) if problem == "trapezoid" else gauss_legendre(6, panels=4)
        model, bound = growing(c, rule), c
    eq, f = model.posed(ones)
    assert isinstance(f, Tensor)
    assert isinstance(model.rule, Quadrature)
    W = model.table(bound).clone()
    signed = bound * model.operator.table(model.rule)
    fixed = torch.linalg.solve(torch.eye(len(W), dtype=DOUBLE) - signed, f[0])[None]
    x = fixed + far * torch.randn(fixed.shape, generator=generator, dtype=DOUBLE)
    found = certify.nodewise(eq, x, W)
    away = float((model.rule.weights * (x - fixed)[0, :, 0].square()).sum().sqrt())
    assert found.counts() == {"proved": 1}
    assert away <= float(found.radius)
    assert float(found.rate) < 1


def test_the_root_of_a_fredholm_equation_is_the_constant_times_the_volume() -> None:
    """Lip_y h + vol Lip_y G, and Banach's in L2 says the same."""
    operator = IntegralOperator(lambda y, t, s: 0.2 * torch.sin(y + t * s), local=lambda y, t: 0.1 * torch.cos(y))
    model = NIE(operator, gauss_legendre(8, -1.0, 2.0), solver=Picard(), stop=TIGHT)
    eq, start = model.posed(identity)
    sol = solve(eq, start, Picard(), TIGHT)
    found = certify.nodewise(eq, sol.value, model.table(0.2, local=0.1))
    assert float(found.rate) == pytest.approx(0.1 + 3 * 0.2, rel=1e-9)
    assert certify.banach(eq, sol.value, bound=0.7).counts() == found.counts() == {"proved": 1}
    assert float(found.radius) < 1e-11
    refused = certify.nodewise(eq, sol.value, model.table(0.31, local=0.1))
    assert refused.counts() == {"refused": 1}
    assert "Perron root of the table of the nodes is 1.03, not below 1" in refused.reason[0]


def test_components_of_a_node_are_measured_together(generator: torch.Generator) -> None:
    """A rotation of two components has the constant 1 in the 2-norm: the radius, of the L2 norm, holds the error."""
    R = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=DOUBLE)
    model = NIE(IntegralOperator(lambda y, t, s: 0.8 * y @ R.T), gauss_legendre(5), solver=Picard(), stop=TIGHT)
    eq, start = model.posed(lambda t: torch.cat((t, 1 - t), 1)[None])
    fixed = solve(eq, start, Anderson(5), TIGHT).value
    assert isinstance(fixed, Tensor)
    x = fixed + 0.1 * torch.randn(1, 5, 2, generator=generator, dtype=DOUBLE)
    found = certify.nodewise(eq, x, model.table(0.8))
    away = float((model.rule.weights[:, None] * (x - fixed)[0].square()).sum().sqrt())  # type: ignore[union-attr]
    assert away <= float(found.radius) < 10 * away


def test_rows_that_are_not_finite_are_refused_alone() -> None:
    model = growing(1.0, gauss_legendre(4))
    eq, _ = model.posed(torch.ones(2, 4, 1, dtype=DOUBLE))
    x = torch.ones(2, 4, 1, dtype=DOUBLE)
    x[0, 1] = math.nan
    found = certify.nodewise(eq, x, model.table(1.0))
    assert found.kind == ("refused", "proved")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m(torch.zeros(2, 4, 1)), r"f must be \(B, 5, d\), one value a node, got \(2, 4, 1\)"),
        (lambda m: m(torch.zeros(5, 1)), r"f must be \(B, 5, d\), one value a node, got \(5, 1\)"),
        (lambda m: m(lambda t: t), r"f must be \(B, 5, d\), one value a node, got \(5, 1\)"),
        (lambda m: m(torch.zeros(1, 5, 1), torch.tensor([2.0])), r"times must lie in \[0, 1\], got 2"),
        (lambda m: m.table(-1.0), "kernel must be >= 0, got -1"),
        (lambda m: m.table(math.nan), "kernel must be >= 0, got nan"),
        (lambda m: m.table(torch.ones(3, 3)), r"kernel must be a number or \(5, 5\), got \(3, 3\)"),
        (lambda m: m.table(1.0, local=-2.0), "local must be >= 0, got -2"),
        (lambda m: separable(1.0, RandomNodes(5)).table(1.0), "table needs nodes"),
        (lambda m: separable(1.0, RandomNodes(5))(torch.zeros(1, 5, 1)), "f must be a function of t where the nodes"),
        (
            lambda m: certify.nodewise(m.posed(torch.zeros(1, 5, 1))[0], torch.zeros(1, 5, 1), torch.ones(4, 4)),
            r"table must be a nonnegative matrix of 5 rows, got \(4, 4\)",
        ),
        (
            lambda m: certify.nodewise(m.posed(torch.zeros(1, 5, 1))[0], torch.zeros(1, 5), torch.ones(5, 5)),
            r"x must be one tensor \(R, n, d\), got \(1, 5\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[NIE], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(separable(0.9, gauss_legendre(5)))
