"""Contractions entry by entry, and Volterra equations, whose constant does not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE
from tests.certify.equations import iterated, newton
from torch import Tensor

from settlepoint import Equation, certify

STEEP = torch.tensor([[0.1, 3.0], [0.05, 0.2]], dtype=DOUBLE)  # ||W||_2 > 3, row sums 3.1, root .54


def test_a_root_below_1_proves_what_no_norm_does():
    u = torch.tensor([[0.3, -1.0], [2.0, 0.0]], dtype=DOUBLE)
    eq = Equation(lambda x, u: torch.tanh(x @ STEEP.T + u), context=(u,))
    x = torch.zeros_like(u)
    assert certify.graph(eq, x).counts() == {"refused": 2}
    found = certify.perron(eq, x)
    assert found.counts() == {"proved": 2}
    assert float(found.rate[0]) == pytest.approx(float(np.abs(np.linalg.eigvals(STEEP.numpy())).max()), rel=1e-6)
    assert bool(((newton(eq, x) - x).norm(dim=1) <= found.radius).all())
    assert certify.certificate(eq, x).counts() == {"proved": 2}


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 6), root=st.floats(0.1, 0.95), far=st.floats(1e-12, 10))
def test_errors_are_covered_entry_by_entry(seed, width, root, far):
    """x = N sin(x) + u with signs on N: |x - x*| within the radius, wherever x is."""
    generator = torch.Generator().manual_seed(seed)
    N = torch.rand(width, width, dtype=DOUBLE, generator=generator) ** 4
    N = N * root / torch.linalg.eigvals(N).abs().max()
    signed = N * torch.randn(width, width, dtype=DOUBLE, generator=generator).sign()
    u = torch.randn(3, width, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: torch.sin(x) @ signed.T, u)
    fixed = iterated(eq, u, 700)  # .95^700 = 3e-16
    x = fixed + far * torch.randn(3, width, dtype=DOUBLE, generator=generator)
    for found in (certify.perron(eq, x), certify.perron(eq, x, table=N)):
        assert found.counts() == {"proved": 3}
        assert bool(((x - fixed).norm(dim=1) <= found.radius).all())


@pytest.mark.parametrize("N", [[[0.0, 4.0], [0.04, 0.0]], [[0.5, 3.0], [1e-6, 0.49]], [[0.5, 9.0], [0.0, 0.6]]])
def test_cyclic_and_nearly_triangular_tables_contract(N):
    """Roots .4, .5003 and .6, where power iteration on N itself swings, or is slow."""
    table = torch.tensor(N, dtype=DOUBLE)
    true = float(np.abs(np.linalg.eigvals(table.numpy())).max())
    assert true * (1 - 1e-9) <= certify.perron_bound(table)[0] <= 1.05 * true
    eq = Equation(lambda x: torch.tanh(x @ table.T) + 1)
    assert certify.perron(eq, torch.zeros(1, 2, dtype=DOUBLE)).counts() == {"proved": 1}


@pytest.mark.parametrize("constant", [1.0, 20.0, 60.0])
def test_triangular_tables_have_the_root_of_their_diagonal(constant):
    """N of a Volterra equation: far from normal, no power iteration comes near it."""
    N = constant / 80 * torch.ones(80, 80, dtype=DOUBLE).tril()
    root, v = certify.perron_bound(N)
    assert constant / 80 <= root <= 1.2 * constant / 80
    assert bool((N @ v <= root * v * (1 + 1e-12)).all())


def test_radii_stay_close_where_errors_grow_a_great_deal():
    """x = N x + 1 with N triangular, an amplification of 1e8: the radius is the error and what rounding may hide."""
    N = 20 / 80 * torch.ones(80, 80, dtype=DOUBLE).tril()
    fixed = torch.linalg.solve(torch.eye(80, dtype=DOUBLE) - N, torch.ones(80, 1, dtype=DOUBLE)).T
    x = fixed * (1 - 1e-3)
    found = certify.perron(Equation(lambda x: x @ N.T + 1), x, table=N)
    away = float((x - fixed).norm())
    assert float(fixed.max()) > 1e8
    assert away <= float(found.radius) <= 3 * away


def test_the_table_follows_pieces():
    """Slices, sums, scales and batch norms: |J| by hand."""
    W = torch.tensor([[0.2, -0.1], [0.0, 0.3]], dtype=DOUBLE)
    norm = torch.nn.BatchNorm1d(2).double().eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0]))
    eq = Equation(lambda x: norm(torch.tanh(x @ W.T)) - 0.1 * x + x[:, [1, 0]] * 0.05)
    x = torch.zeros(1, 2, dtype=DOUBLE)
    table = certify.traced(eq, x).bound.table
    hand = (
        torch.tensor([[1.0], [2.0]], dtype=DOUBLE) / math.sqrt(1 + 1e-5) * W.abs()
        + 0.1 * torch.eye(2, dtype=DOUBLE)
        + 0.05 * torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=DOUBLE)
    )
    assert table is not None
    assert bool((table >= hand).all())
    assert torch.allclose(table, hand, rtol=1e-9)


def test_without_a_table_there_is_a_reason():
    found = certify.perron(Equation(lambda x: 0.5 * torch.tanh(x)), torch.zeros(2, 2, 2, dtype=DOUBLE))
    assert found.counts() == {"refused": 2}
    assert "no table of absolute weights: for states of one dimension a row" in found.reason[0]
    found = certify.perron(Equation(torch.tanh), torch.zeros(2, 2, dtype=DOUBLE))
    assert "the Perron root of the absolute weights is 1, not below 1" in found.reason[0]


@pytest.mark.parametrize(
    "table", [torch.eye(3), -torch.eye(2), torch.full((2, 2), math.nan), torch.ones(2)], ids=["3", "-", "nan", "1-d"]
)
def test_tables_are_nonnegative_and_fit(table):
    with pytest.raises(ValueError, match="table must be a nonnegative matrix of 2 rows and columns"):
        certify.perron(Equation(torch.tanh), torch.zeros(1, 2), table)


# ---- Volterra ------------------------------------------------------------------------------------------------------


def trapezoidal(t: Tensor) -> Tensor:
    """Weights of the cumulative trapezoidal rule. Oracle: scipy.integrate.cumulative_trapezoid of unit vectors."""
    from scipy.integrate import cumulative_trapezoid

    return torch.from_numpy(cumulative_trapezoid(np.eye(len(t)), t.numpy(), axis=1, initial=0)).T.contiguous()


def volterra(L: float, t: Tensor, lam: float = 1.0, rows: int = 2) -> tuple[Equation, Tensor]:
    """x(t) = lam int_0^t L sin(x) ds + 1, and its solution by 400 steps of Picard."""
    q = trapezoidal(t)
    eq = Equation(lambda x: L * torch.sin(x) @ q.T, torch.ones(rows, len(t), dtype=DOUBLE), lam)
    return eq, iterated(eq, torch.ones(rows, len(t), dtype=DOUBLE), 400)


@pytest.mark.parametrize("L", [0.5, 5.0, 12.0])
@pytest.mark.parametrize("far", [1e-10, 1e-3, 1.0])
def test_the_constant_of_a_volterra_equation_does_not_matter(L, far, generator):
    """L T = 12: no contraction in the sup norm, unique all the same."""
    t = torch.linspace(0, 1, 60, dtype=DOUBLE)
    eq, fixed = volterra(L, t)
    x = fixed + far * torch.randn(fixed.shape, dtype=DOUBLE, generator=generator)
    found = certify.bielecki(eq, x, t, L)
    assert found.counts() == {"proved": 2}
    assert bool(((x - fixed).norm(dim=1) <= found.radius).all())
    if L > 1:
        assert certify.graph(eq, x).counts() == {"refused": 2}


@pytest.mark.parametrize("lam", [2.5, -2.5, 0.3])
def test_lam_counts(lam):
    """The kernel has the constant L, P has |lam| L. Linear, so that the bound is attained: x = lam q x + 1."""
    t = torch.linspace(0, 1, 5, dtype=DOUBLE)
    q = trapezoidal(t)
    one = torch.ones(1, 5, dtype=DOUBLE)
    eq = Equation(lambda x: x @ q.T, one, lam)
    fixed = torch.linalg.solve(torch.eye(5, dtype=DOUBLE) - lam * q, one[0])[None]
    x = fixed + torch.linalg.solve(torch.eye(5, dtype=DOUBLE) - abs(lam) * q, one[0])[None]
    found = certify.bielecki(eq, x, t, 1.0)
    assert found.counts() == {"proved": 1}
    assert float((x - fixed).norm()) <= float(found.radius)


def test_coarse_grids_are_refused():
    t = torch.linspace(0, 1, 4, dtype=DOUBLE)
    eq, x = volterra(1.0, t)
    found = certify.bielecki(eq, x, t, 7.0)
    assert found.counts() == {"refused": 2}
    assert "take a finer grid" in found.reason[0]


def test_a_row_that_is_not_finite_leaves_the_others_alone():
    t = torch.linspace(0, 1, 10, dtype=DOUBLE)
    eq, x = volterra(1.0, t, rows=3)
    x[1, 4] = math.nan
    found = certify.bielecki(eq, x, t, 1.0)
    assert found.kind == ("proved", "refused", "proved")
    assert "not finite" in found.reason[1]


@pytest.mark.parametrize(
    ("times", "bound", "message"),
    [
        ([0.0, 0.0, 1.0], 1.0, "times must be a vector that ascends"),
        ([[0.0, 1.0, 2.0]], 1.0, "times must be a vector that ascends"),
        ([0.0, 1.0], 1.0, "times must have one entry for each of the 3 values, got 2"),
        ([0.0, 1.0, 2.0], -1.0, "bound must be >= 0, got -1"),
        ([0.0, 1.0, 2.0], math.nan, "bound must be >= 0, got nan"),
    ],
)
def test_arguments_are_named(times, bound, message):
    with pytest.raises(ValueError, match=message):
        certify.bielecki(Equation(torch.tanh), torch.zeros(1, 3), torch.tensor(times), bound)
