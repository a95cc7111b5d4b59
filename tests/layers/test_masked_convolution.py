"""A masked convolution and what is built of it never see a pixel behind, by gradient."""

from __future__ import annotations

import pytest
import torch

from settlepoint.layers import MaskedConvolution
from settlepoint.models import PixelCNN


def seen(function, x: torch.Tensor, pixel: int) -> torch.Tensor:  # (H W,) bool
    """The pixels of which the output at a pixel, in reading order, has a derivative."""
    x = x.clone().requires_grad_()
    function(x).flatten(2)[:, :, pixel].square().sum().backward()
    assert x.grad is not None
    return (x.grad.flatten(2).abs().sum((0, 1)) > 0).flatten()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_no_pixel_behind_is_seen_and_every_one_before_in_reach(own: bool, size: int) -> None:
    layer = MaskedConvolution(2, 3, size, own=own).double()
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    for pixel in (0, 7, 14, 35):
        row, column, reach = pixel // 6, pixel % 6, size // 2
        wanted = [
            r * 6 + c < pixel + own and abs(r - row) <= reach and abs(c - column) <= reach
            for r in range(6)
            for c in range(6)
        ]
        assert seen(layer, x, pixel).tolist() == wanted


def test_an_unmasked_half_is_a_plain_convolution() -> None:
    """Oracle: torch's convolution with the weights behind set to zero."""
    layer = MaskedConvolution(2, 3, 3, own=True)
    x = torch.randn(4, 2, 5, 5)
    wanted = layer(x)
    with torch.no_grad():
        layer.convolution.weight[:, :, 1, 2] = 0.0
        layer.convolution.weight[:, :, 2] = 0.0
    assert torch.equal(layer.convolution(x), wanted)


@pytest.mark.parametrize("size", [0, 2, -1])
def test_sizes_that_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size must be odd and at least 1, got {size}"):
        MaskedConvolution(1, 1, size, own=True)


@pytest.mark.parametrize("pixel", [0, 1, 5, 12, 19])
def test_a_pixelcnn_is_autoregressive_by_gradient(pixel: int) -> None:
    model = PixelCNN((4, 5), 3, width=8, depth=2).double()
    with torch.no_grad():
        model.place.normal_()
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64)

    def logits(levels: torch.Tensor) -> torch.Tensor:
        h = model.first(levels) + model.place
        for block in model.blocks:
            h = h + block(h)
        return model.last(h)

    assert not bool(seen(logits, x, pixel)[pixel:].any())
    if pixel % 5:
        assert bool(seen(logits, x, pixel)[pixel - 1])


def test_a_pixelcnn_is_autoregressive_by_change(generator: torch.Generator) -> None:
    """Changing pixel i changes no logits of the pixels up to i, to the last bit."""
    model = PixelCNN((4, 4), 5, width=6)
    x = torch.randint(5, (3, 16), generator=generator)
    before = model(x)
    assert before.shape == (3, 16, 5)
    for pixel in range(16):
        other = x.clone()
        other[:, pixel] = (other[:, pixel] + 1) % 5
        after = model(other)
        assert torch.equal(after[:, : pixel + 1], before[:, : pixel + 1])
        assert pixel == 15 or not torch.equal(after[:, pixel + 1 :], before[:, pixel + 1 :])


def test_what_a_pixelcnn_refuses() -> None:
    with pytest.raises(ValueError, match=r"shape, levels and width must be at least 1, got \(4, 4\), 0 and 32"):
        PixelCNN((4, 4), 0)
    with pytest.raises(ValueError, match=r"x must be \(B, 16\), got \(2, 15\)"):
        PixelCNN((4, 4), 3)(torch.zeros(2, 15, dtype=torch.int64))
