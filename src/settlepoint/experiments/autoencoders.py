"""Autoencoders as operators: how they are fitted, where they settle from digits, and what iterating them takes away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint import Anderson, Equation, Picard, Solution, Tolerance, certify, solve
from settlepoint.experiments import settling
from settlepoint.experiments.digit_images import (
    DigitImages,
    Projection,
    arrived,
    digit_images,
    distinct,
    mean_square,
    share_settled,
    starts,
)
from settlepoint.experiments.scale import Context, Scale
from settlepoint.models import VAE
from settlepoint.runs import generator_from, seeded
from settlepoint.training import Elbo, History, Hooks, Recipe, fit

DEPTHS = (0, 1, 2, 4, 8, 16, 32)
"""Iterations after which the error to the clean digit is taken."""

_CLOSE = 1e-9  # to a radius of 1, which a projection has


@dataclass(frozen=True, kw_only=True)
class VaeScale(Scale):
    """Sizes of the experiment on autoencoders."""

    test: Annotated[int, "test digits that iterations start from"] = 200
    hidden: Annotated[int, "units of the two hidden layers"] = 128
    epochs: Annotated[int, "passes over the 1,400 training images"] = 100
    batch: Annotated[int, "images a step of the optimiser"] = 100
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 3e-3
    deviation: Annotated[float, "error of a pixel that the bound takes for granted"] = 0.15
    noise: Annotated[float, "deviation of the noise on digits, and in the training of denoising"] = 0.3
    kept: Annotated[float, "chance of a pixel to stay where pixels are dropped"] = 0.5
    memories: Annotated[int, "training images of the cell memory"] = 20
    atol: Annotated[float, "residual of a fixed point"] = 1e-8
    max_steps: Annotated[int, "evaluations of a row at most"] = 2000
    anderson: Annotated[int, "of these, evaluations for Anderson(5)"] = 500
    depth: Annotated[int, "iterations behind which, up to four times as many, a verdict is taken"] = 50
    apart: Annotated[float, "distance from which on fixed points are two"] = 0.05
    certified: Annotated[int, "fixed points for which a certificate is asked"] = 40
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


@dataclass(frozen=True)
class Arm:
    """One way of training: what differs from a VAE with beta = 1 on clean images.

    decay: of AdamW. noisy: trained to take noise away. contracting: the bound of T, if it is held to one. few: trained
    on `memories` images alone.
    """

    latent: int
    beta: float = 1.0
    decay: float = 1e-4
    noisy: bool = False
    contracting: float = 0.0
    few: bool = False


def fitted(arm: Arm, seed: int, context: Context) -> tuple[VAE, History]:
    """The model of an arm in float64, and the course of its training; arms of one width start from one network."""
    scale: VaeScale = context.scale
    images = digit_images(scale.test, context.device).train[: scale.memories if arm.few else None].float()
    with seeded("vae", "weights", arm.latent, seed):
        model = VAE(images.shape[1], scale.hidden, arm.latent).to(context.device)
    draw = generator_from("vae", "draws", seed)
    noise = scale.noise if arm.noisy else 0.0
    objective = Elbo(beta=arm.beta, deviation=scale.deviation, noise=noise, generator=draw)
    steps = scale.epochs * -(-1400 // scale.batch)  # as many for few images as for all
    epochs = steps // -(-len(images) // scale.batch)
    recipe = Recipe(epochs=epochs, batch=scale.batch, lr=scale.lr, weight_decay=arm.decay, clip=1.0)
    hooks = Hooks(
        after_step=_projection(model, arm.contracting),
        after_epoch=lambda epoch, loss: context.progress(f"epoch {epoch}, loss {loss:.2f}"),
    )
    order = generator_from("vae", "order", seed)
    history = fit(model, (images, images), recipe, generator=order, objective=objective, hooks=hooks)
    model = model.double()
    _projection(model, arm.contracting)()
    return model, history


def _projection(model: VAE, bound: float) -> Any:
    """After each step: the four maps of T back to where their product, with the sigmoid's 1/4, is at most the bound."""
    if not bound:
        return lambda: None
    maps = nn.ModuleList((model.body, model.mean, model.decoder))
    return lambda: certify.project_(maps, (4 * bound) ** 0.25)


@torch.no_grad()
def diagnosed(T: nn.Module, context: Context) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All numbers of a row of the tables, and the courses of the errors by start."""
    scale: VaeScale = context.scale
    data = digit_images(scale.test, context.device)
    begin, eq = starts(data, scale.noise, scale.kept), Equation(T)
    metrics = {"reconstruction": mean_square(T(data.test), data.test)}
    metrics["mean image"] = mean_square(data.train.mean(0), data.test)
    metrics["same class, one pass"] = data.agreement(T(data.test), data.test_y)
    settled = {name: solve(eq, x, Picard(), served(scale)) for name, x in begin.items()}
    metrics |= _settled(eq, settled["digits"], data, scale) | _points(eq, settled["digits"], scale)
    judged = certify.verdict(eq, data.test, scale.depth)
    metrics["settling"] = 100.0 * judged.counts().get("settling", 0) / len(data.test)
    metrics["distinct, noise"] = distinct(arrived(settled["noise"]), scale.apart)
    metrics["same class, noisy"] = data.agreement(_value(settled["noisy"]), data.test_y)
    courses = {name: course(T, begin[name], data.test) for name in ("noisy", "dropped")}
    for name, errors in courses.items():
        metrics |= {f"{name}, {k}": error for k, error in zip(DEPTHS, errors, strict=True)}
        metrics[f"{name}, fixed point"] = mean_square(_value(settled[name]), data.test)
    return metrics, courses


def served(scale: VaeScale) -> Tolerance:
    """Until the residual is small: the iterates of a bounded T cannot run away, however long they take on a saddle."""
    return Tolerance(atol=scale.atol, max_steps=scale.max_steps, window=scale.max_steps, growth=1e9)


def course(T: nn.Module, x: Tensor, clean: Tensor) -> list[float]:
    """Mean squared error to the clean digits after DEPTHS iterations."""
    found = []
    for k in range(DEPTHS[-1] + 1):
        if k in DEPTHS:
            found.append(mean_square(x, clean))
        x = T(x)
    return found


def _settled(eq: Equation, found: Solution, data: DigitImages, scale: VaeScale) -> dict[str, float]:
    """How the digits settled, by two solvers, and what they became."""
    short = Tolerance(atol=scale.atol, max_steps=scale.max_steps)
    anderson = solve(eq, data.test, Anderson(5), served(replace(scale, max_steps=scale.anderson)))
    return {
        **settling.row_metrics(found),
        **settling.recheck(eq, found, served(scale)),
        "settled": share_settled(found),
        "diverged, short window": solve(eq, data.test, Picard(), short).counts().get("DIVERGED", 0),
        "settled, Anderson": share_settled(anderson),
        "evals p50, Anderson": float(anderson.evals.double().median()),
        "stable, Anderson": _stable(eq, arrived(anderson)),
        "distinct, digits": distinct(arrived(found), scale.apart),
        "distinct, Anderson": distinct(arrived(anderson), scale.apart),
        "same class": data.agreement(_value(found), data.test_y),
        "moved": mean_square(_value(found), data.test),
    }


def _points(eq: Equation, found: Solution, scale: VaeScale) -> dict[str, float]:
    """Jacobians and certificates at the fixed points of the digits."""
    x = arrived(found)
    radius = certify.spectral_radius(eq, x, x.shape[1])
    claims = certify.certificate(eq, x[: scale.certified])
    proved = claims.radius[claims.proved]
    return {
        "spectral radius": float(radius.median()),
        "largest radius": float(radius.max()),
        "norm": float(certify.lipschitz_estimate(eq, x).median()),
        "upper bound": certify.lipschitz_upper(eq.operator, example=(x[:1],)),
        "proved": 100.0 * float(claims.proved.double().mean()),
        "error radius": float(proved.median()) if len(proved) else float("nan"),
        "unique": 100.0 * float((claims.unique_in == torch.inf).double().mean()),
    }


def _stable(eq: Equation, x: Tensor) -> float:
    """Share of fixed points, in per cent, that attract: spectral radius below 1."""
    return (
        100.0 * float((certify.spectral_radius(eq, x, x.shape[1]) < 1 - _CLOSE).double().mean())
        if len(x)
        else float("nan")
    )


def _value(found: Solution) -> Tensor:
    assert isinstance(found.value, Tensor)
    return found.value


@torch.no_grad()
def recalled(T: nn.Module, context: Context) -> dict[str, float]:
    """Of the few images that were trained on: are they fixed points that attract, and are they found from noise?"""
    scale: VaeScale = context.scale
    images = digit_images(scale.test, context.device).train[: scale.memories]
    draw = generator_from("vae", "memories")
    shown = images + scale.noise * torch.randn(images.shape, generator=draw, dtype=images.dtype).to(images)
    end = lambda x: _value(solve(Equation(T), x, Picard(), served(scale)))  # noqa: E731
    share = lambda x: 100.0 * float(((end(x) - images).norm(dim=1) < 0.5).double().mean())  # noqa: E731
    return {"kept": share(images), "recalled": share(shown), "memory error": mean_square(T(images), images)}


def control(count: int, context: Context) -> nn.Module:
    """PCA of that width; the mean image for 0."""
    return Projection(digit_images(context.scale.test, context.device).train, count)


SIZES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "seeds": 1, "test": 30, "hidden": 32, "epochs": 6, "max_steps": 100, "depth": 10, "atol": 1e-4, "certified": 2,
        "thresholds": False,
    },
    "cpu": {"seeds": 3},
    "paper": {"seeds": 5, "hidden": 512, "epochs": 400, "max_steps": 20_000, "certified": 397},
}  # fmt: skip
