"""Patches: what lies in a token, shifts on a torus, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from settlepoint.layers import Patches


def test_a_token_holds_its_patch_channel_by_channel() -> None:
    field = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)
    tokens = Patches((4, 6), (2, 3))(field)
    assert torch.equal(tokens[0, 1], torch.cat((field[0, 0, :2, 3:].flatten(), field[0, 1, :2, 3:].flatten())))
    assert torch.equal(tokens[0, 2], torch.cat((field[0, 0, 2:, :3].flatten(), field[0, 1, 2:, :3].flatten())))


@given(
    counts=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3), channels=st.integers(1, 3)
)
def test_joined_undoes_the_cut_on_any_number_of_axes(counts: list[tuple[int, int]], channels: int) -> None:
    cut = Patches([count * size for count, size in counts], [size for _, size in counts])
    field = torch.randn(2, channels, *cut.grid)
    assert cut(field).shape == (2, cut.tokens, channels * cut.points)
    assert torch.equal(cut.joined(cut(field)), field)


def test_shifted_patches_hold_the_field_moved_along_the_diagonals() -> None:
    cut, plain = Patches((4, 4), (2, 2), shifted=True), Patches((4, 4), (2, 2))
    field = torch.randn(1, 1, 4, 4)
    tokens = cut(field)
    assert tokens.shape == (1, 4, 5 * 4)
    assert torch.equal(tokens[..., :4], plain(field))
    moved = [field.roll((a, b), (2, 3)) for a, b in ((-1, -1), (-1, 1), (1, -1), (1, 1))]
    assert torch.equal(tokens[..., 4:], torch.cat([plain(m) for m in moved], -1))


@pytest.mark.parametrize(
    ("grid", "patch", "words"),
    [
        ((4, 6), (2, 4), r"patch must divide the grid \(4, 6\), got \(2, 4\)"),
        ((4, 6), (2,), r"patch must have one size >= 1 for each axis"),
        ((4, 6), (2, 0), r"patch must have one size >= 1 for each axis"),
    ],
)
def test_patches_that_do_not_fit(grid: tuple[int, ...], patch: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Patches(grid, patch)


def test_a_field_of_another_grid() -> None:
    with pytest.raises(ValueError, match=r"field must be \(B, C, 4, 6\), got \(1, 4, 6\)"):
        Patches((4, 6), (2, 3))(torch.zeros(1, 4, 6))
