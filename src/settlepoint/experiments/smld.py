"""smld: score matching with Langevin dynamics on digits, as an iteration whose step falls from level to level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from settlepoint.chains import Denoised, printed_drift, reverse_drift, reversed_sde
from settlepoint.data import digits
from settlepoint.experiments.digit_scores import (
    SIZES,
    SmldScale,
    judged,
    losses,
    pictures,
    sampled,
    score_of,
    settled,
)
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
from settlepoint.runs import generator_from


@dataclass(frozen=True)
class Way:
    """A score, and how the same number of evaluations is spent: many: times as many levels; rate: times the rate."""

    score: str
    many: float = 1.0
    rate: float = 1.0


WAYS: dict[str, Way] = {
    "trained": Way("trained"),
    "trained, few levels": Way("trained", many=0.4),
    "trained, many levels": Way("trained", many=10.0),
    "trained, rate x 5": Way("trained", rate=5.0),
    "exact": Way("exact"),
    "exact, few levels": Way("exact", many=0.4),
    "exact, many levels": Way("exact", many=10.0),
    "exact, rate x 5": Way("exact", rate=5.0),
    "gaussian": Way("gaussian"),
}
SDES = {"reverse SDE": reverse_drift, "reverse SDE, as printed": printed_drift}
ANCHORS = ("training images", "test images", "noise")
SCORES = ("trained", "exact", "gaussian")
EXACT = ("exact", "gaussian")
"""Those that are the gradient of a density."""


def spent(way: Way, scale: SmldScale) -> SmldScale:
    """The sizes of a way: more levels of fewer steps, or a longer step.

    >>> found = spent(Way("exact", many=10.0, rate=5.0), SmldScale())
    >>> found.levels, found.steps, found.rate
    (100, 5, 0.5)
    """
    levels = max(2, round(scale.levels * way.many))
    steps = max(1, round(scale.levels * scale.steps / levels))
    return replace(scale, levels=levels, steps=steps, rate=scale.rate * way.rate)


class Smld(Experiment):
    """Scores that are trained, exact, and of a Gaussian; levels against steps; the noise-free map and its modes."""

    id = "smld"
    title = "Langevin dynamics on digits as an iteration with a changing step"
    claim = (
        "Without noise a level is a damped Picard iteration of x = x + sigma^2 s(x, sigma). Where s is the gradient "
        "of a density, its annealing brings all starts to one mode; with a network it may run away. The exact score "
        "gives back its training images; the Frechet distance on principal components hardly tells digits from samples "
        "of a Gaussian of their mean and covariance."
    )
    source = "Song and Ermon (2019); Operator Learning Meets Numerical Analysis, reverse SDE (erratum)"
    needs = (lambda context: digits(),)
    scales: ClassVar = {name: SmldScale(**sizes) for name, sizes in SIZES.items()}
    scaled_down = {
        "smoke": "40 samples, 4 levels of 5 steps, 3 epochs of 32 units",
        "cpu": "200 samples of 8 x 8 pixels, a perceptron of 256 units, 200 epochs",
    }
    tables = (
        Table(
            "Samples",
            (
                Column("train loss", "Score matching, training images", fmt=".2f", better="low"),
                Column("test loss", "test images", fmt=".2f", better="low"),
                Column("levels", "Levels", fmt=".0f"),
                Column("steps", "steps a level", fmt=".0f"),
                Column("rate", "rate", fmt=".2f"),
                Column("evals", "Evaluations", fmt=".0f"),
                Column("fd", "FD-PCA", fmt=".3f"),
                Column("fd, denoised", "after the last denoising step", fmt=".3f"),
                Column("nearest", "Distance to the nearest training image", fmt=".2f"),
                Column("copies", "copies of one", "%", ".0f"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            caption="x <- x + a s + sqrt(2 a) n, a = rate sigma^2, from 5 to .05. exact: the kernel density of the "
            "training images; gaussian: of their mean and covariance, the trivial score. FD-PCA: on 32 principal "
            "components, against as many test images; training images: its floor, noise (of the same mean and "
            "deviation): its ceiling. It compares means and covariances and nothing else. Distances after the last "
            "denoising step; copies: within .1. reverse SDE: exact score, beta from .1 to 20; as printed: without the "
            "x of its drift.",
            command="settle run smld --scale {scale} --seeds {seeds}",
        ),
        Table(
            "Without noise",
            (
                Column("norm, first", "Norm of the step's Jacobian, first level", fmt=".3f"),
                Column("norm, last", "last level", fmt=".3f"),
                Column("largest norm", "largest", fmt=".3f"),
                Column("expanding", "Levels of ten at which it is at least 1", fmt=".0f"),
                Column("settled", "Settled, Picard", "%", ".0f"),
                Column("evals p50, Picard", "median evaluations", fmt=".0f"),
                Column("ran away", "ran away", "%", ".0f"),
                Column("settled, Anderson", "Settled, Anderson", "%", ".0f"),
                Column("evals p50, Anderson", "median evaluations", fmt=".0f"),
                Column("modes", "Modes reached", fmt=".0f"),
                Column("modes that are images", "that are training images", "%", ".0f"),
                Column("radius at modes", "Spectral radius there", fmt=".3f"),
                Column("modes, ascent", "Modes reached by ascent", fmt=".0f"),
                Column("left", "residual behind it", fmt=".1e"),
                Column("settled, ascent", "settled, Picard", "%", ".0f"),
                Column("ran away, ascent", "ran away", "%", ".0f"),
                Column("evals p50, Picard, ascent", "median evaluations", fmt=".0f"),
            ),
            rows=(*WAYS,),
            caption="Norm: of x + a s(x), median over samples of the noisy chain. Modes: x = T(x) at the last level, "
            "solved from 100 samples to a residual of 1e-6. Ascent: the same levels with temperature 0 from 100 draws "
            "of noise, then solved: the first levels bring all starts together, and only noise would part them again.",
        ),
    )
    figures = (
        Figure("Contraction", ("norm",), "Norm of the Jacobian of the noise-free step, by level.", rows=(*WAYS,)),
        Figure("Residual", ("residual",), "Residual of the noise-free map in the noisy chain over sigma.", rows=SCORES),
    )

    def cells(self, scale: SmldScale) -> Sequence[str]:
        return (*WAYS, *SDES, *ANCHORS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        if cell in ANCHORS:
            return outcome(anchor(cell, seed, context) | {"evals": 0.0})
        if cell in SDES:
            return outcome(solved(cell, seed, context))
        way = WAYS[cell]
        context = replace(context, scale=spent(way, context.scale))
        scale: SmldScale = context.scale
        score, seconds = score_of(way.score, seed, context)
        x, metrics, courses = sampled(score, seed, context)
        metrics |= {"fd": judged(x, context)["fd"], "training seconds": seconds, "rate": scale.rate}
        metrics |= {"levels": float(scale.levels), "steps": float(scale.steps)} | losses(score, context)
        with torch.no_grad():
            metrics |= _renamed(judged(Denoised(score, scale.lowest)(x), context))
        metrics |= settled(score, x, seed, context)
        levels = courses.pop("level")
        curves = {
            name: curve(levels, values, x_label="noise level", y_label=name, log_y=name == "residual", group=cell)
            for name, values in courses.items()
        }
        return outcome(metrics, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        mean = results.mean
        ratio = lambda metric, a, b: mean(a, metric) / mean(b, metric)  # noqa: E731
        claims = results.total("false claims") + results.total("false claims, ascent")
        floor, ceiling = mean("training images", "fd"), mean("noise", "fd")
        return [
            Check.at_most("training loss: exact over trained", ratio("train loss", "exact", "trained"), 1),
            Check.at_most("test loss: trained over gaussian", ratio("test loss", "trained", "gaussian"), 1),
            Check.at_least("test loss: exact over gaussian", ratio("test loss", "exact", "gaussian"), 1),
            Check.at_most("trained: FD-PCA over that of noise", mean("trained", "fd") / ceiling, 0.5),
            Check.at_most("gaussian: FD-PCA over the floor", mean("gaussian", "fd, denoised") / floor, 2.0),
            Check.at_least("exact: copies of training images (%)", mean("exact", "copies"), 90),
            Check.at_most("trained: copies of training images (%)", mean("trained", "copies"), 10),
            *(Check.at_least(f"{name}: samples that settle (%)", mean(name, "settled"), 99) for name in EXACT),
            *(Check.within(f"{name}: modes reached by ascent", mean(name, "modes, ascent"), 1, 1) for name in EXACT),
            Check.within("gaussian: modes", mean("gaussian", "modes"), 1, 1),
            Check.at_least("exact: modes reached from 100 samples", mean("exact", "modes"), 50),
            Check.at_most("false claims of convergence", claims, 0, "all cells and seeds"),
            Check.at_least("reverse SDE: FD-PCA, as printed over corrected", ratio("fd", *reversed(SDES)), 2.0),
        ]


def _renamed(found: Mapping[str, float]) -> dict[str, float]:
    return {"fd, denoised" if name == "fd" else name: value for name, value in found.items()}


@torch.no_grad()
def solved(cell: str, seed: int, context: Context) -> dict[str, float]:
    """Samples of the reverse SDE with the exact score, by as many evaluations as the annealing takes."""
    scale, data = context.scale, pictures(context)
    draw, steps = generator_from("smld", "sde", seed), scale.levels * scale.steps
    start = torch.randn(data.test.shape, generator=draw, dtype=data.test.dtype).to(data.test)
    score = score_of("exact", seed, context)[0]
    x = reversed_sde(score, start, steps, drift=SDES[cell], generator=draw)
    return {"steps": float(steps), "evals": float(steps), **judged(x, context)}


def anchor(cell: str, seed: int, context: Context) -> dict[str, float]:
    """The floor and the ceiling of the Frechet distance, and what the test images themselves give."""
    data = pictures(context)
    match cell:
        case "training images":
            return judged(data.train[torch.arange(len(data.test)) * len(data.train) // len(data.test)], context)
        case "test images":
            return judged(data.test, context)
    draw = generator_from("smld", "noise", seed)
    noise = torch.randn(data.test.shape, generator=draw, dtype=data.test.dtype).to(data.test)
    deviation = (data.train - data.train.mean(0)).square().mean().sqrt()
    return judged(data.train.mean(0) + deviation * noise, context)


EXPERIMENT = Smld()
