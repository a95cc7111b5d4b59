"""PixelCNN: the distribution of an image as a product over its pixels, in reading order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.masked_convolution import MaskedConvolution


class PixelCNN(nn.Module):
    """log p(x) = sum_i log p(x_i | x_<i), the logits of all i by one evaluation    (van den Oord et al. 2016)

    x: (B, H W) int64, grey levels 0, ..., levels - 1 row by row -> logits (B, H W, levels), where pixel i's depend on
    the pixels before it. Levels enter one-hot through a 7 x 7 convolution that leaves out the pixel itself, a learned
    number is added to every feature at every place, and `depth` residual blocks of 3 x 3 follow.

    Raises ValueError for sizes below 1, an x of another length, and levels outside the range.
    """

    def __init__(self, shape: tuple[int, int], levels: int, width: int = 32, depth: int = 3):
        super().__init__()
        if min(*shape, levels, width, depth + 1) < 1:
            raise ValueError(f"shape, levels and width must be at least 1, got {shape}, {levels} and {width}")
        self.shape, self.levels = shape, levels
        self.first = MaskedConvolution(levels, width, 7, own=False)
        self.place = nn.Parameter(torch.zeros(width, *shape))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, levels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.shape[0] * self.shape[1]:
            raise ValueError(f"x must be (B, {self.shape[0] * self.shape[1]}), got {tuple(x.shape)}")
        seen = nn.functional.one_hot(x, self.levels).to(self.place.dtype)
        h = self.first(seen.transpose(1, 2).unflatten(2, self.shape)) + self.place
        for block in self.blocks:
            h = h + block(h)
        return self.last(h).flatten(2).transpose(1, 2)


class _Block(nn.Sequential):
    """A residual branch, half as wide inside."""

    def __init__(self, width: int):
        half = -(-width // 2)
        super().__init__(
            nn.ReLU(), nn.Conv2d(width, half, 1), nn.ReLU(), MaskedConvolution(half, half, 3, own=True),
            nn.ReLU(), nn.Conv2d(half, width, 1),
        )  # fmt: skip
