"""unet: diffusers' U-Net as a function of (x, t) that gives the noise, in the paper's sizes or smaller ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

from torch import Tensor, nn


class UNet(nn.Module):
    """epsilon(x, t): (B, C, H, W) and (B,) to (B, C, H, W), by a diffusers UNet2DModel `net`."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, t, return_dict=False)[0]


def unet(
    size: int,
    channels: int,
    widths: Sequence[int] = (128, 128, 256, 256, 512, 512),
    *,
    layers: int = 2,
    down: Sequence[int] = (5,),
    up: Sequence[int] = (2,),
) -> UNet:
    """A U-Net for images (channels, size, size); the defaults are the paper's.

    widths: one block each, half as many points a side from one to the next. layers: residual layers a block. down, up:
    which blocks on the way down and up attend, counted from 1.

    Raises ValueError for sizes that do not halve that often and blocks that there are not, ImportError, naming the
    extra, without diffusers.
    """
    if size % 2 ** (len(widths) - 1):
        raise ValueError(f"size must be a multiple of {2 ** (len(widths) - 1)} for {len(widths)} blocks, got {size}")
    for name, places in (("down", down), ("up", up)):
        if any(not 1 <= place <= len(widths) for place in places):
            raise ValueError(f"{name} must name blocks from 1 to {len(widths)}, got {tuple(places)}")
    blocks = range(1, len(widths) + 1)
    net = _diffusers().UNet2DModel(
        sample_size=size, in_channels=channels, out_channels=channels, layers_per_block=layers,
        block_out_channels=tuple(widths), norm_num_groups=math.gcd(32, *widths),
        down_block_types=tuple("AttnDownBlock2D" if k in down else "DownBlock2D" for k in blocks),
        up_block_types=tuple("AttnUpBlock2D" if k in up else "UpBlock2D" for k in blocks),
    )  # fmt: skip
    return UNet(net)


def _diffusers() -> ModuleType:
    try:
        import diffusers
    except ImportError:
        raise ImportError('a U-Net needs diffusers: pip install "settlepoint[chains]"') from None
    return diffusers
