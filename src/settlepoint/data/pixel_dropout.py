"""Images of which most pixels are dropped, and the mean of the neighbours as the least that a model must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dropped(images: Tensor, generator: torch.Generator, *, kept: float = 0.25, block: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, C + 1, H, W): the images with dropped pixels 0 in all channels, and the mask, 1 where kept

    kept: chance of a pixel, or of a block x block square of pixels, to stay. The mask is drawn on generator's device.

    Raises ValueError for a chance outside (0, 1] and a block that does not divide the images.
    """
    rows, _, height, width = images.shape
    if not 0 < kept <= 1:
        raise ValueError(f"kept must lie in (0, 1], got {kept}")
    if block < 1 or height % block or width % block:
        raise ValueError(f"block must divide {height} and {width}, got {block}")
    size = (rows, 1, height // block, width // block)
    mask = (torch.rand(size, generator=generator, device=generator.device) < kept).to(images)
    mask = mask.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return torch.cat((images * mask, mask), 1)


def painted(u: Tensor, box: int = 5) -> Tensor:  # (B, C + 1, H, W) -> (B, C, H, W)
    """Each dropped pixel as the mean of those kept in the box around it, 0 where there is none; u is from `dropped`."""
    if box < 1 or not box % 2:
        raise ValueError(f"box must be odd and at least 1, got {box}")
    x, mask = u[:, :-1], u[:, -1:]
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("u must end in a mask of zeros and ones, see dropped")
    mean = lambda t: nn.functional.avg_pool2d(t, box, 1, box // 2)  # noqa: E731
    return torch.where(mask > 0, x, mean(x) / mean(mask).clamp(min=1 / box**2))
