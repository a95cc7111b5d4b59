"""Spaces: the flat view and back, norms and Gram matrices. Oracle: the same sums written by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import Rows, Segments

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64, torch.complex128)


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.complex128 if dtype.is_complex else DOUBLE).to(dtype)


def parts(x) -> tuple[Tensor, ...]:
    return x if isinstance(x, tuple) else (x,)


# ---- flat view and back --------------------------------------------------------------------------------------------


@given(
    rows=st.integers(0, 4),
    trailing=st.lists(st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    several=st.booleans(),
)
def test_rows_round_trip(rows, trailing, dtype, several):
    """restore(flatten(x)) is x, for any shapes behind the rows, bit for bit."""
    x = tuple(random((rows, *t), dtype, i) for i, t in enumerate(trailing))
    x = x if several else x[0]
    if all(p.ndim < 2 for p in parts(x)):
        return  # no rows there: see test_states_without_rows
    layout = Rows().layout(x)
    z = layout.flatten(x)
    assert z.shape == (
        rows,
        sum(p[0].numel() if rows else p.shape[1:].numel() for p in parts(x)) * (1 + dtype.is_complex),
    )
    assert z.dtype == layout.working_dtype
    assert not z.dtype.is_complex
    assert all(torch.equal(a, b) for a, b in zip(parts(layout.restore(z)), parts(x), strict=True))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_states_without_rows(shape, dtype):
    """At most one dimension: one row."""
    x = random(shape, dtype)
    layout = Rows().layout(x)
    z = layout.flatten(x)
    assert len(z) == layout.rows == 1
    assert torch.equal(layout.restore(z), x)
    pair = (x, random((3,), dtype))
    assert torch.equal(Rows().layout(pair).restore(Rows().layout(pair).flatten(pair))[1], pair[1])


def test_a_matrix_is_its_own_flat_view():
    x = random((3, 4), DOUBLE)
    layout = Rows().layout(x)
    assert layout.identity
    assert layout.flatten(x) is x
    assert layout.restore(x) is x


def test_working_dtype_and_rounding_unit():
    single, double = torch.float32, torch.float64
    kinds = (torch.bfloat16, torch.float16, torch.complex64, torch.complex128, single, double)
    table = dict(zip(kinds, (single, single, single, double, single, double), strict=True))
    for dtype, working in table.items():
        layout = Rows().layout(torch.zeros(2, 2, dtype=dtype))
        assert layout.working_dtype == working
        assert layout.eps == torch.finfo(dtype).eps


def test_settle_rounds_to_what_the_state_can_hold():
    z = torch.tensor([[1.0 + 2**-12]])
    assert float(Rows().layout(torch.zeros(1, 1, dtype=torch.bfloat16)).settle(z)) == 1.0
    assert float(Rows().layout(torch.zeros(1, 1)).settle(z)) == 1.0 + 2**-12


def test_flatten_carries_gradients():
    x = (torch.ones(2, 3, requires_grad=True), torch.ones(2, requires_grad=True))
    layout = Rows().layout(x)
    (2 * layout.flatten(x)).sum().backward()
    assert torch.equal(x[1].grad, torch.full((2,), 2.0))


# ---- norms and Gram matrices ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(dtype=st.sampled_from([DOUBLE, torch.complex128]), several=st.booleans(), seed=st.integers(0, 99))
def test_norm_is_the_sum_of_squares(dtype, several, seed):
    x = (random((3, 2, 2), dtype, seed), random((3, 5), dtype, seed + 1))
    x = x if several else x[0]
    expected = sum(p.abs().square().reshape(3, -1).sum(1) for p in parts(x)).sqrt()
    layout = Rows().layout(x)
    assert torch.allclose(layout.norm(layout.flatten(x)), expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.complex128], ids=str)
def test_weights(dtype):
    """||x||^2 = sum_i w_i |x_i|^2: quadrature weights of a row, broadcast to its shape."""
    w = torch.tensor([0.5, 2.0, 3.0], dtype=DOUBLE)
    x = random((4, 2, 3), dtype)
    layout = Rows(w).layout(x)
    z = layout.flatten(x)
    assert torch.allclose(layout.norm(z), (w * x.abs().square()).sum((1, 2)).sqrt(), rtol=1e-14)
    gram = layout.gram(z[:, None], z[:, None])[:, 0, 0]
    assert torch.allclose(gram, layout.norm(z) ** 2, rtol=1e-14)


def test_weights_of_several_tensors():
    x = (random((2, 3), DOUBLE), random((2, 2), DOUBLE, 1))
    layout = Rows((torch.tensor(2.0), torch.tensor([1.0, 5.0]))).layout(x)
    expected = 2 * x[0].square().sum(1) + (torch.tensor([1.0, 5.0]) * x[1].square()).sum(1)
    assert torch.allclose(layout.norm(layout.flatten(x)) ** 2, expected, rtol=1e-14)


def test_gram_is_all_inner_products():
    u, v = random((2, 3, 4), DOUBLE), random((2, 5, 4), DOUBLE, 1)
    layout = Rows().layout(torch.zeros(2, 4, dtype=DOUBLE))
    assert torch.allclose(layout.gram(u, v), torch.einsum("rmw,rkw->rmk", u, v))


# ---- segments ------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    width=st.integers(0, 3),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
    several=st.booleans(),
)
def test_segments_round_trip(sizes, width, dtype, seed, several):
    """Entries in any order come back in place, and every row has the norm of its own entries."""
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))]
    x = random((len(index), width), dtype, seed)
    state = (x, random((len(index),), dtype, seed + 1)) if several else x
    layout = Segments(index, len(sizes)).layout(state)
    z = layout.flatten(state)
    assert len(z) == len(sizes)
    assert all(torch.equal(a, b) for a, b in zip(parts(layout.restore(z)), parts(state), strict=True))
    for row in range(len(sizes)):
        square = sum(float(p[index == row].to(torch.complex128).abs().square().sum()) for p in parts(state))
        assert float(layout.norm(z)[row]) ** 2 == pytest.approx(square, rel=1e-5, abs=1e-12)


def test_padding_is_zero():
    index = torch.tensor([1, 0, 1, 1])
    layout = Segments(index, 2).layout(torch.zeros(4, 1))
    z = layout.flatten(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert z.tolist() == [[2.0, 0.0, 0.0], [1.0, 3.0, 4.0]]


def test_more_than_eightfold_padding_is_refused():
    """One row of 16 and 15 rows of one: 256 places for 31 entries; with 7 rows it is within bounds."""
    index = lambda short: torch.cat((torch.zeros(16, dtype=torch.int64), torch.arange(1, short + 1)))  # noqa: E731
    Segments(index(7), 8)
    with pytest.raises(ValueError, match=r"at most 8 x padding, got 256 places for 31 entries \(the longest"):
        Segments(index(15), 16)


def test_gathered_segments_stay_as_wide():
    """The flat view of a selection has the width of the whole, so that histories still fit."""
    whole = Segments(torch.tensor([0, 1, 1, 1]), 2)
    layout = whole.layout(torch.zeros(4, 2))
    part = Segments(torch.tensor([0]), 1)
    assert part.relaid(layout).flatten(torch.ones(1, 2)).tolist() == [[1, 1, 0, 0, 0, 0]]


def test_empty_rows_and_no_entries():
    layout = Segments(torch.zeros(0, dtype=torch.int64), 3).layout(torch.zeros(0, 2))
    z = layout.flatten(torch.zeros(0, 2))
    assert z.shape == (3, 0)
    assert layout.restore(z).shape == (0, 2)
    assert layout.norm(z).tolist() == [0, 0, 0]


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Rows(torch.tensor([1.0, 0.0])), ValueError, "weights must be positive, got a smallest weight of 0"),
        (lambda: Rows(torch.tensor([-2.0])), ValueError, "smallest weight of -2"),
        (lambda: Rows(torch.ones(3)).layout(torch.zeros(2, 4)), ValueError, r"to one row, \(4,\), got \(3,\)"),
        (lambda: Rows((torch.ones(3),)).layout((torch.zeros(2, 3),) * 2), ValueError, "weights must hold 2 tensors"),
        (lambda: Rows().layout((torch.zeros(2, 3), torch.zeros(3, 2))), ValueError, r"number of rows, got \[\(2, 3\)"),
        (lambda: Rows().layout((torch.zeros(2, 3), torch.zeros(()))), ValueError, "same number of rows"),
        (lambda: Rows().layout((torch.zeros(2), torch.zeros(2, dtype=DOUBLE))), ValueError, "one dtype, got"),
        (lambda: Rows().layout(torch.zeros(2, dtype=torch.int64)), ValueError, "floating or complex .*int64"),
        (lambda: Rows().layout(torch.zeros(2, dtype=torch.bool)), ValueError, "got torch.bool"),
        (lambda: Rows().layout(()), TypeError, "tensor or a tuple of tensors, got tuple"),
        (lambda: Rows().layout([torch.zeros(2)]), TypeError, "got list"),
        (lambda: Rows().layout((torch.zeros(2), 3)), TypeError, "got tuple"),
        (lambda: Segments(torch.zeros(2, 2, dtype=torch.int64), 2), ValueError, r"vector of integers, got \(2, 2\)"),
        (lambda: Segments(torch.zeros(2), 2), ValueError, "vector of integers, got .* of torch.float32"),
        (lambda: Segments(torch.tensor([0, 2]), 2), ValueError, r"index must lie in \[0, 2\), got \[0, 2\]"),
        (lambda: Segments(torch.tensor([-1, 0]), 2), ValueError, r"got \[-1, 0\]"),
        (lambda: Segments(torch.tensor([0, 1]), 2).layout(torch.zeros(3, 1)), ValueError, r"2 leading .* got \(3, 1\)"),
        (lambda: Segments(torch.tensor([0, 1]), 2).layout(torch.zeros(())), ValueError, r"2 leading .* got \(\)"),
    ],
)  # fmt: skip
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_reprs():
    assert repr(Rows()) == "Rows()"
    assert repr(Rows(torch.tensor([2.0]))) == "Rows(weights=tensor([2.]))"
    assert repr(Segments(torch.tensor([0, 1, 1]), 2)) == "Segments(index=<3 entries>, count=2)"
