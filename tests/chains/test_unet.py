"""The U-Net: the paper's blocks, shapes, and refusals."""

from __future__ import annotations

import sys

import pytest
import torch

from settlepoint.chains import unet


def test_a_small_one_gives_noise_like_its_images() -> None:
    net = unet(8, 3, (8, 16), layers=1, down=(2,), up=(1,))
    x = torch.randn(2, 3, 8, 8)
    assert net(x, torch.tensor([0, 5])).shape == x.shape
    assert not torch.equal(net(x, torch.tensor([0, 5])), net(x, torch.tensor([9, 5])))


def test_the_defaults_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        config = unet(64, 3).net.config
    assert tuple(config.block_out_channels) == (128, 128, 256, 256, 512, 512)
    assert config.layers_per_block == 2
    assert [k for k, name in enumerate(config.down_block_types, 1) if name.startswith("Attn")] == [5]
    assert [k for k, name in enumerate(config.up_block_types, 1) if name.startswith("Attn")] == [2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: unet(9, 1, (8, 16)), "size must be a multiple of 2 for 2 blocks, got 9"),
        (lambda: unet(8, 1, (8, 16), down=(3,)), r"down must name blocks from 1 to 2, got \(3,\)"),
        (lambda: unet(8, 1, (8, 16), down=(), up=(0,)), r"up must name blocks from 1 to 2, got \(0,\)"),
    ],
)
def test_what_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r'pip install "settlepoint\[chains\]"'):
        unet(8, 1, (8, 16), down=(), up=())
