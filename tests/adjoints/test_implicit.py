"""Implicit: exact derivatives of every order, forward and backward, and honest reports of the backward solve."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells import DOUBLE, Counted, affine
from tests.contracts import root_gradient, tanh_cell
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from settlepoint import (
    Anderson,
    Broyden,
    Equation,
    FixedPoint,
    FixedSteps,
    GradientWarning,
    Implicit,
    NewtonKrylov,
    Picard,
    Segments,
    Tolerance,
    Unrolled,
    solve,
)

TIGHT = Tolerance(1e-13, max_steps=500)


def tanh_root(W: Tensor, f: Tensor, adjoint: Implicit | None = None) -> Tensor:
    return solve(Equation(lambda x: torch.tanh(x @ W), f), torch.zeros_like(f), stop=TIGHT, adjoint=adjoint).value


@pytest.fixture
def small(generator) -> tuple[Tensor, Tensor]:
    return tanh_cell(generator, rows=2, width=2)


# ---- orders, modes and transforms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "adjoint", [Implicit(), Implicit(order=1), Implicit(Broyden()), Implicit(NewtonKrylov())], ids=str
)
def test_gradcheck(small, adjoint):
    assert gradcheck(lambda W, f: tanh_root(W, f, adjoint), small)


def test_gradgradcheck(small):
    assert gradgradcheck(tanh_root, small)


def test_forward_mode(small):
    assert gradcheck(tanh_root, small, check_forward_ad=True, check_batched_forward_grad=False)


def test_forward_over_reverse(small):
    assert gradgradcheck(tanh_root, small, check_fwd_over_rev=True)


def plain_root(W: Tensor, f: Tensor) -> Tensor:
    """The oracle of torch.func: the same root by 200 plain iterations, which torch differentiates itself."""
    x = torch.zeros_like(f)
    for _ in range(200):
        x = torch.tanh(x @ W) + f
    return x


@pytest.mark.parametrize(
    "transform",
    [
        lambda F: torch.func.grad(F),
        lambda F: torch.func.jacrev(F),
        lambda F: torch.func.jacfwd(F),
        lambda F: torch.func.hessian(F),
        lambda F: torch.func.jacrev(torch.func.jacrev(F)),
        lambda F: torch.func.jacfwd(torch.func.jacfwd(F)),
        lambda F: lambda W: torch.func.jvp(F, (W,), (torch.ones_like(W),))[1],
        lambda F: lambda W: torch.func.vjp(F, W)[1](torch.ones((), dtype=DOUBLE))[0],
        lambda F: lambda W: torch.func.jvp(torch.func.grad(F), (W,), (torch.ones_like(W),))[1],
    ],
    ids=["grad", "jacrev", "jacfwd", "hessian", "jacrev jacrev", "jacfwd jacfwd", "jvp", "vjp", "jvp grad"],
)
def test_torch_func(small, transform):
    W, f = (t.detach() for t in small)
    ours, theirs = (
        transform(lambda W: (root(W, f) ** 2).sum())(W)  # noqa: B023
        for root in (tanh_root, plain_root)
    )
    assert torch.allclose(ours, theirs, atol=1e-8)  # backward tolerance 1e-10, |S| = 2, two orders


def scalar_root(a: Tensor, order: int) -> Tensor:
    return solve(
        Equation(lambda z: torch.tanh(a * z + 0.7)), torch.zeros((), dtype=DOUBLE), NewtonKrylov(inner=1, restart=1),
        Tolerance(1e-14), Implicit(order=order),
    ).value  # fmt: skip


def derivatives(order: int) -> list[float]:
    """z, dz/da, ... to the third, of z = tanh(a z + .7) at a = .6, through Implicit of that order."""
    a = torch.tensor(0.6, dtype=DOUBLE, requires_grad=True)
    y, values = scalar_root(a, order), []
    for _ in range(3):
        values.append(y.item())
        (y,) = torch.autograd.grad(y, a, create_graph=True)
    return [*values, y.item()]


def test_each_order_makes_one_more_derivative_exact():
    """Oracle: central differences of the exact second derivative; orders 1 and 2 are wrong beyond their promise."""
    step = 1e-4
    second = []
    for a in (0.6 - step, 0.6 + step):
        at = torch.tensor(a, dtype=DOUBLE, requires_grad=True)
        (g,) = torch.autograd.grad(scalar_root(at, 2), at, create_graph=True)
        second.append(torch.autograd.grad(g, at)[0].item())
    third = (second[1] - second[0]) / (2 * step)
    one, two, three = derivatives(1), derivatives(2), derivatives(3)
    assert one[0] == two[0] == three[0]
    assert one[1] == pytest.approx(three[1], rel=1e-9)
    assert two[2] == pytest.approx(three[2], rel=1e-8)
    assert three[2] == pytest.approx(-0.41568, abs=1e-5)
    assert three[3] == pytest.approx(third, rel=1e-5)
    assert abs(one[2] - three[2]) > 0.02 * abs(three[2])
    assert abs(two[3] - three[3]) > 5e-4 * abs(three[3])  # 50 times what the oracle is sure of


def test_grad_of_torch_func_inside_no_grad_is_refused(small):
    W, f = (t.detach() for t in small)
    with torch.no_grad(), pytest.raises(RuntimeError, match="leave no_grad"):
        torch.func.grad(lambda f: tanh_root(W, f).sum())(f)


def test_jvp_inside_no_grad(small):
    W, f = (t.detach() for t in small)
    _, right = torch.func.jvp(lambda f: tanh_root(W, f), (f,), (f,))
    with torch.no_grad():
        _, tangent = torch.func.jvp(lambda f: tanh_root(W, f), (f,), (f,))
    assert torch.equal(tangent, right)


# ---- accuracy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.9, 0.99])
def test_gradient_error_is_bounded_by_the_tolerance(generator, rho):
    """|dW - exact| / |exact| <= 10 tol / (1 - rho); oracle: torch.linalg.solve in float64."""
    problem = affine(generator, rows=8, width=64, low=-rho, high=rho)
    W = problem.W.clone().requires_grad_()
    g = torch.randn(8, 64, dtype=DOUBLE, generator=generator)
    sol = solve(Equation(lambda x: x @ W, problem.f), solver=Anderson(), stop=Tolerance(0.0, 1e-6, max_steps=2000))
    assert sol.counts() == {"CONVERGED": 8}
    (mine,) = torch.autograd.grad(sol.value, W, g)
    exact = problem.answer.T @ torch.linalg.solve(torch.eye(64, dtype=DOUBLE) - problem.W, g.T).T
    assert float((mine - exact).norm() / exact.norm()) <= 10 * 1e-6 / (1 - rho)


def test_float32(generator):
    W, f = (t.detach().float().requires_grad_() for t in tanh_cell(generator))
    sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=Tolerance(1e-6))
    g = torch.ones(3, 4)
    exact = root_gradient(W.double(), f.double(), sol.value.double(), g.double())
    for a, b in zip(torch.autograd.grad(sol.value, (W, f), g), exact, strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).norm() / b.norm()) <= 1e-5  # 8 rounding units, |S| = 2


def test_half_precision_gradient():
    """x = a x + 1 at a = 1/2 in bfloat16: dx/da = 4, to the 3 digits that bfloat16 has."""
    a = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
    x = solve(Equation(lambda x: a * x + 1), torch.zeros(1, 1, dtype=torch.bfloat16), stop=Tolerance(1e-2)).value
    x.sum().backward()
    assert float(a.grad) == pytest.approx(4, rel=0.02)


def test_segments(generator):
    """Rows of 1 to 3 nodes coupled by their mean: the gradient of every node, against 200 unrolled steps."""
    index = torch.tensor([0, 0, 1, 2, 2, 2])
    f = torch.randn(6, 2, dtype=DOUBLE, generator=generator, requires_grad=True)
    sizes = torch.bincount(index).double()[:, None]

    def T(x: Tensor) -> Tensor:
        mean = torch.zeros(3, 2, dtype=DOUBLE).index_add(0, index, x) / sizes
        return 0.5 * torch.tanh(mean)[index]

    x = torch.zeros_like(f)
    for _ in range(200):
        x = T(x) + f
    sol = solve(Equation(T, f, space=Segments(index, 3)), stop=Tolerance(1e-12))
    assert torch.allclose(sol.value, x, atol=1e-11)
    pair = [torch.autograd.grad((y**3).sum(), f)[0] for y in (sol.value, x)]
    assert torch.allclose(*pair, atol=1e-8)


# ---- what is asked for ---------------------------------------------------------------------------------------------


def test_x0_gets_no_gradient():
    """A fixed point does not depend on where the search began."""
    x0 = torch.zeros(1, 2, dtype=DOUBLE, requires_grad=True)
    a = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    x = solve(Equation(lambda x: a * x + 1), x0).value
    assert torch.autograd.grad(x.sum(), x0, allow_unused=True) == (None,)


def test_lam_and_context_get_gradients():
    """x = lam c x + 1: dx/dlam = c/(1 - lam c)^2, by hand, with one lam a row."""
    lam = torch.tensor([0.5, 0.8], dtype=DOUBLE, requires_grad=True)
    c = torch.tensor([[0.5], [0.25]], dtype=DOUBLE, requires_grad=True)
    one = torch.ones(2, 1, dtype=DOUBLE)
    x = solve(Equation(lambda x, c: c * x, one, lam=lam, context=(c,)), stop=TIGHT).value
    a, b = torch.autograd.grad(x.sum(), (lam, c))
    flat = c.detach().flatten()
    assert torch.allclose(a, flat / (1 - lam.detach() * flat) ** 2)
    assert torch.allclose(b.flatten(), lam.detach() / (1 - lam.detach() * flat) ** 2)


def test_a_module_needs_no_parameter_list(generator):
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    for p in net.parameters():
        p.data.mul_(0.5)
    u = torch.randn(4, 3, dtype=DOUBLE, generator=generator)
    pair = [
        torch.autograd.grad((solve(Equation(net, u), stop=stop, adjoint=adjoint).value ** 2).sum(), net.parameters())
        for stop, adjoint in ((TIGHT, Implicit()), (FixedSteps(100), Unrolled()))
    ]
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*pair, strict=True))


def test_a_fixed_point_inside_an_operator(generator):
    """The inner solve of an outer one: x = tanh(y(x) W) with y = y/2 + x, so y = 2 x. Oracle: plain iteration."""
    W, f = tanh_cell(generator)
    W = (0.4 * W.detach()).requires_grad_()
    inner = FixedPoint(lambda y: 0.5 * y, stop=Tolerance(1e-14))
    sol = solve(Equation(lambda x: torch.tanh(inner(x) @ W), f), stop=Tolerance(1e-12))
    x = torch.zeros_like(f)
    for _ in range(200):
        x = torch.tanh(2 * x @ W) + f
    pair = [torch.autograd.grad((y**2).sum(), W)[0] for y in (sol.value, x)]
    assert torch.allclose(*pair, atol=1e-8)


def test_operator_that_does_not_depend_on_x():
    f = torch.ones(2, 3, dtype=DOUBLE, requires_grad=True)
    x = solve(Equation(lambda x: torch.zeros_like(x), f)).value
    (g,) = torch.autograd.grad((3 * x).sum(), f)
    assert torch.equal(g, torch.full_like(g, 3))


def test_forward_mode_of_an_operator_that_does_not_depend_on_x():
    """x = a^2, whatever x: the tangent is 2a, with nothing to solve for."""
    value = lambda a: solve(Equation(lambda x: a * a + torch.zeros_like(x)), torch.zeros(2, 1, dtype=DOUBLE)).value  # noqa: E731
    at = torch.tensor(3.0, dtype=DOUBLE)
    _, tangent = torch.func.jvp(value, (at,), (torch.ones_like(at),))
    assert tangent.flatten().tolist() == [6, 6]


def test_rows_that_do_not_converge_get_the_gradient_of_their_value():
    """x = 0.999 x + f after 5 steps: documented as the gradient that a fixed point there would have, 1/(1 - .999)."""
    f = torch.ones(1, 1, dtype=DOUBLE, requires_grad=True)
    sol = solve(Equation(lambda x: 0.999 * x, f), stop=Tolerance(max_steps=5))
    assert sol.counts() == {"MAX_STEPS": 1}
    (g,) = torch.autograd.grad(sol.value.sum(), f)
    assert float(g) == pytest.approx(1000, rel=1e-6)


# ---- reports -------------------------------------------------------------------------------------------------------


def test_report_is_empty_before_backward(generator):
    W, f = tanh_cell(generator)
    report = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT).gradient
    assert report.adjoint == "Implicit(solver=None, stop=None, order=2)"
    assert (report.solves, report.status, report.residual, report.evals) == (0, None, None, None)


@pytest.mark.parametrize("order", [1, 2])
def test_report_is_filled_in_backward(generator, order):
    """Every row has some 10 evaluations to report, and a residual of its own."""
    W, f = tanh_cell(generator)
    sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT, adjoint=Implicit(order=order))
    sol.value.sum().backward()
    report = sol.gradient
    assert report.solves >= 1
    assert report.status.tolist() == [0, 0, 0]
    assert bool(((report.residual > 0) & (report.residual <= 1e-10)).all())
    assert bool((report.evals > 1).all())


@pytest.mark.parametrize("order", [1, 2])
def test_a_miss_stays_in_the_report(generator, order):
    W, f = tanh_cell(generator)
    adjoint = Implicit(Picard(), Tolerance(0.0, 1e-12, max_steps=2), order=order)
    sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT, adjoint=adjoint)
    with pytest.warns(GradientWarning):
        sol.value.sum().backward()
    assert set(sol.gradient.status.tolist()) == {2}
    assert bool((sol.gradient.residual > 1e-12).all())


def test_a_backward_solve_that_misses_warns(generator):
    W, f = tanh_cell(generator)
    adjoint = Implicit(Picard(), Tolerance(0.0, 1e-12, max_steps=2))
    sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT, adjoint=adjoint)
    with pytest.warns(GradientWarning, match=r"missed its tolerance in 3 of 3 rows: row 0 is MAX_STEPS .* more steps"):
        sol.value.sum().backward()


def test_a_singular_backward_equation_warns():
    """x = x + 0 is settled everywhere, and I - J = 0 has no inverse."""
    a = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    sol = solve(Equation(lambda x: a * x), torch.ones(1, 1, dtype=DOUBLE))
    assert sol.counts() == {"CONVERGED": 1}
    with pytest.warns(GradientWarning):
        sol.value.sum().backward()


def test_only_rows_that_are_asked_for_cost(generator):
    """A loss over one row solves one row: the others have a zero cotangent."""
    W, f = tanh_cell(generator)
    sol = solve(Equation(lambda x: torch.tanh(x @ W), f), stop=TIGHT, adjoint=Implicit(order=1))
    sol.value[1].sum().backward()
    assert sol.gradient.evals[1] > 1
    assert sol.gradient.evals[0] == sol.gradient.evals[2] == 1
    assert bool((f.grad[0] == 0).all())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_evaluations_of_the_passes(generator, order):
    """Beyond the loop: one evaluation a pass, and one to linearise at."""
    W, f = tanh_cell(generator)
    T = Counted(lambda x: torch.tanh(x @ W))
    sol = solve(Equation(T, f), stop=TIGHT, adjoint=Implicit(order=order), compact=False)
    assert T.calls == int(sol.evals.max()) + order + 1
    before = T.calls
    sol.value.sum().backward()
    assert T.calls == before  # the linear solves go through the recorded evaluation


def test_small_cotangents_after_large_ones(generator):
    """Gradients are linear in the cotangent, whatever came before."""
    W, f = tanh_cell(generator)
    x = tanh_root(W, f)
    (a,) = torch.autograd.grad(x.sum(), f, retain_graph=True)
    (b,) = torch.autograd.grad(1e-16 * x.sum(), f)
    assert torch.allclose(1e16 * b, a)


def test_a_nan_row_leaves_other_rows_their_gradient(generator):
    """With one weight a row, the gradients of good rows are those without the bad one."""
    a = torch.tensor([[0.5], [0.3]], dtype=DOUBLE, requires_grad=True)
    x0 = torch.tensor([[0.0], [math.nan]], dtype=DOUBLE)
    sol = solve(Equation(lambda x, a: a * x + 1, context=(a,)), x0)
    assert sol.status.tolist() == [0, 6]
    (g,) = torch.autograd.grad(sol.value[0].sum(), a)
    assert float(g[0]) == pytest.approx(4, abs=1e-5)


def test_construction():
    for order in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="order must be an integer >= 1"):
            Implicit(order=order)
