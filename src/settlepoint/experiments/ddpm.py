"""ddpm: U-Nets trained for different numbers of steps, with two schedules, beside the exact score (Figs 2, 6, 7, 8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from settlepoint.chains.ancestral import Epsilon
from settlepoint.chains.schedules import Schedule
from settlepoint.chains.unet import unet
from settlepoint.experiments.diffusion_task import (
    ARMS,
    DiffusionTask,
    cell_names,
    largest,
    loss_curve,
    losses,
    parsed,
    ratio,
    sampled,
    scheduled,
    task,
)
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    above_trivial,
    curve,
    outcome,
    pictures,
)
from settlepoint.runs import generator_from, seeded
from settlepoint.training.denoising import Denoising, DenoisingRecipe, smoothed

EXACT = tuple(f"{arm} exact" for arm in ARMS)
BOUNDS = ("training images", "noise")


@dataclass(frozen=True, kw_only=True)
class DdpmScale(Scale):
    """Sizes of the trained diffusions."""

    images: Annotated[str, "digits (8 x 8, grey) or cifar10 (32 x 32, colour)"] = "digits"
    steps: Annotated[tuple[int, ...], "T: steps of the diffusion, one model each"] = (25, 50, 100, 200, 400)
    widths: Annotated[tuple[int, ...], "channels of each block of the U-Net"] = (16, 32)
    layers: Annotated[int, "residual layers a block"] = 1
    down: Annotated[tuple[int, ...], "blocks on the way down that attend, from 1"] = ()
    up: Annotated[tuple[int, ...], "blocks on the way up that attend"] = ()
    fit: Annotated[int, "steps of AdamW a model"] = 400
    batch: Annotated[int, "images a step"] = 64
    lr: Annotated[float, "learning rate behind the warm-up; it falls to 0 along a cosine"] = 4e-3
    warm_up: Annotated[int, "steps of the warm-up"] = 40
    decay: Annotated[float, "of the moving average of the weights, which samples are drawn with"] = 0.99
    looks: Annotated[int, "how often during the fit a distance is measured and a checkpoint written"] = 4
    brief: Annotated[int, "sampling steps of those distances"] = 25
    samples: Annotated[int, "samples of a Frechet distance"] = 128
    draws: Annotated[int, "noises that a loss is the mean of, over all steps"] = 3200
    bandwidth: Annotated[float, "exact score: deviation of the kernel, pixels from -1 to 1"] = 0.1
    components: Annotated[int, "principal components of the Frechet distance"] = 16
    shown: Annotated[int, "samples a column of the figures"] = 6
    checkpoints: Annotated[str, "folder to keep the fits in and to go on from; none when empty"] = ""
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


@dataclass(frozen=True)
class Fitted:
    """A denoiser to sample from, its schedule, and the course of its fit: losses, and FD-PCA by step of the fit."""

    epsilon: Epsilon
    schedule: Schedule
    losses: list[float]
    course: dict[int, float]


class Ddpm(Experiment):
    """One U-Net a number of steps and schedule, and the exact score in its place."""

    id = "ddpm"
    title = "Figures 2, 6, 7, 8: diffusion by the number of steps"
    claim = (
        "With betas that are not rescaled, loss and distance of the samples fall as the model has more steps; with "
        "rescaled ones they hardly change. An exact score, without training, shows the same: the number of steps is "
        "not what improves, the schedule is what is wrong when they are few."
    )
    source = "Operator Learning Meets Numerical Analysis, Figures 2, 6, 7 and 8"
    scales = {
        "smoke": DdpmScale(
            steps=(4, 8), widths=(8, 16), fit=6, batch=8, warm_up=2, looks=2, brief=4, samples=24, draws=32,
            shown=3, thresholds=False,
        ),
        "cpu": DdpmScale(),
        "paper": DdpmScale(
            images="cifar10", steps=tuple(range(100, 1001, 100)), widths=(128, 128, 256, 256, 512, 512), layers=2,
            down=(5,), up=(2,), fit=200_000, lr=1e-4, warm_up=500, decay=0.9999, looks=10, brief=100, samples=5000,
            draws=10_000, components=64, checkpoints="checkpoints",
        ),
    }  # fmt: skip
    scaled_down = {
        "smoke": "T = 4 and 8, 6 steps of fit",
        "cpu": "scikit-learn's digits, 8 x 8; a U-Net of 164 thousand weights and two blocks, 400 steps of fit instead "
        "of 200,000; T = 25 to 400 instead of 100 to 1000; 128 samples; FD-PCA instead of FID",
    }
    tables = (
        Table(
            "Trained U-Nets and the exact score, by schedule and number of steps",
            (
                Column("left", "Signal left, abar_T", fmt=".2g"),
                Column("loss", "Loss, images it knows", fmt=".3f"),
                Column("test", "Loss, test images", fmt=".3f"),
                Column("fd", "FD-PCA", fmt=".2f"),
                Column("training seconds", "Training", "CPU s", ".0f"),
            ),
            caption="Loss: mean squared error of the noise over all steps, with noise drawn for it; guessing 0 gives "
            "1. Images it knows: those a model was trained on; for the exact score draws of its kernel density, where "
            "the loss is the least possible, so the two are not the same task. Samples are DDPM's, T steps from "
            "N(0, I), with the moving average of the weights. FD-PCA: Frechet distance on principal components to the "
            "test images, comparable with nothing but its floor (as many training images) and its ceiling (noise). "
            "The paper gives its losses and FIDs as curves only.",
        ),
    )
    figures = (
        Figure("Fig. 2: loss by training step", ("training",), "Moving average, weight .1.", rows=()),
        Figure("Fig. 2: loss against T", ("loss",), "On images it knows.", kind="across"),
        Figure("Fig. 2: FD-PCA against T", ("fd",), "The paper has FID here.", kind="across"),
        Figure("Fig. 6: samples by model", ("samples",), "One column a model, the same first noise.", kind="images"),
        Figure("Fig. 6: samples of the exact score", ("exact samples",), "The same first noise.", kind="images"),
        *(Figure(f"Fig. 7: {arm}, samples by sampling steps", tuple(f"{arm} few {k}" for k in range(10)), "The model "
                 "of the largest T, one column a number of sampling steps, the same first noise.", kind="images")
          for arm in ARMS),
        Figure("Fig. 7: FD-PCA by sampling steps", ("fd few",), "The model of the largest T."),
        Figure("Fig. 8: loss by step", ("by step",), "Loss at t / T, images it knows."),
        Figure("Fig. 8: loss by step, exact score", ("exact by step",), "Loss at t / T, draws of its density."),
        Figure("Fig. 8: FD-PCA by training step", ("course",), "Moving average of the weights, few sampling steps."),
    )  # fmt: skip

    def cells(self, scale: DdpmScale) -> Sequence[str]:
        return (*cell_names((*ARMS, *EXACT), scale.steps), *BOUNDS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: DdpmScale = context.scale
        data = _task(context)
        if cell in BOUNDS:
            noise = generator_from(self.id, "noise", seed)
            found = data.floor(scale.samples) if cell == BOUNDS[0] else data.ceiling(scale.samples, noise)
            return outcome({"fd": found, "evals": 0})
        arm, steps = parsed(cell)
        began = time.process_time()
        model = _exact(cell, data, scale) if arm in EXACT else _trained(cell, seed, data, context)
        spent = time.process_time() - began
        width = scale.bandwidth if arm in EXACT else 0.0
        known, by_step = _loss(model, data.drawn(width), scale, ("known", cell, seed))
        test, _ = _loss(model, data.drawn(images=data.test), scale, ("test", cell, seed))
        x = _samples(model, data, context, seed)
        metrics = {"left": model.schedule.left, "loss": known, "test": test, "fd": data.fd(x), "evals": steps}
        metrics |= {"training seconds": spent} if arm in ARMS else {}
        curves = _curves(cell, metrics, by_step, x, scale) | _course(model)
        if arm in ARMS and steps == max(scale.steps):
            curves |= _few(cell, model, data, context, seed)
        return outcome(metrics, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        rows = {arm: cell_names((arm,), results.scale.steps) for arm in (*ARMS, *EXACT)}
        loss = {arm: [results.mean(cell, "loss") for cell in cells] for arm, cells in rows.items()}
        fd = {arm: [results.mean(cell, "fd") for cell in cells] for arm, cells in rows.items()}
        worst = largest(fd["fixed"] + fd["rescaled"])
        return [
            *above_trivial(results, "loss", 1.0, predictor="noise guessed as 0", lower=True),
            Check.at_most("FD-PCA of the worst model, over that of noise", worst / results.mean("noise", "fd"), 1.0),
            *(
                check
                for fixed, rescaled in (ARMS, EXACT)
                for check in (
                    Check.at_least(f"{fixed}: first loss over the last", loss[fixed][0] / loss[fixed][-1], 1.5),
                    Check.at_most(f"{rescaled}: largest loss over the least", ratio(loss[rescaled]), 1.25),
                    Check.at_least(
                        f"FD-PCA at the fewest steps, {fixed} over {rescaled}", fd[fixed][0] / fd[rescaled][0], 1.5
                    ),
                )
            ),
        ]


def _task(context: Context) -> DiffusionTask:
    return task(context, context.scale.images, context.scale.components)


def _exact(cell: str, data: DiffusionTask, scale: DdpmScale) -> Fitted:
    schedule = scheduled(*parsed(cell))
    return Fitted(data.exact(schedule, scale.bandwidth).epsilon, schedule, [], {})


def _trained(cell: str, seed: int, data: DiffusionTask, context: Context) -> Fitted:
    """A U-Net after its fit; every look writes a checkpoint, from which a fit that was killed goes on."""
    scale: DdpmScale = context.scale
    fit, schedule = _fit(cell, seed, data, scale)
    path = Path(scale.checkpoints) / f"ddpm {cell} seed {seed}.safetensors" if scale.checkpoints else None
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            fit.resume(path)
    course: dict[int, float] = {}
    while fit.step < scale.fit:
        fit.advance(-(-scale.fit // scale.looks), _told(cell, context))
        if path is not None:
            fit.save(path)
        model = Fitted(fit.average, schedule, [], {})
        course[fit.step] = data.fd(_samples(model, data, context, seed, min(scale.brief, len(schedule))))
    return Fitted(fit.average, schedule, fit.losses, course)


def _fit(cell: str, seed: int, data: DiffusionTask, scale: DdpmScale) -> tuple[Denoising, Schedule]:
    schedule = scheduled(*parsed(cell))
    channels, size = data.train.shape[1:3]
    with seeded("ddpm", "weights", seed):  # the same at first for every T and schedule
        net = unet(size, channels, scale.widths, layers=scale.layers, down=scale.down, up=scale.up)
    recipe = DenoisingRecipe(steps=scale.fit, batch=scale.batch, lr=scale.lr, warm_up=scale.warm_up, decay=scale.decay)
    net, draw = net.to(data.train.device), generator_from("ddpm", "fit", cell, seed)
    return Denoising(net, data.train, schedule.alphas_cumprod, recipe, generator=draw, name=cell), schedule


def _told(cell: str, context: Context) -> Callable[[int, float], None]:
    def told(step: int, loss: float) -> None:
        if step % 20 == 0:
            context.progress(f"{cell}, step {step} of {context.scale.fit}, loss {loss:.3f}")

    return told


def _loss(model: Fitted, draw: Any, scale: DdpmScale, names: tuple[object, ...]) -> tuple[float, list[float]]:
    each = -(-scale.draws // len(model.schedule))
    found = losses(model.epsilon, model.schedule, draw, generator_from("ddpm", *names), each=each)
    return float(found.mean()), found.tolist()


def _samples(model: Fitted, data: DiffusionTask, context: Context, seed: int, steps: int | None = None) -> Tensor:
    """From the same first noise for every model and number of sampling steps; x_0 is held within the pixels' range."""
    x = data.noise(context.scale.samples, generator_from("ddpm", "start", seed))
    draw = generator_from("ddpm", "steps", seed)
    return sampled(model.epsilon, model.schedule, x, draw, steps=steps, clip=1.0, batch=256, say=context.progress)


def _curves(
    cell: str, metrics: Mapping[str, float], by_step: list[float], x: Tensor, scale: DdpmScale
) -> dict[str, Any]:
    arm, steps = parsed(cell)
    kind = "exact " if arm in EXACT else ""
    return {
        "loss": curve([steps], [metrics["loss"]], x_label="T", y_label="loss", group=arm),
        "fd": curve([steps], [metrics["fd"]], x_label="T", y_label="FD-PCA", group=arm),
        f"{kind}by step": curve(*loss_curve(by_step), x_label="t / T", y_label="loss at t", log_y=True),
        f"{kind}samples": pictures(x[: scale.shown].cpu() / 2 + 0.5, group=cell),
    }


def _course(model: Fitted) -> dict[str, Any]:
    """How the fit went; of the losses at most 200 points."""
    shown = [k for k in range(0, len(model.losses), max(1, len(model.losses) // 200))]
    values = smoothed(model.losses)
    x, y = [k + 1 for k in shown], [values[k] for k in shown]
    return {
        "training": curve(x, y, x_label="training step", y_label="loss", log_y=True),
        "course": curve(model.course.keys(), model.course.values(), x_label="training step", y_label="FD-PCA"),
    }


def _few(cell: str, model: Fitted, data: DiffusionTask, context: Context, seed: int) -> dict[str, Any]:
    """The same noise in fewer and more sampling steps."""
    counts = list(context.scale.steps)
    found = [_samples(model, data, context, seed, count) for count in counts]
    shown, arm = context.scale.shown, parsed(cell)[0]
    stacks = [pictures(x[:shown].cpu() / 2 + 0.5, group=f"{n} steps") for n, x in zip(counts, found, strict=True)]
    distances = curve(counts, [data.fd(x) for x in found], x_label="sampling steps", y_label="FD-PCA")
    return {f"{arm} few {k}": stack for k, stack in enumerate(stacks)} | {"fd few": distances}


EXPERIMENT = Ddpm()
