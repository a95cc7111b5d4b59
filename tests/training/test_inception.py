"""FID through torchmetrics, against our Frechet distance on the same features; Inception's weights are the user's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from settlepoint.training.frechet import frechet
from settlepoint.training.inception import fid, inception


class Corner(torch.nn.Module):
    """Six pixels of a picture as features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.uint8
        return x.float().flatten(1)[:, :6]


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return 2.2 * torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) - 1.1


def test_is_the_frechet_distance_of_the_features_of_256_levels() -> None:
    a, b = pictures(50), 0.8 * pictures(40, 1)
    levels = lambda x: Corner()(((x.clamp(-1, 1) + 1) * 127.5).round().byte())  # noqa: E731
    assert fid(a, b, Corner(), batch=7) == pytest.approx(frechet(levels(a), levels(b)), rel=1e-5)  # float32 at the end


@pytest.mark.parametrize("x", [pictures(1), pictures(4)[:, :1], pictures(4)[0], torch.full((2, 3, 4, 5), float("nan"))])
def test_refuses_what_are_no_pictures(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="real must be at least two finite pictures"):
        fid(pictures(4), x, Corner())


def test_says_which_weights_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="weights must be a file"):
        inception(tmp_path / "inception.pth")


@pytest.mark.skipif(find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "inception.pth").write_bytes(b"")
    with pytest.raises(ImportError, match=r"settlepoint\[fid\]"):
        inception(tmp_path / "inception.pth")
