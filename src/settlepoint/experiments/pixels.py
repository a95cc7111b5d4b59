"""The task of Table 3: images with three quarters of their pixels dropped; how its models are fitted and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint import FixedSteps, Picard
from settlepoint.data.cifar import cifar10
from settlepoint.data.pixel_dropout import dropped, painted
from settlepoint.experiments.scale import Context, Scale
from settlepoint.layers.patches import Patches
from settlepoint.models.image_transformer import ImageNet, ImageTransformer
from settlepoint.runs import generator_from, seeded
from settlepoint.training.fit import History, Hooks, Objective, Recipe, fit
from settlepoint.training.frechet import Principal, frechet
from settlepoint.training.inception import fid, inception
from settlepoint.training.settled import iterates


@dataclass(frozen=True, kw_only=True)
class PixelScale(Scale):
    """Sizes of the experiments on images."""

    train: Annotated[int, "images to train on"] = 5000
    test: Annotated[int, "images to test on"] = 1000
    patch: Annotated[int, "points a side of a patch"] = 4
    shifted: Annotated[bool, "tokens see patches moved by half a patch too"] = True
    width: Annotated[int, "features of a token"] = 64
    heads: Annotated[int, "heads of the attention"] = 4
    depth: Annotated[int, "blocks of T"] = 1
    kept: Annotated[float, "chance of a pixel to stay"] = 0.25
    block: Annotated[int, "points a side of the squares that are dropped together"] = 1
    damping: Annotated[float, "weight of the old iterate: lambda"] = 0.5
    epochs: Annotated[int, "passes over the training images, masks drawn anew in each"] = 7
    batch: Annotated[int, "images a step"] = 50
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 5e-3
    warmup: Annotated[int, "steps in which the learning rate rises first"] = 100
    fewest: Annotated[int, "settled: iterations that a step of training takes at least"] = 1
    most: Annotated[int, "settled: and at most"] = 4
    inception: Annotated[str, "file of Inception's weights, for FID; without, there is none"] = ""
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


SIZES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "seeds": 1, "train": 200, "test": 40, "width": 16, "heads": 2, "depth": 1, "epochs": 1, "batch": 20,
        "thresholds": False,
    },
    "cpu": {"seeds": 3},
    "paper": {
        "seeds": 5, "train": 50_000, "test": 10_000, "patch": 2, "shifted": False, "width": 192, "heads": 3,
        "depth": 16, "epochs": 100, "batch": 128, "lr": 1e-3, "most": 8,
    },
}  # fmt: skip
"""Of table3, where `most` is of no use, and table3-settled."""


class Painter(nn.Module):
    """f: the mean of the kept pixels in a box of 5 x 5."""

    def forward(self, u: Tensor) -> Tensor:
        return painted(u)


@dataclass(frozen=True, eq=False)
class PixelTask:
    """Images in [-1, 1], (N, 3, 32, 32); u: the test images as they are shown, with their masks."""

    train: Tensor
    test: Tensor
    u: Tensor
    copy: str
    features: Principal
    extractor: nn.Module | None


def task(context: Context) -> PixelTask:
    """The same images and test masks for every cell and seed."""
    scale: PixelScale = context.scale
    return _task(
        context.data_dir, (scale.train, scale.test), (scale.kept, scale.block), scale.inception, context.device
    )


@lru_cache(maxsize=1)
def _task(
    folder: Path | None, counts: tuple[int, int], hidden: tuple[float, int], weights: str, device: str
) -> PixelTask:
    found = cifar10(folder)
    parts = []
    for name, count, x in zip(("train", "test"), counts, (found.train_x, found.test_x), strict=True):
        if not 2 <= count <= len(x):
            raise ValueError(f"{name} must lie in [2, {len(x)}], the images that there are, got {count}")
        parts.append(x[torch.arange(count) * len(x) // count].float() / 127.5 - 1)
    u = dropped(parts[1], generator_from("pixels", "test"), kept=hidden[0], block=hidden[1])
    train, test, u = (part.to(device) for part in (*parts, u))
    extractor = inception(weights).to(device) if weights else None
    return PixelTask(train, test, u, found.copy, Principal(train, min(64, len(train))), extractor)


def build(form: str, steps: int, scale: PixelScale, *, layers: int = 1) -> ImageTransformer:
    """A model that iterates so many damped steps; layers: times as many blocks, each with weights of its own."""
    cut = Patches((32, 32), (scale.patch, scale.patch), shifted=scale.shifted)
    net = ImageNet((4 if form == "km" else 7, 3), cut, scale.width, scale.heads, layers * scale.depth)
    chosen = {"solver": Picard(scale.damping), "stop": FixedSteps(steps)}
    return ImageTransformer(net, Painter(), form, **chosen)  # type: ignore[arg-type]


def fitted(
    make: Callable[[], ImageTransformer],
    names: Sequence[object],
    context: Context,
    *,
    objective: Objective | None = None,
    times: int = 1,
) -> tuple[ImageTransformer, History]:
    """A model and how it was fitted; a step of the optimiser draws the masks of its images."""
    scale: PixelScale = context.scale
    with seeded("pixels", "weights", *names):
        model = make().to(context.device)
    draw, images = generator_from("pixels", "masks", *names), task(context).train
    plain = lambda model, u, y: nn.functional.mse_loss(model(u), y)  # noqa: E731
    inner = objective or plain

    def shown(model: ImageTransformer, x: Tensor, y: Tensor) -> Tensor:
        u = dropped(x.cpu(), draw, kept=scale.kept, block=scale.block).to(x)
        return inner(model, u, y)

    recipe = Recipe(epochs=times * scale.epochs, batch=scale.batch, lr=scale.lr, warmup=scale.warmup, clip=1.0)
    hooks = Hooks(after_epoch=lambda epoch, loss: context.progress(f"{names[0]}, epoch {epoch}, loss {loss:.4f}"))
    order = generator_from("pixels", "order", *names)
    return model, fit(model, (images, images), recipe, generator=order, objective=shown, hooks=hooks)


@torch.no_grad()
def pictures(model: ImageTransformer, u: Tensor, steps: int, batch: int = 200) -> list[Tensor]:  # each (N, 3, 32, 32)
    """What the model makes of u after 1, ..., steps iterations."""
    parts = [list(iterates(model.eval(), model.encode(part), steps)) for part in u.split(batch)]
    return [torch.cat([part[step] for part in parts]) for step in range(steps)]


def scores(found: Tensor, data: PixelTask) -> dict[str, float]:
    """mse, mse [0, 1], mse dropped, psnr, fd, fid: of pictures, against the test images

    mse: over all pixels in [-1, 1]; a quarter of it in [0, 1]. psnr: mean over the images of 10 log10(4 / mse), in dB.
    fd, fid: see `distances`.
    """
    squares, lost = (found - data.test).square(), 1 - data.u[:, 3:]
    each = squares.flatten(1).mean(1)
    return {
        "mse": float(each.mean()),
        "mse01": float(each.mean()) / 4,
        "mse dropped": float((squares * lost).sum() / (3 * lost.sum())),
        "psnr": float((10 * (4 / each.clamp(min=1e-12)).log10()).mean()),
        **distances(found, data),
    }


def against_box(found: Tensor, data: PixelTask) -> dict[str, float]:
    """paired: mean over the test images of the error of the box less that of found; deviation: of that mean."""
    each = lambda y: (y - data.test).square().flatten(1).mean(1)  # noqa: E731
    apart = each(painted(data.u)) - each(found)
    return {"paired": float(apart.mean()), "deviation": float(apart.std() / len(apart) ** 0.5)}


def distances(found: Tensor, data: PixelTask) -> dict[str, float]:
    """fd: the Frechet distance on principal components of the training images, FD-PCA. fid: where there are weights."""
    real = {} if data.extractor is None else {"fid": fid(found, data.test, data.extractor)}
    return {"fd": frechet(data.features(found), data.features(data.test)), **real}
