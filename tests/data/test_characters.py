"""Characters of the standard library: one number a character, parts that do not overlap, what is missing."""

from __future__ import annotations

import platform
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from settlepoint.data import DataError, characters
from settlepoint.data.characters import BLANK, HELD_OUT, TOKENS, TRAIN, VOCABULARY, encoded, windows, written


def test_the_text_is_that_of_the_modules() -> None:
    """Oracle: the file of the module, read directly."""
    data = characters(("shutil",), ("textwrap",))
    with open(textwrap.__file__, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    assert written(data.held_out) == "".join(c for c in text if c in VOCABULARY)
    assert data.version == platform.python_version()


def test_the_usual_split() -> None:
    data = characters()
    assert not set(TRAIN) & set(HELD_OUT)
    assert len(data.train) > 1_500_000
    assert len(data.held_out) > 100_000
    assert int(data.train.max()) < BLANK == TOKENS - 1
    assert torch.equal(characters().train, data.train)


@given(st.text(st.sampled_from(VOCABULARY), max_size=30))
def test_writing_undoes_encoding(text: str) -> None:
    assert written(encoded(text)) == text


def test_what_is_outside_the_vocabulary() -> None:
    assert written(encoded("naïve\tplan\n")) == "naveplan\n"
    assert written(torch.tensor([BLANK, 0])) == "␣\n"
    with pytest.raises(ValueError, match=r"tokens must lie in \[0, 97\), got 97"):
        written(torch.tensor([1, 97]))


def test_windows_are_parts_of_the_text(generator: torch.Generator) -> None:
    text = torch.arange(50)
    found = windows(text, 200, 10, generator)
    assert found.shape == (200, 10)
    assert bool((found.diff(dim=1) == 1).all())
    assert found[:, 0].unique().tolist() == list(range(41))
    assert torch.equal(windows(text, 1, 50, generator)[0], text)
    for length in (0, 51):
        with pytest.raises(ValueError, match=rf"length must lie in \[1, 50\], the length of the text, got {length}"):
            windows(text, 1, length, generator)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="held_out must not be trained on, got shutil in both"):
        characters(("shutil", "csv"), ("shutil",))
    for name in ("no_such_module_anywhere", "math", "sys"):
        with pytest.raises(DataError, match=rf"this Python \(3.*\) brings no source of the module '{name}'"):
            characters((name,), ("textwrap",))
