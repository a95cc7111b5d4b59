"""MaskedConvolution: a convolution that sees what comes before a pixel in reading order."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MaskedConvolution(nn.Module):
    """y = (W * M) x + b, M = 0 on the pixels behind the middle one, row by row    (van den Oord et al. 2016)

    (B, inputs, H, W) -> (B, outputs, H, W), of the same size by zeros around. own: M is 1 on the middle pixel (their
    mask B), for all layers but the first, where it must not be (mask A), so that a pixel never sees itself. Stacked,
    they leave out some pixels above and to the right (the blind spot); none behind is ever seen.

    Raises ValueError for a size that is not odd.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, *, own: bool):
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size must be odd and at least 1, got {size}")
        self.convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        middle = size * size // 2
        mask = torch.zeros(size * size)
        mask[: middle + own] = 1.0
        self.register_buffer("mask", mask.view(size, size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        held = self.convolution
        return nn.functional.conv2d(x, held.weight * self.mask, held.bias, padding=held.padding)
