"""pixelcnn: images sampled pixel after pixel and all pixels at once, the same images to the last pixel."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from settlepoint.chains import Decoded, jacobi_sample
from settlepoint.data.digits import digits
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    curve,
    outcome,
)
from settlepoint.models.pixelcnn import PixelCNN
from settlepoint.runs import generator_from, seeded
from settlepoint.training.fit import Recipe, fit

LEVELS, SHAPE = 17, (8, 8)
PIXELS = SHAPE[0] * SHAPE[1]
STARTS = ("zeros", "mean image", "random image")
SEQUENTIAL, UNTRAINED = "one by one", "untrained"


@dataclass(frozen=True, kw_only=True)
class PixelScale(Scale):
    """Sizes of the experiment."""

    width: Annotated[int, "features of a pixel"] = 48
    depth: Annotated[int, "residual blocks"] = 4
    epochs: Annotated[int, "passes over the 1,400 training images"] = 25
    batch: Annotated[int, "images a step"] = 50
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 4e-3
    images: Annotated[int, "images sampled"] = 50
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


def levels(x: Tensor) -> Tensor:
    """Grey levels 0, ..., 16 of pixels in [0, 1]."""
    return (x * 16).round().long()


class PixelCnn(Experiment):
    """A PixelCNN on digits; its samples are fixed points of 64 entries in reading order."""

    id = "pixelcnn"
    title = "Sampling a PixelCNN with all pixels at once"
    claim = (
        "With its noise drawn before, a sample of an autoregressive image model is the fixed point of one sweep over "
        "all pixels: Jacobi sweeps give the same images as one pixel after the other, in fewer calls of the model."
    )
    source = "Operator Learning Meets Numerical Analysis, Eq. 35; Song et al. (2021), Wiggers and Hoogeboom (2020)"
    scales: ClassVar = {
        "smoke": PixelScale(width=8, depth=1, epochs=1, images=4, thresholds=False),
        "cpu": PixelScale(seeds=2),
        "paper": PixelScale(seeds=5, width=64, depth=6, epochs=100, images=200),
    }
    scaled_down = {
        "smoke": "8 features, one pass over the images",
        "cpu": "scikit-learn's digits, 8 x 8 pixels of 17 levels, in place of CIFAR-10 and its like",
    }
    tables = (
        Table(
            "Samples",
            (
                Column("sweeps", "Sweeps an image, of 64", fmt=".1f", better="low"),
                Column("ratio", "Pixels a sweep", fmt=".2f", better="high"),
                Column("calls", "Model calls for all images", fmt=".0f"),
                Column("equal", "Pixels as one by one has them", "%", fmt=".2f"),
                Column("milliseconds", "Wall time an image, one at a time", "ms", ".1f", better="low"),
                Column("bits", "Held-out images", "bits a pixel", ".3f", better="low"),
                Column("histogram", "Each pixel by its own histogram", "bits a pixel", ".3f"),
                Column("uniform", "Uniform", "bits a pixel", ".3f"),
                Column("training seconds", "Training", "CPU s", ".0f"),
            ),
            caption="Same model, same Gumbel noise in all rows of a seed but `untrained`, whose weights are random; "
            "sampled in float64, where batches of another size round alike. Rows differ in where the sweeps start. "
            "Sweeps and pixels a sweep: means over the images. Histogram: frequencies of the 17 levels at each place "
            "in the training images, one added to each. Untrained: its pixels hardly depend on each other.",
            command="settle run pixelcnn --scale {scale} --seeds {seeds}",
        ),
    )
    figures = (
        Figure("Pixels settled", ("settled",), "Pixels known to be right after each sweep, mean over images."),
        Figure("Monitor", ("divergence",), "KL divergence of successive predictions at pixels that are still open."),
    )

    def cells(self, scale: PixelScale) -> Sequence[str]:
        return (SEQUENTIAL, *STARTS, UNTRAINED)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: PixelScale = context.scale
        model, seconds = _trained(scale, seed, context) if cell != UNTRAINED else (_model(scale, seed), 0.0)
        data = digits()
        block = 1 if cell == SEQUENTIAL else None
        start = _start(cell, scale.images, levels(data.train_x), seed)
        wanted = _one_by_one(model, scale, seed, trained=cell != UNTRAINED)
        found = wanted if cell == SEQUENTIAL else _sampled(model, start, seed, block=block, monitor=True)
        test = levels(data.test_x)
        metrics = {
            "sweeps": float(found.sweeps.double().mean()),
            "ratio": float(found.lengths.sum() / found.sweeps.sum()),
            "calls": found.calls,
            "equal": 100 * float((found.tokens == wanted.tokens).double().mean()),
            "milliseconds": _wall(model, start[:8], seed, block),
            "bits": bits(model, test),
            "histogram": histogram_bits(levels(data.train_x), test),
            "uniform": math.log2(LEVELS),
            "training seconds": seconds,
            "evals": float(found.sweeps.double().mean()),
        }
        return outcome(metrics, _curves(found, cell))

    def checks(self, results: Results) -> Sequence[Check]:
        cells = [cell for cell in self.cells(results.scale) if cell != SEQUENTIAL]
        same = min((min(results.values(cell, "equal"), default=math.nan) for cell in cells), default=math.nan)
        most = max((max(results.values(cell, "sweeps"), default=math.nan) for cell in cells), default=math.nan)
        checks = [
            Check.at_least("pixels equal to one by one, least of all rows and seeds, %", same, 100.0),
            Check.at_most("sweeps, most of all rows and seeds", most, PIXELS),
        ]
        if not results.scale.thresholds:
            return checks
        least = max(results.mean(cell, "sweeps") for cell in STARTS)
        bits_found, bar = results.mean("zeros", "bits"), results.mean("zeros", "histogram")
        return [
            *checks,
            Check.at_most("sweeps of 64, the worst start", least, 32.0),
            Check("held-out bits a pixel, below those of the histogram", bits_found < bar, bits_found, f"< {bar:.3f}"),
        ]


def _model(scale: PixelScale, seed: int) -> PixelCNN:
    with seeded("pixelcnn", "weights", seed):
        return PixelCNN(SHAPE, LEVELS, scale.width, scale.depth).double().eval()


def _trained(scale: PixelScale, seed: int, context: Context) -> tuple[PixelCNN, float]:
    """The same model for all cells of a seed, fitted once a process, and the CPU seconds that took."""
    if (scale, seed) not in _KEPT:
        model, x = _model(scale, seed).float(), levels(digits().train_x)
        context.progress(f"training, {scale.epochs} epochs")
        recipe = Recipe(epochs=scale.epochs, batch=scale.batch, lr=scale.lr, clip=1.0)
        order = generator_from("pixelcnn", "order", seed)
        history = fit(model, (x, x), recipe, generator=order, objective=lambda m, x, y: _nats(m, x))
        _KEPT[scale, seed] = model.double().eval(), history.seconds
    return _KEPT[scale, seed]


_KEPT: dict[tuple[PixelScale, int], tuple[PixelCNN, float]] = {}
_SEQUENTIAL: dict[tuple[PixelScale, int, bool], Decoded] = {}


def _one_by_one(model: PixelCNN, scale: PixelScale, seed: int, *, trained: bool) -> Decoded:
    """The images of a seed, pixel after pixel, whatever they start from; sampled once a process."""
    key = (scale, seed, trained)
    if key not in _SEQUENTIAL:
        blank = torch.zeros(scale.images, PIXELS, dtype=torch.int64)
        _SEQUENTIAL[key] = _sampled(model, blank, seed, block=1)
    return _SEQUENTIAL[key]


def _nats(model: nn.Module, x: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())


@torch.no_grad()
def bits(model: nn.Module, x: Tensor) -> float:
    """Mean of -log2 p of images, a pixel."""
    return float(_nats(model, x)) / math.log(2)


def histogram_bits(train: Tensor, x: Tensor) -> float:
    """That of pixels that know nothing of each other, by their frequencies in training images, one added to each."""
    counts = nn.functional.one_hot(train, LEVELS).sum(0) + 1.0  # (64, 17)
    share = counts / counts.sum(1, keepdim=True)
    return float(-share.log2()[torch.arange(PIXELS), x].mean())


def _sampled(model: PixelCNN, start: Tensor, seed: int, *, block: int | None, monitor: bool = False) -> Decoded:
    return jacobi_sample(
        model, start, block=block, generator=generator_from("pixelcnn", "noise", seed), monitor=monitor
    )


def _start(cell: str, count: int, train: Tensor, seed: int) -> Tensor:  # (count, 64)
    if cell == "mean image":
        return train.double().mean(0).round().long().repeat(count, 1)
    if cell == "random image":
        return train[torch.randint(len(train), (count,), generator=generator_from("pixelcnn", "start", seed))]
    return torch.zeros(count, PIXELS, dtype=torch.int64)


def _wall(model: PixelCNN, start: Tensor, seed: int, block: int | None) -> float:
    """Milliseconds an image, sampled one at a time; least of 2 rounds."""
    best = math.inf
    for _ in range(2):
        begin = time.perf_counter()
        for row in start:
            _sampled(model, row[None], seed, block=block)
        best = min(best, 1e3 * (time.perf_counter() - begin) / len(start))
    return best


def _curves(found: Decoded, cell: str) -> dict[str, Any]:
    label: dict[str, Any] = {"x_label": "sweeps", "group": cell}
    sweeps = range(1, found.calls + 1)
    curves = {"settled": curve(sweeps, found.settled.double().mean(1).tolist(), y_label="pixels settled", **label)}
    if found.divergence is not None:
        mean = found.divergence[1:].nanmean(1)
        known = ~mean.isnan()
        numbers = torch.arange(2, found.calls + 1)[known].tolist()
        named: dict[str, Any] = {"y_label": "KL divergence, nats", "log_y": True}
        curves["divergence"] = curve(numbers, mean[known].tolist(), **named, **label)
    return curves


EXPERIMENT = PixelCnn()
