"""The digits as images for autoencoders and scores: starts, nearest classes, principal components, distinct points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from settlepoint import Solution
from settlepoint.data import digits
from settlepoint.data.pixel_dropout import dropped
from settlepoint.runs import generator_from
from settlepoint.training.frechet import Principal

SIDE = 8


@dataclass(frozen=True, eq=False)
class DigitImages:
    """Flat images in [0, 1], (N, 64), float64; y: their digits. features: for Frechet distances, FD-PCA."""

    train: Tensor
    train_y: Tensor
    test: Tensor
    test_y: Tensor
    features: Principal

    def class_of(self, x: Tensor) -> Tensor:  # (B, 64) -> (B,)
        """The digit of the nearest training image."""
        return self.train_y[torch.cdist(x, self.train).argmin(1)]

    def agreement(self, x: Tensor, y: Tensor) -> float:
        """Share of rows, in per cent, whose nearest training image is of digit y."""
        return 100.0 * float((self.class_of(x) == y).double().mean())

    def nearest(self, x: Tensor) -> float:
        """Median distance to the nearest training image."""
        return float(torch.cdist(x, self.train).amin(1).median())


@lru_cache(maxsize=2)
def digit_images(test: int, device: str = "cpu", components: int = 32) -> DigitImages:
    """The training images and the first `test` of the others. Raises ValueError for more than there are."""
    data = digits(torch.float64)
    if not 2 <= test <= len(data.test_x):
        raise ValueError(f"test must lie in [2, {len(data.test_x)}], the test images that there are, got {test}")
    train, x, y = data.train_x.to(device), data.test_x[:test].to(device), data.test_y[:test].to(device)
    return DigitImages(train, data.train_y.to(device), x, y, Principal(train, components))


def starts(data: DigitImages, noise: float, kept: float) -> dict[str, Tensor]:
    """What iterations start from: digits, noisy, dropped (unseen pixels 0), noise (uniform); the same for all cells."""
    draw, x = generator_from("digit images", "starts"), data.test
    normal = torch.randn(x.shape, generator=draw, dtype=x.dtype).to(x)
    hidden = dropped(x.cpu().reshape(-1, 1, SIDE, SIDE), draw, kept=kept)[:, 0].flatten(1).to(x)
    uniform = torch.rand(x.shape, generator=draw, dtype=x.dtype).to(x)
    return {"digits": x, "noisy": x + noise * normal, "dropped": hidden, "noise": uniform}


def distinct(x: Tensor, apart: float) -> int:
    """The number of groups of rows of which any two are joined by steps shorter than `apart`.

    >>> distinct(torch.tensor([[0.0], [0.1], [0.2], [1.0]]), 0.15)
    2
    """
    if not len(x):
        return 0
    return int(connected_components((torch.cdist(x, x) < apart).cpu().numpy(), directed=False)[0])


class Projection(nn.Module):
    """x -> m + V V^T (x - m) onto the leading principal components: iterating it changes nothing after one step."""

    mean: Tensor
    axes: Tensor

    def __init__(self, images: Tensor, count: int):
        super().__init__()
        found = Principal(images, count) if count else None
        self.register_buffer("mean", images.mean(0))
        self.register_buffer("axes", images.new_zeros(images.shape[1], 0) if found is None else found.axes)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + (x - self.mean) @ self.axes @ self.axes.T


def mean_square(x: Tensor, y: Tensor) -> float:
    """Mean over rows and pixels of (x - y)^2."""
    return float((x - y).square().mean())


def arrived(found: Solution) -> Tensor:
    """The values of the rows that converged."""
    assert isinstance(found.value, Tensor)
    return found.value[found.converged]


def share_settled(found: Solution) -> float:
    """Share of the rows, in per cent, that converged."""
    return 100.0 * float(found.converged.double().mean())
