"""The noise of Table 5: how many entries, which value, what can be undone, and bad input."""

from __future__ import annotations

import math

import pytest
import torch

from settlepoint.data.noise import drop_in, flipped, row_normalised


def bits(gen: torch.Generator) -> torch.Tensor:
    return (torch.rand(13, 11, generator=gen) < 0.3).float()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_drop_in_raises_its_share_by_one(share: float, generator: torch.Generator) -> None:
    clean = row_normalised(bits(generator))
    noisy = drop_in(clean, share, generator)
    raised = noisy - clean
    assert int((raised > 0.5).sum()) == math.floor(share * clean.numel())
    torch.testing.assert_close(raised[raised > 0.5], torch.ones(int((raised > 0.5).sum())))


def test_drop_in_can_be_undone(generator: torch.Generator) -> None:
    """The known weakness: below 1 the fraction is the clean feature."""
    clean = 0.5 * row_normalised(bits(generator)).double()
    torch.testing.assert_close(drop_in(clean, 0.5, generator).frac(), clean, atol=1e-12, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flips_turn_their_share_over(share: float, generator: torch.Generator) -> None:
    clean = bits(generator)
    noisy = flipped(clean, share, generator)
    turned = (noisy > 0) != (clean > 0)
    assert int(turned.sum()) == math.floor(share * clean.numel())
    sums = noisy.sum(1)
    torch.testing.assert_close(sums[sums > 0], torch.ones(int((sums > 0).sum())))


def test_noise_follows_its_generator(generator: torch.Generator) -> None:
    clean = bits(generator)
    first, second, other = (drop_in(clean, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_rows_without_words_stay() -> None:
    assert torch.equal(row_normalised(torch.tensor([[0.0, 0.0], [1.0, 3.0]])), torch.tensor([[0.0, 0.0], [0.25, 0.75]]))


def test_bad_noise_is_refused(generator: torch.Generator) -> None:
    clean = bits(generator)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
            drop_in(clean, share)
    with pytest.raises(ValueError, match="x must be a dense matrix"):
        drop_in(clean.to_sparse(), 0.5)
    with pytest.raises(ValueError, match="bits must be 0 or 1"):
        flipped(row_normalised(clean), 0.5)
