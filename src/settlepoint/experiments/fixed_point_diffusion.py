"""fixed-point-diffusion: a denoiser whose block is iterated, its state carried along the chain, its budget moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import torch
from torch import Tensor

from settlepoint import FixedSteps, Picard
from settlepoint.chains.carried import Carried, step_budget
from settlepoint.chains.schedules import Schedule, linear_schedule
from settlepoint.experiments.diffusion_task import DiffusionTask, sampled, task
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
from settlepoint.models.fixed_point_denoiser import FixedPointDenoiser
from settlepoint.runs import generator_from, seeded
from settlepoint.training.denoising import Denoising, DenoisingRecipe, noise_error, smoothed
from settlepoint.training.settled import AllIterates

ROWS: dict[str, tuple[bool, Any, int]] = {
    f"{'warm' if warm else 'cold'}, {words}": (warm, toward, times)
    for warm in (False, True)
    for words, toward, times in (
        ("uniform", "uniform", 1), ("more at first", "first", 1), ("more at last", "last", 1), ("twice", "uniform", 2),
    )
}  # fmt: skip
"""Whether the state is carried, where the evaluations go, and times how many there are."""

SETTLED = "settled"
EXPLICIT = {"explicit, as many parameters": "one", "explicit, as many evaluations": "untied"}
BOUNDS = ("training images", "noise")


@dataclass(frozen=True, kw_only=True)
class FixedPointScale(Scale):
    """Sizes of the fixed-point diffusion."""

    steps: Annotated[int, "T: steps of the diffusion, betas rescaled"] = 100
    sampling: Annotated[int, "steps of the sampler"] = 25
    evals: Annotated[int, "evaluations of the block a sampling step, on average"] = 2
    settled: Annotated[int, "evaluations a step that count as settled"] = 12
    damping: Annotated[float, "weight of the old state"] = 0.3
    most: Annotated[int, "iterations of the block that a step of training takes at most"] = 4
    ahead: Annotated[int, "iterations that may go ahead of them without a gradient"] = 8
    width: Annotated[int, "features of a token"] = 48
    heads: Annotated[int, "heads of the attention"] = 4
    fit: Annotated[int, "steps of AdamW a model"] = 1500
    batch: Annotated[int, "images a step"] = 64
    lr: Annotated[float, "learning rate behind the warm-up"] = 3e-3
    warm_up: Annotated[int, "steps of the warm-up"] = 50
    decay: Annotated[float, "of the moving average of the weights"] = 0.99
    samples: Annotated[int, "samples of a Frechet distance"] = 256
    shown: Annotated[int, "samples in the figure"] = 6
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class FixedPointDiffusion(Experiment):
    """One implicit denoiser sampled in many ways, and explicit ones of its size and of its work."""

    id = "fixed-point-diffusion"
    title = "Fixed-point diffusion: warm starts and moved budgets"
    claim = (
        "With one block that is iterated, a sampler spends as many evaluations at each step as it is given. The block "
        "settles; evaluations moved to the last steps bring samples nearer to the settled ones, moved to the first "
        "steps farther off. Starting where the step before ended helps only where a step has enough evaluations. At "
        "this size neither loss nor distance to the test images gains by any of this: an explicit block of half the "
        "evaluations does as well."
    )
    source = "Bai and Melas-Kyriazi (2024), on digits"
    scales = {
        "smoke": FixedPointScale(
            seeds=1, steps=10, sampling=4, settled=4, width=8, heads=2, fit=4, batch=8, warm_up=1, samples=24, shown=3,
            thresholds=False,
        ),
        "cpu": FixedPointScale(),
        "paper": FixedPointScale(
            seeds=3, steps=1000, sampling=100, width=192, heads=6, fit=20_000, lr=1e-3, warm_up=500, decay=0.999,
            samples=1400,
        ),
    }  # fmt: skip
    scaled_down = {
        "smoke": "10 steps, 4 steps of fit",
        "cpu": "scikit-learn's digits, 8 x 8, one block of width 48 on 16 tokens, 1,500 steps of fit, one seed",
    }
    tables = (
        Table(
            "The same evaluations spent differently",
            (
                Column("loss", "Loss along a chain", fmt=".3f", better="low"),
                Column("fd", "FD-PCA", fmt=".2f", better="low"),
                Column("away", "Off the settled samples", "%", ".1f", better="low"),
                Column("rate", "Residual, factor an iteration", fmt=".2f"),
                Column("parameters", "Parameters", fmt=",.0f"),
                Column("training seconds", "Training", "CPU s", ".0f"),
            ),
            caption="Rows without a name: one model, x_t to noise by one block before, a shared block iterated, and a "
            "linear map, trained on all of its first iterates and on later ones; the rows differ in the sampler alone. "
            "cold: each step starts the block anew; warm: at the state of the step before. twice: twice the "
            "evaluations. settled: many more. explicit: the block once (as many parameters), or as many blocks with "
            "weights of their own as evaluations. Loss along a chain: of the noise in test digits that the forward "
            "chain noises, at the sampler's steps, from the last to the first; guessing 0 gives 1. Off: root mean "
            "square distance to the settled row's samples of the same noise, in per cent of theirs. FD-PCA: Frechet "
            "distance on 16 principal components to the test digits, with floor and ceiling. The block before is "
            "evaluated once a step in every row and not counted.",
        ),
    )
    figures = (
        Figure("Evaluations a step", ("counts",), "How the budget is spent, from noise to image."),
        Figure("Loss by training step", ("training",), "Moving average, weight .1.", rows=(SETTLED, *EXPLICIT)),
        Figure("Samples", ("samples",), "The same first noise in every column.", kind="images"),
    )

    def cells(self, scale: FixedPointScale) -> Sequence[str]:
        return (*ROWS, SETTLED, *EXPLICIT, *BOUNDS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: FixedPointScale = context.scale
        data = task(context)
        if cell in BOUNDS:
            noise = generator_from(self.id, "noise", seed)
            found = data.floor(scale.samples) if cell == BOUNDS[0] else data.ceiling(scale.samples, noise)
            return outcome({"fd": found, "evals": 0})
        kind, (warm, toward, times) = EXPLICIT.get(cell, "implicit"), ROWS.get(cell, (False, "uniform", 1))
        fit = _fitted(kind, seed, scale, context.device)
        each = {SETTLED: scale.settled}.get(cell, times * scale.evals if kind == "implicit" else 1)
        counts = step_budget(each * scale.sampling, scale.sampling, toward)
        x = _samples(fit, counts, warm, seed, scale, data)
        metrics = {
            "loss": _loss(Carried(fit.average, counts, warm=warm), seed, scale, data),  # type: ignore[arg-type]
            "fd": data.fd(x),
            "parameters": sum(p.numel() for p in fit.model.parameters()),
            "training seconds": fit.seconds,
            "evals": sum(counts) * (scale.evals if kind == "untied" else 1),
        }
        if kind == "implicit":
            settled = _samples(fit, [scale.settled] * scale.sampling, False, seed, scale, data)
            metrics |= {
                "away": 100 * float((x - settled).norm() / settled.norm()),
                "rate": _rate(fit, seed, scale, data),
            }
        curves = {"counts": curve(range(1, len(counts) + 1), counts, x_label="sampling step", y_label="evaluations")}
        curves |= {"samples": pictures(x[: scale.shown].cpu() / 2 + 0.5, group=cell)}
        return outcome(metrics, curves | {"training": _course(fit.losses)})

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        return [
            *above_trivial(results, "loss", 1.0, predictor="noise guessed as 0", lower=True),
            Check.at_most(
                "FD-PCA, warm and uniform, over that of noise",
                results.mean("warm, uniform", "fd") / results.mean("noise", "fd"),
                0.5,
            ),
            *(
                Check.at_most(
                    f"off the settled samples, {a} over {b}", results.mean(a, "away") / results.mean(b, "away"), 1.0
                )
                for a, b in (
                    ("cold, more at last", "cold, uniform"),
                    ("cold, uniform", "cold, more at first"),
                    ("warm, twice", "cold, twice"),
                )
            ),
            Check.at_least(
                "off the settled samples, warm, uniform over cold, uniform",
                results.mean("warm, uniform", "away") / results.mean("cold, uniform", "away"),
                1.0,
            ),
            Check.at_most(
                "loss, explicit of half the evaluations over cold, uniform",
                results.mean(next(iter(EXPLICIT)), "loss") / results.mean("cold, uniform", "loss"),
                1.02,
            ),
            Check.at_most("residual, factor an iteration", results.mean("cold, uniform", "rate"), 1.0),
        ]


@dataclass(frozen=True, eq=False)
class Fit:
    """A denoiser, the moving average of it that is sampled, its losses, and the CPU seconds it took."""

    model: FixedPointDenoiser
    average: FixedPointDenoiser
    losses: list[float]
    seconds: float


def _schedule(scale: FixedPointScale) -> Schedule:
    return linear_schedule(scale.steps, "rescaled")


@lru_cache(maxsize=4)
def _fitted(kind: str, seed: int, scale: FixedPointScale, device: str) -> Fit:
    """implicit: trained on all iterates; one: the block once; untied: as many blocks as evaluations, once."""
    import time

    data = task(Context(scale=scale, device=device))
    explicit, depth = kind != "implicit", scale.evals if kind == "untied" else 1
    with seeded("fixed-point-diffusion", kind, seed):
        model = FixedPointDenoiser(
            (1, 8), scale.steps, width=scale.width, heads=scale.heads, depths=(1, depth, 0),
            solver=Picard(0.0 if explicit else scale.damping), stop=FixedSteps(1 if explicit else scale.evals),
        ).to(device)  # fmt: skip
    recipe = DenoisingRecipe(steps=scale.fit, batch=scale.batch, lr=scale.lr, warm_up=scale.warm_up, decay=scale.decay)
    draw = generator_from("fixed-point-diffusion", "fit", seed)  # the same images and noise for every model
    counts = AllIterates(
        counts=(1, scale.most), ahead=scale.ahead, generator=generator_from("fixed-point-diffusion", "counts", seed)
    )
    objective = noise_error if explicit else lambda model, x, t, noise: counts(model, (x, t), noise)  # type: ignore[arg-type]
    fit = Denoising(model, data.train, _schedule(scale).alphas_cumprod, recipe, generator=draw, objective=objective)
    start = time.process_time()
    fit.advance()
    return Fit(model, fit.average, fit.losses, time.process_time() - start)  # type: ignore[arg-type]


def _samples(
    fit: Fit, counts: Sequence[int], warm: bool, seed: int, scale: FixedPointScale, data: DiffusionTask
) -> Tensor:
    """From the same noise whatever the model and the budget."""
    x = data.noise(scale.samples, generator_from("fixed-point-diffusion", "start", seed))
    draw = generator_from("fixed-point-diffusion", "steps", seed)
    carried = Carried(fit.average, counts, warm=warm)
    return sampled(carried, _schedule(scale), x, draw, steps=scale.sampling, clip=1.0, batch=len(x))


@torch.no_grad()
def _loss(carried: Carried, seed: int, scale: FixedPointScale, data: DiffusionTask) -> float:
    """Of the noise in test images along the forward chain, seen from its end to its beginning as a sampler sees it.

    The noise of each step is its own, so that a state carried from a noisier image knows nothing that x_t does not.
    """
    times, course = _schedule(scale).respaced(scale.sampling)
    draw, x = generator_from("fixed-point-diffusion", "chain", seed), data.test
    seen: list[Tensor] = []
    for beta in course.betas.tolist():
        noise = torch.randn(x.shape, generator=draw).to(x)
        seen.append((1 - beta) ** 0.5 * (seen[-1] if seen else x) + beta**0.5 * noise)
    errors = []
    for k in range(scale.sampling - 1, -1, -1):
        abar = course.alphas_cumprod[k].item()
        noise = (seen[k] - abar**0.5 * x) / (1 - abar) ** 0.5
        errors.append((carried(seen[k], times[k].to(x.device).expand(len(x))) - noise).square().mean())
    return float(torch.stack(errors).mean())


@torch.no_grad()
def _rate(fit: Fit, seed: int, scale: FixedPointScale, data: DiffusionTask) -> float:
    """Median over test images of the factor by which |T(z, f) - z| falls an iteration, from the 4th to the 8th."""
    t = torch.randint(scale.steps, (len(data.test),), generator=generator_from("fixed-point-diffusion", "t", seed))
    noise = data.noise(len(data.test), generator_from("fixed-point-diffusion", "rate", seed))
    t = t.to(noise.device)
    f = fit.average.encode((_schedule(scale).noised(data.test, t, noise), t))
    z, found = fit.average.start(f), []
    for _ in range(8):
        image = fit.average.operator(z, f)
        found.append((image - z).flatten(1).norm(dim=1))
        z = scale.damping * z + (1 - scale.damping) * image
    return float((found[7] / found[3]).pow(0.25).median())


def _course(values: list[float]) -> dict[str, Any]:
    """The smoothed losses, at most 200 points."""
    shown, smooth = range(0, len(values), max(1, len(values) // 200)), smoothed(values)
    return curve(
        [k + 1 for k in shown], [smooth[k] for k in shown], x_label="training step", y_label="loss", log_y=True
    )


EXPERIMENT = FixedPointDiffusion()
