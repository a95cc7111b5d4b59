"""Records survive a trip through JSON, and what has no place in one is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from settlepoint.runs import Record, generator_from, plain, seed_from, seeded

numbers = st.floats() | st.integers(-(2**53), 2**53)
curves = st.fixed_dictionaries({"x": st.lists(numbers), "y": st.lists(numbers), "group": st.just("Picard")})


@given(
    cell=st.text(),
    metrics=st.dictionaries(st.text(), numbers),
    found=st.dictionaries(st.text(), curves),
    error=st.none() | st.text(),
)
def test_a_line_reads_back_as_the_record(cell: str, metrics: dict, found: dict, error: str | None) -> None:
    record = Record(cell, 3, metrics, found, ["note"], error, cpu_seconds=1.5, wall_seconds=2.0)
    line = record.to_line()
    assert "\n" not in line
    assert str(Record.from_line(line)) == str(Record.from_line(Record.from_line(line).to_line()))
    for name, value in Record.from_line(line).metrics.items():
        assert value == metrics[name] or math.isnan(metrics[name])


def test_lines_are_strict_json() -> None:
    line = Record("a", 0, {"x": math.nan, "y": -math.inf}).to_line()
    assert json.loads(line, parse_constant=pytest.fail)["metrics"] == {"x": "nan", "y": "-inf"}


def test_numbers_of_numpy_and_torch_become_plain() -> None:
    values = [np.float32(0.5), np.int64(2), torch.tensor(3.0), np.array([1.0, 2.0]), True, None]
    assert plain(values) == [0.5, 2, 3.0, [1.0, 2.0], True, None]


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="got set"):
        plain({"x": {1, 2}})


@pytest.mark.parametrize("line", ["", "{", "[]", '{"cell": "a"}', "null"])
def test_what_is_no_record_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_line(line)


def test_seeds_come_from_names_alone() -> None:
    assert seed_from("a", 1) == seed_from("a", 1)
    assert len({seed_from("a", 1), seed_from("a", 2), seed_from("b", 1), seed_from("a1")}) == 4
    assert 0 <= seed_from("a") < 2**63
    assert torch.equal(torch.rand(3, generator=generator_from("g")), torch.rand(3, generator=generator_from("g")))


def test_seeded_gives_the_global_generator_back() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded("x"):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)
