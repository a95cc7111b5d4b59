"""Quadrature: exact where it should be, and what does not fit its interval. Oracles: polynomials by hand, SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import cumulative_trapezoid
from torch import Tensor

from settlepoint.layers import (
    IntegralOperator,
    MemoryOperator,
    Quadrature,
    RandomNodes,
    gauss_legendre,
    joined,
    trapezoidal,
    weighted_nodes,
)

DOUBLE = torch.float64


def power(t: Tensor, k: int) -> Tensor:
    return (t**k)[:, None]


def own(nodes: list[float], weights: list[float], low: float = 0.0, high: float = 1.0) -> Quadrature:
    return weighted_nodes(torch.tensor(nodes, dtype=DOUBLE), torch.tensor(weights, dtype=DOUBLE), low, high)


@given(
    count=st.integers(1, 12),
    panels=st.integers(1, 4),
    low=st.floats(-2, 1),
    length=st.floats(0.1, 3),
    k=st.integers(0, 23),
)
def test_gauss_is_exact_below_twice_its_nodes(count: int, panels: int, low: float, length: float, k: int) -> None:
    high, k = low + length, min(k, 2 * count - 1)
    rule = gauss_legendre(count, low, high, panels=panels)
    found = float(rule.integral(power(rule.nodes, k)))
    scale = max(abs(low), abs(high), 1.0) ** (k + 1)
    assert found == pytest.approx((high ** (k + 1) - low ** (k + 1)) / (k + 1), abs=1e-13 * (k + 1) * scale)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_gauss_is_not_exact_at_twice_its_nodes(count: int) -> None:
    rule = gauss_legendre(count, -1.0, 1.0)
    assert abs(float(rule.integral(power(rule.nodes, 2 * count))) - 2 / (2 * count + 1)) > 1e-6


@given(count=st.integers(1, 16), panels=st.integers(1, 4), k=st.integers(0, 15))
def test_integrals_to_the_nodes_and_values_between_are_exact_for_polynomials(count: int, panels: int, k: int) -> None:
    k = min(k, count - 1)
    rule = gauss_legendre(count, -0.5, 2.0, panels=panels)
    values, t = power(rule.nodes, k), torch.linspace(-0.5, 2.0, 23, dtype=DOUBLE)
    exact = (power(rule.nodes, k + 1) - (-0.5) ** (k + 1)) / (k + 1)
    torch.testing.assert_close(rule.integrals(values), exact, atol=1e-11 * 2.0**k, rtol=0)
    torch.testing.assert_close(rule.at(values, t), power(t, k), atol=1e-11 * 2.0**k, rtol=0)


def test_one_degree_more_is_not_exact() -> None:
    rule = gauss_legendre(4, 0.0, 1.0)
    off = rule.at(power(rule.nodes, 4), torch.tensor([0.0])) - 0
    assert float(off.abs()) > 1e-4


def test_smooth_functions_converge_spectrally() -> None:
    """int_0^t cos = sin t: from 4 to 12 nodes eight digits and more are won."""
    errors = []
    for count in (4, 12):
        rule = gauss_legendre(count, 0.0, 2.0)
        errors.append(float((rule.integrals(rule.nodes.cos()[:, None])[:, 0] - rule.nodes.sin()).abs().max()))
    assert errors[0] > 1e-6
    assert errors[1] < 1e-13


def test_the_trapezoidal_rule_is_that_of_scipy() -> None:
    rule = trapezoidal(9, -1.0, 2.0)
    values = rule.nodes.exp()
    expected = cumulative_trapezoid(values.numpy(), rule.nodes.numpy(), initial=0)
    np.testing.assert_allclose(rule.integrals(values[:, None])[:, 0].numpy(), expected, atol=1e-14)
    assert float(rule.integral(values[:, None])) == pytest.approx(expected[-1], abs=1e-13)
    assert rule.nodes[[0, -1]].tolist() == [-1.0, 2.0]


def test_straight_lines_between_the_nodes_are_those_of_numpy() -> None:
    rule = own([0.2, 0.5, 0.9], [0.3, 0.4, 0.3])
    values, t = torch.tensor([1.0, -1.0, 3.0], dtype=DOUBLE), torch.linspace(0, 1, 11, dtype=DOUBLE)
    expected = np.interp(t.numpy(), rule.nodes.numpy(), values.numpy())  # constant beyond the ends, as here
    np.testing.assert_allclose(rule.at(values[:, None], t)[:, 0].numpy(), expected, atol=1e-14)
    by_hand = [0.2, 0.2 + 0.0, 0.2 + 0.4]  # 1 to .2, then (1 - 1) / 2 * .3, then (-1 + 3) / 2 * .4
    np.testing.assert_allclose(rule.integrals(values[:, None])[:, 0].numpy(), by_hand, atol=1e-14)


def test_values_between_are_differentiable_in_the_values() -> None:
    rule = gauss_legendre(5, 0.0, 1.0)
    values = torch.randn(2, 5, 3, dtype=DOUBLE, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda v: rule.at(v, torch.tensor([0.0, 0.3, 1.0])), (values,))


def test_random_nodes_hold_for_one_solve_and_are_drawn_for_the_next() -> None:
    source = RandomNodes(50, 1.0, 3.0, torch.Generator().manual_seed(0))
    first, second = source.held(), source.held()
    assert not torch.equal(first.nodes, second.nodes)
    assert first.held() is first
    again = RandomNodes(50, 1.0, 3.0, torch.Generator().manual_seed(0)).held()
    assert torch.equal(first.nodes, again.nodes)
    assert float(first.integral(torch.ones(50, 1, dtype=DOUBLE))) == pytest.approx(2.0)
    assert bool(((first.nodes >= 1) & (first.nodes <= 3)).all())
    assert torch.equal(first.cumulative, first.cumulative.tril(-1))


def test_random_nodes_integrate_to_within_chance() -> None:
    """The standard deviation of the mean of e^s on [0, 1] over 4,000 draws is .0078: five of them."""
    rule = RandomNodes(4000, 0.0, 1.0, torch.Generator().manual_seed(1)).held()
    assert float(rule.integral(rule.nodes.exp()[:, None])) == pytest.approx(math.e - 1, abs=0.039)
    ends = rule.integrals(rule.nodes.exp()[:, None])[:, 0]
    torch.testing.assert_close(ends, rule.nodes.exp() - 1, atol=0.039, rtol=0)


def test_rules_follow_a_tensor() -> None:
    rule = gauss_legendre(3)
    assert rule.to(torch.zeros(1, dtype=DOUBLE)) is rule
    single = rule.to(torch.zeros(1))
    assert {single.nodes.dtype, single.weights.dtype, single.cumulative.dtype} == {torch.float32}
    assert single.at(torch.ones(3, 1), torch.tensor([0.5])).dtype == torch.float32
    assert repr(rule) == "Quadrature(3 nodes on [0, 1])"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gauss_legendre(0), "count must be an integer >= 1, got 0"),
        (lambda: gauss_legendre(True), "count must be an integer >= 1, got True"),
        (lambda: gauss_legendre(3, panels=0), "panels must be an integer >= 1, got 0"),
        (lambda: gauss_legendre(3, 1.0, 1.0), "low and high must be finite with low < high, got 1.0 and 1.0"),
        (lambda: gauss_legendre(3, 0.0, math.nan), "low and high must be finite with low < high, got 0.0 and nan"),
        (lambda: gauss_legendre(3, 0.0, math.inf), "low and high must be finite"),
        (lambda: RandomNodes(4, 2.0, 1.0), "low and high must be finite with low < high, got 2.0 and 1.0"),
        (lambda: RandomNodes(0), "count must be an integer >= 1, got 0"),
        (lambda: trapezoidal(1), "count must be an integer >= 2, got 1"),
        (lambda: own([0.0, 2.0], [0.5, 0.5]), r"nodes must lie in \[0, 1\], got 0 to 2"),
        (lambda: own([0.5, 0.5], [0.5, 0.5]), r"nodes must be a vector that ascends, got shape \(2,\)"),
        (lambda: own([0.1, math.nan], [0.5, 0.5]), "nodes must be a vector that ascends"),
        (lambda: own([0.1, 0.9], [1.0, 1.0]), "weights must sum to the length 1 of the interval, got 2"),
        (lambda: own([0.1, 0.9], [1.5, -0.5]), "weights must be positive.*got -0.5"),
        (lambda: own([0.1, 0.9], [math.nan, 0.5]), "weights must be positive.*got nan"),
        (lambda: own([0.1, 0.9], [1.0]), r"weights must have one entry for each of the 2 nodes, got \(1,\)"),
        (lambda: gauss_legendre(3).between(torch.tensor([0.5, 1.5])), r"times must lie in \[0, 1\], got 1.5"),
        (lambda: gauss_legendre(3).between(-0.1), r"times must lie in \[0, 1\], got -0.1"),
        (lambda: trapezoidal(3).between(math.nan), r"times must lie in \[0, 1\], got nan"),
        (lambda: gauss_legendre(3).at(torch.zeros(2, 4, 1), 0.5), r"values must be \(..., 3, d\).*got \(2, 4, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_integral_operator_is_a_double_loop(generator: torch.Generator) -> None:
    """Fredholm and Volterra, term by term."""
    rule = gauss_legendre(4, 0.0, 2.0)
    y = torch.randn(3, 4, 2, generator=generator, dtype=DOUBLE)
    kernel = lambda y, t, s: torch.sin(y * t) + s  # noqa: E731
    for volterra in (False, True):
        found = IntegralOperator(kernel, volterra=volterra, local=lambda y, t: t * y)(y, rule)
        W = rule.cumulative if volterra else rule.weights.expand(4, 4)
        for i, t in enumerate(rule.nodes):
            terms = [W[i, j] * (torch.sin(y[:, j] * t) + s) for j, s in enumerate(rule.nodes)]
            torch.testing.assert_close(found[:, i], torch.stack(terms).sum(0) + t * y[:, i])


@pytest.mark.parametrize("shape", ["one", "each", "matrix"])
def test_the_memory_operator_is_a_double_loop(shape: str, generator: torch.Generator) -> None:
    rule = gauss_legendre(4, 0.0, 2.0)
    y, M = (torch.randn(*size, generator=generator, dtype=DOUBLE) for size in ((3, 4, 2), (2, 2)))
    tail = {"one": torch.ones(1, dtype=DOUBLE), "each": M[0], "matrix": M}[shape]
    K = lambda t, s: torch.exp(s - t)[..., None] * tail if shape == "matrix" else torch.exp(s - t) * tail  # noqa: E731
    operator = MemoryOperator(lambda t, y: t + 0 * y, lambda t, y: y, K, torch.tanh)
    slope = torch.zeros_like(y)
    for i, t in enumerate(rule.nodes):
        memory = torch.zeros(3, 2, dtype=DOUBLE)
        for j, s in enumerate(rule.nodes):
            F = torch.tanh(y[:, j])
            memory += rule.cumulative[i, j] * torch.exp(s - t) * (F @ M.T if shape == "matrix" else F * tail)
        slope[:, i] = t + y[:, i] * memory
    torch.testing.assert_close(operator(y, rule), torch.einsum("ij,bjk->bik", rule.cumulative, slope))


def test_shapes_of_kernels_are_checked() -> None:
    rule, y = gauss_legendre(3), torch.zeros(2, 3, 1, dtype=DOUBLE)
    with pytest.raises(ValueError, match=r"kernel must give what broadcasts to \(2, 3, 3, 1\), got \(2, 1, 3, 5\)"):
        IntegralOperator(lambda y, t, s: y.expand(-1, -1, -1, 5))(y, rule)
    one = lambda t, y: torch.ones_like(y)  # noqa: E731
    with pytest.raises(ValueError, match=r"K must give one of the shapes .* got \(3, 3, 4\)"):
        MemoryOperator(one, one, lambda t, s: (t * s).expand(-1, -1, 4))(y, rule)
    with pytest.raises(ValueError, match=r"c and d must give the shape of y, \(2, 3, 1\), got \(2, 3, 4\)"):
        MemoryOperator(lambda t, y: y.expand(-1, -1, 4))(y, rule)
    with pytest.raises(ValueError, match="d and K must be given together"):
        MemoryOperator(one, one)
    assert joined(torch.zeros(2, 1, 3, 1), torch.zeros(4, 1, 1)).shape == (2, 4, 3, 2)
