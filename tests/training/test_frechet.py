"""The Frechet distance against SciPy's matrix root and closed cases; principal components against an SVD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from settlepoint.training.frechet import Principal, frechet


def drawn(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mix + seed


def test_against_the_matrix_root_of_scipy() -> None:
    a, b = drawn(40, 5), drawn(60, 5, 1)
    first, second = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(a, b) == pytest.approx(float(wanted), rel=1e-8)


def test_of_a_set_with_itself_and_with_itself_moved() -> None:
    a = drawn(30, 4)
    assert frechet(a, a) == pytest.approx(0.0, abs=1e-8)
    assert frechet(a, a + torch.tensor([3.0, 4.0, 0.0, 0.0], dtype=torch.float64)) == pytest.approx(25.0, rel=1e-8)


def test_on_one_feature_it_is_the_difference_of_means_and_of_deviations() -> None:
    a, b = drawn(30, 1), 3 * drawn(30, 1) + 2
    wanted = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert frechet(a, b) == pytest.approx(float(wanted), rel=1e-8)


def test_fewer_rows_than_features() -> None:
    assert frechet(drawn(3, 6), drawn(4, 6, 1)) > 0


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (torch.zeros(1, 3), torch.zeros(4, 3), "a must be at least two rows"),
        (torch.zeros(4, 3), torch.full((4, 3), torch.nan), "b must be at least two rows of finite features"),
        (torch.zeros(4, 3), torch.zeros(4, 2), "b must have the 3 features of a, got 2"),
    ],
)
def test_what_is_refused(a: torch.Tensor, b: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        frechet(a, b)


@pytest.mark.parametrize("rows", [20, 7])
def test_principal_components_are_those_of_an_svd(rows: int) -> None:
    images = drawn(rows, 12).view(rows, 3, 2, 2)
    found = Principal(images, 3)(images)
    flat = images.flatten(1) - images.flatten(1).mean(0)
    sizes = torch.linalg.svdvals(flat)[:3]
    assert torch.allclose(found.norm(dim=0), sizes, rtol=1e-8)


def test_more_components_than_there_are() -> None:
    images = drawn(20, 12).view(20, 3, 2, 2)
    with pytest.raises(ValueError, match=r"count must lie in \[1, 12\], got 13"):
        Principal(images, 13)
