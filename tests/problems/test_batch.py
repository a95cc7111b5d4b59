"""Batches: rows, splits, dtypes and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from settlepoint.problems import Batch
from settlepoint.problems.batch import joined


def batch(n: int = 10) -> Batch:
    c = torch.arange(float(n))
    return Batch(c[:, None].expand(n, 3).clone(), {"c": c, "A": torch.zeros(n, 2, 2), "k": torch.arange(n)}, c + 1)


@pytest.mark.parametrize(
    "index", [slice(2, 5), torch.tensor([2, 3, 4]), torch.arange(10).ge(2) & torch.arange(10).lt(5)], ids=str
)
def test_rows_take_everything_along(index: Any) -> None:
    part = batch().rows(index)
    assert len(part) == 3
    assert part.x0[:, 0].tolist() == part.parameters["c"].tolist() == [2.0, 3.0, 4.0]
    assert part.h is not None
    assert part.h.tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("index", [3, [1, 2], torch.tensor(1), torch.zeros(2, 2)], ids=str)
def test_rows_refuse_what_drops_a_dimension(index: Any) -> None:
    with pytest.raises(TypeError, match="index must be a vector of rows or a slice, got"):
        batch().rows(index)


def test_the_first_part_trains() -> None:
    train, test = Batch(torch.arange(500.0)[:, None]).split()
    assert (len(train), len(test)) == (350, 150)
    assert float(train.x0.max()) < float(test.x0.min())
    assert [len(part) for part in batch(2).split(0.5)] == [1, 1]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 0.01, float("nan")])
def test_both_parts_need_problems(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must leave problems on both sides of 10, got"):
        batch().split(fraction)


def test_floats_change_their_dtype_and_counts_do_not() -> None:
    single = batch().to(torch.float64).to(torch.float32)
    assert single.x0.dtype == single.parameters["A"].dtype == torch.float32
    assert single.h is not None
    assert single.h.dtype == torch.float32
    assert single.parameters["k"].dtype == torch.int64
    with pytest.raises(ValueError, match=r"dtype must be a floating one, got torch.int64"):
        batch().to(torch.int64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x0": torch.zeros(3)}, r"x0 must be a tensor of shape \(n, m\), got \(3,\)"),
        ({"x0": [[1.0]]}, r"x0 must be a tensor of shape \(n, m\), got list"),
        ({"parameters": {"c": torch.zeros(4)}}, r"parameter 'c' must be a tensor of 3 rows, got \(4,\)"),
        ({"parameters": {"c": torch.tensor(0.0)}}, r"parameter 'c' must be a tensor of 3 rows, got \(\)"),
        ({"parameters": {"c": 2.0}}, r"parameter 'c' must be a tensor of 3 rows, got float"),
        ({"h": torch.zeros(3, 1)}, r"h must be a tensor of shape \(3,\), got \(3, 1\)"),
        ({"h": 0.1}, r"h must be a tensor of shape \(3,\), got float"),
    ],
)
def test_refusals(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batch(**{"x0": torch.zeros(3, 2)} | given)


def test_joined_is_what_a_split_takes_apart() -> None:
    whole = batch()
    again = joined(*whole.split(0.3))
    assert torch.equal(again.x0, whole.x0)
    assert all(torch.equal(again.parameters[name], value) for name, value in whole.parameters.items())
    assert again.h is not None
    assert whole.h is not None
    assert torch.equal(again.h, whole.h)
    assert joined(Batch(torch.ones(1, 2)), Batch(torch.ones(2, 2))).h is None
