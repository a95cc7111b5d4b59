"""Blocks: weights from a generator, the projection onto a spectral ball, the cell that it makes a contraction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from settlepoint.layers import TanhCell, clipped, linear


def test_weights_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = (linear(5, 3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert torch.equal(torch.get_rng_state(), before)


def test_linear_has_the_distribution_of_torch(generator: torch.Generator) -> None:
    layer = linear(400, 300, generator=generator)
    assert layer.weight.abs().max() <= 1 / 20
    assert layer.weight.detach().std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)  # 120,000 draws


def test_linear_without_bias_and_without_inputs() -> None:
    with pytest.raises(ValueError, match="inputs must be at least 1, got 0"):
        linear(0, 2)
    assert linear(2, 2, bias=False, dtype=torch.float64).bias is None


@given(seed=st.integers(0, 1000), bound=st.floats(0.1, 3.0), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_clipped_is_the_nearest_matrix_of_that_norm(seed: int, bound: float, rows: int, columns: int) -> None:
    """Against the variational inequality of a projection: <W - P, Q - P> <= 0 for all Q in the ball."""
    gen = torch.Generator().manual_seed(seed)
    weight, other = torch.randn(2, rows, columns, generator=gen, dtype=torch.float64)
    found = clipped(weight, bound)
    inside = clipped(other, bound)
    assert torch.linalg.matrix_norm(found, 2) <= bound * (1 + 1e-12)
    assert ((weight - found) * (inside - found)).sum() <= 1e-10


def test_clipped_leaves_what_fits_bit_for_bit(generator: torch.Generator) -> None:
    weight = torch.randn(4, 4, generator=generator) / 10
    assert torch.equal(clipped(weight, 5.0), weight)


@pytest.mark.parametrize(
    ("weight", "bound", "message"),
    [(torch.ones(3), 1.0, r"matrix, got \(3,\)"), (torch.eye(2), 0.0, "positive, got 0")],
)
def test_clipped_refuses(weight: torch.Tensor, bound: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clipped(weight, bound)


@pytest.mark.parametrize(("width", "gain", "message"), [(0, 0.5, "width.*got 0"), (3, 0.0, "gain.*got 0")])
def test_the_cell_refuses(width: int, gain: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TanhCell(width, gain=gain)


def test_a_projected_cell_contracts(generator: torch.Generator) -> None:
    cell = TanhCell(6, gain=4.0, generator=generator, dtype=torch.float64)
    cell.project_(0.9)
    a, b, u = torch.randn(3, 50, 6, generator=generator, dtype=torch.float64)
    moved, apart = (cell(a, u) - cell(b, u)).norm(dim=1), (a - b).norm(dim=1)
    assert (moved <= 0.9 * apart + 1e-12).all()
    assert "width=6" in repr(cell)
