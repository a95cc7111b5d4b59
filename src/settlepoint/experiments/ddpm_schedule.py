"""ddpm-schedule: what the number of steps does to a diffusion whose score is exact, with two schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from settlepoint.experiments.diffusion_task import (
    ARMS,
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
from settlepoint.runs import generator_from

BOUNDS = ("kernel density", "training images", "noise")


@dataclass(frozen=True, kw_only=True)
class ScheduleScale(Scale):
    """Sizes of the study of schedules."""

    steps: Annotated[tuple[int, ...], "T: steps of the diffusion"] = (25, 50, 100, 200, 400, 1000)
    samples: Annotated[int, "samples a Frechet distance is taken of"] = 512
    each: Annotated[int, "noises a step that the loss is the mean of"] = 64
    bandwidth: Annotated[float, "deviation of the kernel, pixels from -1 to 1"] = 0.1
    components: Annotated[int, "principal components of the Frechet distance"] = 16
    shown: Annotated[int, "samples in the figure"] = 6
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class DdpmSchedule(Experiment):
    """No network: the score of the kernel density of the digits, so that what is left is the schedule's doing."""

    id = "ddpm-schedule"
    title = "Number of steps and schedule, with an exact score"
    claim = (
        "Betas that are not rescaled leave signal behind the last step when steps are few. That alone makes loss and "
        "distance of the samples fall as steps are added; rescaled by 1000 / T, both are flat, with nothing trained."
    )
    source = "Operator Learning Meets Numerical Analysis, Figure 2, without training"
    scales = {
        "smoke": ScheduleScale(seeds=1, steps=(5, 10), samples=32, each=4, shown=3, thresholds=False),
        "cpu": ScheduleScale(seeds=3),
        "paper": ScheduleScale(seeds=5, steps=tuple(range(100, 1001, 100)), samples=1400, each=256),
    }
    scaled_down = {
        "smoke": "T = 5 and 10, 32 samples",
        "cpu": "scikit-learn's digits, 8 x 8, 512 samples; the paper trains U-Nets on images that it does not name",
    }
    tables = (
        Table(
            "Exact score, by schedule and number of steps",
            (
                Column("left", "Signal left, abar_T", fmt=".2g"),
                Column("loss", "Loss: MSE of the noise", fmt=".3f"),
                Column("memory", "Loss, kernel of width 0", fmt=".4f"),
                Column("fd", "FD-PCA", fmt=".2f"),
                Column("right", "FD-PCA, started at x_T of digits", fmt=".2f"),
            ),
            caption="The score is that of the kernel density of 1,400 digits, the loss its least possible value, on "
            "images and noise drawn for it. The sampler is DDPM's, all T steps from N(0, I); in the last column from "
            "noised draws of the density, which is where the chain of fixed betas ends: what that column lacks of the "
            "other is due to the start. FD-PCA: Frechet distance on 16 principal components to 397 test digits, "
            "comparable with nothing else. Floors: as many draws from the density, as many training digits; ceiling: "
            "noise. With a kernel of width 0 the score remembers the digits, and the loss does not fall with T.",
        ),
    )
    figures = (
        Figure("Loss against T", ("loss",), "Least possible loss.", kind="across"),
        Figure("FD-PCA against T", ("fd",), "From N(0, I).", kind="across"),
        Figure("Loss by step", ("by step",), "Loss by t / T; exact score."),
        Figure("Samples", ("samples",), "Exact score, all steps from the same noise.", kind="images"),
    )

    def cells(self, scale: ScheduleScale) -> Sequence[str]:
        return (*cell_names(ARMS, scale.steps), *BOUNDS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: ScheduleScale = context.scale
        data = task(context, components=scale.components)
        draw = data.drawn(scale.bandwidth)
        if cell in BOUNDS:
            found = {
                "kernel density": lambda: data.fd(draw(scale.samples, generator_from(self.id, "density", seed))),
                "training images": lambda: data.floor(scale.samples),
                "noise": lambda: data.ceiling(scale.samples, generator_from(self.id, "noise", seed)),
            }[cell]()
            return outcome({"fd": found, "evals": 0})
        arm, steps = parsed(cell)
        schedule = scheduled(arm, steps)
        exact, sharp = (data.exact(schedule, width) for width in (scale.bandwidth, 0.0))
        noise = lambda name: generator_from(self.id, name, steps, seed)  # noqa: E731
        by_step = losses(exact.epsilon, schedule, draw, noise("loss"), each=scale.each)
        memory = losses(sharp.epsilon, schedule, data.drawn(), noise("memory"), each=scale.each)
        context.progress(f"{cell}: loss {by_step.mean():.3f}")
        draws = lambda: generator_from(self.id, "steps", seed)  # noqa: E731
        x = data.noise(scale.samples, generator_from(self.id, "start", seed))
        x = sampled(exact.epsilon, schedule, x, draws(), say=context.progress)
        clean = draw(scale.samples, noise("right"))
        end = (clean.new_zeros(len(clean)) + steps - 1).long()
        start = schedule.noised(clean, end, data.noise(len(clean), noise("right noise")))
        right = sampled(exact.epsilon, schedule, start, draws(), say=context.progress)
        metrics = {
            "left": schedule.left,
            "loss": by_step.mean(),
            "memory": memory.mean(),
            "fd": data.fd(x),
            "right": data.fd(right),
            "evals": steps,
        }
        return outcome(
            {k: float(v) for k, v in metrics.items()}, self._curves(cell, metrics, by_step, x[: scale.shown])
        )

    def _curves(self, cell: str, metrics: Mapping[str, Any], by_step: Any, x: Any) -> dict[str, Any]:
        arm, steps = parsed(cell)
        return {
            "loss": curve([steps], [metrics["loss"]], x_label="T", y_label="loss", group=arm),
            "fd": curve([steps], [metrics["fd"]], x_label="T", y_label="FD-PCA", group=arm),
            "by step": curve(*loss_curve(by_step.tolist()), x_label="t / T", y_label="loss at t", log_y=True),
            "samples": pictures(x.cpu() / 2 + 0.5, group=cell),
        }

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        loss = {arm: self._row(results, arm, "loss") for arm in ARMS}
        fd = {arm: self._row(results, arm, "fd") for arm in ARMS}
        falls = [b / a for a, b in zip(loss["fixed"], loss["fixed"][1:], strict=False)]
        late = fd["fixed"][results.scale.steps.index(400) :] if 400 in results.scale.steps else [float("nan")]
        return [
            *above_trivial(results, "loss", 1.0, predictor="noise guessed as 0", lower=True),
            Check.at_most("fixed: loss at one T over that at the T before, the largest", largest(falls), 0.95),
            Check.at_least("fixed: FD-PCA at the first T over that at T = 400", fd["fixed"][0] / late[0], 2.0),
            Check.at_most("fixed: spread of FD-PCA from T = 400 on, over the fall", _spread(late, fd["fixed"]), 0.25),
            Check.at_most("rescaled: largest loss over the least", ratio(loss["rescaled"]), 1.25),
            Check.at_most("rescaled: spread of FD-PCA, over the fall", _spread(fd["rescaled"], fd["fixed"]), 0.25),
        ]

    def _row(self, results: Results, arm: str, metric: str) -> list[float]:
        return [results.mean(cell, metric) for cell in cell_names((arm,), results.scale.steps)]


def _spread(values: Sequence[float], scale: Sequence[float]) -> float:
    """max - min of some values over max - min of others."""
    return (largest(values) - min(values)) / (largest(scale) - min(scale))


EXPERIMENT = DdpmSchedule()
