"""Scores of the digits: how one is fitted, how its samples are scored, and where it settles without noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint import Anderson, Equation, Picard, Tolerance, certify, solve
from settlepoint.chains import Denoised, langevin, noise_ladder
from settlepoint.experiments import settling
from settlepoint.experiments.digit_images import DigitImages, arrived, digit_images, distinct, share_settled
from settlepoint.experiments.scale import Context, Scale
from settlepoint.models import GaussianScore, KernelScore, ScoreNet
from settlepoint.runs import generator_from, seeded
from settlepoint.training import Hooks, Recipe, ScoreMatching, fit, matched
from settlepoint.training.frechet import frechet

COPY = 0.1
"""Distance to a training image below which a sample is one."""


@dataclass(frozen=True, kw_only=True)
class SmldScale(Scale):
    """Sizes of the experiment on Langevin dynamics."""

    samples: Annotated[int, "images that are drawn, and test images they are compared with"] = 200
    highest: Annotated[float, "first noise level, about the largest distance of two digits"] = 5.0
    lowest: Annotated[float, "last noise level"] = 0.05
    levels: Annotated[int, "levels between them, both counted"] = 10
    steps: Annotated[int, "Langevin steps a level"] = 50
    rate: Annotated[float, "step in units of the squared level"] = 0.1
    hidden: Annotated[int, "units of the hidden layers of the network"] = 256
    epochs: Annotated[int, "passes over the 1,400 training images"] = 200
    batch: Annotated[int, "images a step of the optimiser"] = 100
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 2e-3
    settled: Annotated[int, "samples that are settled without noise"] = 100
    measured: Annotated[int, "samples at which Jacobians are measured, at every level"] = 20
    max_steps: Annotated[int, "evaluations of the settling at most"] = 5000
    components: Annotated[int, "principal components of the Frechet distance"] = 32
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


SIZES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "seeds": 1, "samples": 40, "levels": 4, "steps": 5, "hidden": 32, "epochs": 3, "settled": 10, "measured": 2,
        "max_steps": 50, "components": 8, "thresholds": False,
    },
    "cpu": {"seeds": 3},
    "paper": {"seeds": 5, "samples": 397, "steps": 100, "hidden": 512, "epochs": 1000, "settled": 397},
}  # fmt: skip


def pictures(context: Context) -> DigitImages:
    """The digits of every cell and seed."""
    scale: SmldScale = context.scale
    return digit_images(scale.samples, context.device, scale.components)


def score_of(kind: str, seed: int, context: Context) -> tuple[nn.Module, float]:
    """ "exact", "gaussian" or "trained", in float64, and the CPU seconds of its training."""
    images = pictures(context).train
    match kind:
        case "exact":
            return KernelScore(images), 0.0
        case "gaussian":
            return GaussianScore(images), 0.0
    scale: SmldScale = context.scale
    return _trained(replace(scale, seeds=1, steps=1, rate=0.1, levels=2, thresholds=True), seed, context.device)


@lru_cache(maxsize=8)
def _trained(scale: SmldScale, seed: int, device: str) -> tuple[nn.Module, float]:
    """One network a seed, whatever samples from it."""
    images = digit_images(scale.samples, device, scale.components).train.float()
    with seeded("smld", "weights", seed):
        net = ScoreNet(images, scale.hidden).to(device)
    draw = generator_from("smld", "levels", seed)
    objective = ScoreMatching(highest=scale.highest, lowest=scale.lowest, generator=draw)
    recipe = Recipe(epochs=scale.epochs, batch=scale.batch, lr=scale.lr, clip=10.0)
    order = generator_from("smld", "order", seed)
    history = fit(net, (images, images), recipe, generator=order, objective=objective, hooks=Hooks())
    return net.double(), history.seconds


@torch.no_grad()
def losses(score: nn.Module, context: Context) -> dict[str, float]:
    """Score-matching loss on training and test images, mean over the levels, same noise for every score."""
    scale, data = context.scale, pictures(context)
    found = {}
    for name, images in (("train loss", data.train[: 3 * scale.samples]), ("test loss", data.test.repeat(3, 1))):
        draw = generator_from("smld", name)
        levels = noise_ladder(scale.highest, scale.lowest, 10)
        each = [matched(score, images, images.new_tensor(sigma), draw).mean() for sigma in levels]
        found[name] = float(torch.stack(each).mean())
    return found


def beginning(seed: int, context: Context) -> tuple[Tensor, torch.Generator]:
    """Noise of the highest level around the mean image, and what draws on."""
    scale, data = context.scale, pictures(context)
    draw = generator_from("smld", "samples", seed)
    noise = torch.randn(data.test.shape, generator=draw, dtype=data.test.dtype).to(data.test)
    return data.train.mean(0) + scale.highest * noise, draw


@torch.no_grad()
def sampled(score: nn.Module, seed: int, context: Context) -> tuple[Tensor, dict[str, float], dict[str, list[float]]]:
    """Samples; the contraction of the noise-free map; its course and that of the residual, at ten levels."""
    scale = context.scale
    x, draw = beginning(seed, context)
    norms, residuals, levels = [], [], noise_ladder(scale.highest, scale.lowest, scale.levels)
    looks = {round(k * (scale.levels - 1) / 9) for k in range(10)}
    for k, sigma in enumerate(levels):
        part = langevin(score, x, (sigma,), scale.steps, rate=scale.rate, generator=draw)
        x = part.value
        if k in looks:
            residuals.append(float(part.residual[0].median()) / sigma)
            norms.append(_expansion(score, x[: scale.measured], sigma, scale.rate))
    known = [norm for norm in norms if norm == norm]
    metrics = {
        "norm, first": norms[0],
        "norm, last": norms[-1],
        "expanding": sum(norm >= 1 for norm in known),
        "largest norm": max(known, default=float("nan")),
        "evals": float(scale.levels * scale.steps),
    }
    return x, metrics, {"level": [levels[k] for k in sorted(looks)], "norm": norms, "residual": residuals}


def _expansion(score: nn.Module, x: Tensor, sigma: float, rate: float) -> float:
    """Median ||J|| of x -> (1 - rate) x + rate T(x) at x, nan where x is not finite."""
    if not bool(x.isfinite().all()):
        return float("nan")
    step = Denoised(score, sigma)
    return float(certify.lipschitz_estimate(Equation(lambda z: torch.lerp(z, step(z), rate)), x, 15).median())


@torch.no_grad()
def judged(x: Tensor, context: Context) -> dict[str, float]:
    """Frechet distance to the test images, and distance to the training images: what a copy is."""
    data = pictures(context)
    x = x[x.isfinite().all(1)]
    if len(x) < 2:
        return {"fd": float("inf"), "nearest": float("inf"), "copies": 0.0}
    near = torch.cdist(x, data.train).amin(1)
    found = {"nearest": float(near.median()), "copies": 100.0 * float((near < COPY).double().mean())}
    return {"fd": frechet(data.features(x), data.features(data.test)), **found}


@torch.no_grad()
def settled(score: nn.Module, samples: Tensor, seed: int, context: Context) -> dict[str, float]:
    """x = T(x) at the last level, solved from the samples, and from the end of an annealed ascent without noise."""
    scale: SmldScale = context.scale
    start = beginning(seed, context)[0][: scale.settled]
    levels = noise_ladder(scale.highest, scale.lowest, scale.levels)
    end = langevin(score, start, levels, scale.steps, rate=scale.rate, temperature=0.0)
    found = {"left": float(end.residual[-1].median()) if end.value.isfinite().all() else float("inf")}
    for name, x in (("", samples[: scale.settled]), (", ascent", end.value)):
        rows = x[x.isfinite().all(1)]
        if len(rows):
            found |= {f"{key}{name}": value for key, value in _modes(score, rows, context).items()}
    return found


def _modes(score: nn.Module, x: Tensor, context: Context) -> dict[str, float]:
    """How rows settle at the last level by two solvers, and where."""
    scale: SmldScale = context.scale
    eq = Equation(Denoised(score, scale.lowest))
    stop = Tolerance(atol=1e-6, max_steps=scale.max_steps, window=scale.max_steps)
    picard, anderson = (solve(eq, x, solver, stop) for solver in (Picard(), Anderson(5)))
    points = arrived(picard)
    return {
        **{f"{name}, Picard": value for name, value in settling.row_metrics(picard).items()},
        "false claims": settling.recheck(eq, picard, stop)["false claims"],
        "settled": share_settled(picard),
        "ran away": 100.0 * picard.counts().get("DIVERGED", 0) / len(x),
        "settled, Anderson": share_settled(anderson),
        "evals p50, Anderson": float(anderson.evals.double().median()),
        "modes": distinct(points, COPY),
        "modes that are images": judged(points, context)["copies"] if len(points) > 1 else float("nan"),
        "radius at modes": _radius(eq, points[: scale.measured]),
    }


def _radius(eq: Equation, x: Tensor) -> float:
    return float(certify.spectral_radius(eq, x, x.shape[1]).median()) if len(x) else float("nan")
