"""Contractions in Thomson's metric: what a degree of homogeneity proves, and what it does not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cells import DOUBLE
from tests.certify.equations import iterated
from torch import Tensor

from settlepoint import Equation, certify
from settlepoint.certify import Refused


def concave(generator: torch.Generator, rows: int = 4, width: int = 5) -> tuple[Equation, Tensor]:
    """x = sqrt(W x) + b with W, b >= 0: degree 1/2, whatever the size of W; and its fixed point."""
    W = 10 * torch.rand(width, width, dtype=DOUBLE, generator=generator)
    b = torch.rand(rows, width, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x, b: (x @ W.T).sqrt() + b, context=(b,))
    return eq, iterated(eq, torch.ones(rows, width, dtype=DOUBLE), 200)


@given(seed=st.integers(0, 10_000), far=st.floats(1e-12, 3))
def test_the_radius_covers_the_error(seed, far):
    """Relative errors, up to a factor e^3 in either direction."""
    generator = torch.Generator().manual_seed(seed)
    eq, fixed = concave(generator)
    x = fixed * (far * torch.randn(fixed.shape, dtype=DOUBLE, generator=generator)).exp()
    found = certify.thomson(eq, x, 0.5)
    assert found.counts() == {"proved": 4}
    assert bool(((x - fixed).norm(dim=1) <= found.radius).all())


@pytest.mark.parametrize("far", [1e-6, 0.1, 2.0])
@pytest.mark.parametrize("degree", [0.5, 0.9])
def test_the_radius_is_attained(degree, far):
    """x = x^degree from e^far: the distance to 1 is far, of which the first step covers 1 - degree."""
    x = torch.full((1, 1), math.exp(far), dtype=DOUBLE)
    found = certify.thomson(Equation(lambda x: x**degree), x, degree)
    error = float(x) - 1
    assert error <= float(found.radius) <= math.exp(far) * error * (1 + 1e-6)


def test_no_norm_of_the_weights_is_needed(generator):
    """||W||_2 about 25, and every other certificate of the whole space is refused."""
    eq, x = concave(generator)
    assert certify.thomson(eq, x, 0.5).counts() == {"proved": 4}
    assert certify.certificate(eq, x, "banach").counts() == {"refused": 4}
    assert bool((certify.subhomogeneity(eq, x) <= 0.5).all())


def test_the_metric_is_one_of_ratios():
    a = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=DOUBLE)
    assert torch.allclose(certify.thomson_distance(a, 5 * a), torch.full((2,), math.log(5), dtype=DOUBLE))
    assert torch.equal(certify.thomson_distance(a, a), torch.zeros(2, dtype=DOUBLE))


def test_a_positive_subhomogeneous_activation_is_not_enough():
    """s = tanh + 1.3 has |s'(z) z| <= .8 s(z), yet x = s(W x), W = [[a, -a], [-a, a]], has three positive fixed points:
    one on the diagonal, and two that mirror each other. The spec says: any W. |W| must enter, and then exceeds 1."""
    z = torch.linspace(-20, 20, 100_001, dtype=DOUBLE)
    s = z.tanh() + 1.3
    assert float(((1 - z.tanh() ** 2) * z / s).abs().max()) <= 0.8
    W = 3 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=DOUBLE)
    eq = Equation(lambda x: torch.tanh(x @ W.T) + 1.3)
    starts = torch.tensor([[2.3, 0.3], [0.3, 2.3], [1.3, 1.3]], dtype=DOUBLE)
    x = iterated(eq, starts, 200)
    assert float((iterated(eq, x, 1) - x).abs().max()) < 1e-12
    assert float((x[0] - x[1]).norm()) > 2
    assert bool((x > 0).all())
    with torch.no_grad():
        assert float(certify.subhomogeneity(eq, x).max()) > 1  # no degree below 1 could be given


def test_values_must_be_positive():
    eq = Equation(lambda x: x.clamp(min=0).sqrt() - 0.1)
    x = torch.tensor([[1.0], [0.0], [-1.0], [math.nan], [0.005]], dtype=DOUBLE)
    found = certify.thomson(eq, x, 0.5)
    assert found.kind == ("proved", "refused", "refused", "refused", "refused")
    assert "not positive" in found.reason[1]
    with pytest.raises(Refused, match="one of positive values"):
        certify.subhomogeneity(eq, x)


def test_a_degree_of_1_proves_nothing():
    found = certify.thomson(Equation(lambda x: 1.001 * x), torch.ones(2, 2, dtype=DOUBLE), 1.0)
    assert found.counts() == {"refused": 2}
    assert "the degree 1 is not below 1" in found.reason[0]


@pytest.mark.parametrize("degree", [-0.1, math.nan])
def test_degrees_are_not_negative(degree):
    with pytest.raises(ValueError, match="degree must be >= 0, got"):
        certify.thomson(Equation(torch.sqrt), torch.ones(1, 1), degree)


def test_rounding_near_0_is_counted():
    """An image of 1e-15 under a rounding of 1e-14 may be anything, negative too: no claim of a small radius."""
    eq = Equation(lambda x: torch.cat((x[:, :1] * 0 + 1, x[:, 1:] * 0 + 1e-15), 1))
    x = torch.tensor([[1.0, 1e-15]], dtype=DOUBLE)
    found = certify.thomson(eq, x, 0.5)
    assert found.counts() == {"refused": 1} or float(found.radius) > 1e-15
