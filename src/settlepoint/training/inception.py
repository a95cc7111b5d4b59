"""FID: the Frechet distance on the features of Inception, whose weights the user gives."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def inception(weights: str | Path) -> nn.Module:
    """The network of FID (2,048 features of uint8 images) from a file of weights, by torchmetrics and torch-fidelity.

    weights: `weights-inception-2015-12-05-6726825d.pth` as torch-fidelity publishes it; read as tensors alone, nothing
    else in it is unpickled. Raises FileNotFoundError for a file that is not there, and ImportError, saying what to
    install, without the two packages; torch-fidelity needs torchvision.
    """
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"weights must be a file of Inception's weights, got {path}, which is none")
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    except ImportError as error:
        raise ImportError("FID needs Inception: pip install settlepoint[fid] torchvision") from error


@torch.no_grad()
def fid(found: Tensor, real: Tensor, extractor: nn.Module, *, batch: int = 100) -> float:
    """The Frechet distance of two sets of pictures, (N, 3, H, W) in [-1, 1], by torchmetrics   (Heusel et al. 2017)

    extractor: from `inception`; another network from uint8 pictures to (N, D) features gives a distance that is no FID.
    Pictures are rounded to 256 levels and cut off beyond [-1, 1]; D + 1 of each set are needed for a covariance of full
    rank, which is not asked for here.

    Raises ValueError for fewer than two pictures, another shape, and numbers that are not finite.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        raise ImportError("FID needs torchmetrics: pip install settlepoint[fid]") from error
    for name, x in (("found", found), ("real", real)):
        if x.ndim != 4 or x.shape[1] != 3 or len(x) < 2 or not bool(x.isfinite().all()):
            raise ValueError(f"{name} must be at least two finite pictures (N, 3, H, W), got {tuple(x.shape)}")
    _, channels, height, width = found.shape
    metric = FrechetInceptionDistance(extractor, input_img_size=(channels, height, width)).to(found.device)
    for x, is_real in ((found, False), (real, True)):
        for part in ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).split(batch):
            metric.update(part, real=is_real)
    return float(metric.compute())
