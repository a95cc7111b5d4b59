"""The task of the diffusion study: images, their kernel density, the loss a step, and Frechet distances of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from settlepoint.chains.ancestral import Epsilon, ancestral
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.schedules import Kind, Schedule, linear_schedule
from settlepoint.data.cifar import cifar10
from settlepoint.data.digits import digits
from settlepoint.experiments.scale import Context
from settlepoint.training.frechet import Principal, frechet

Draw = Callable[[int, torch.Generator], Tensor]
"""So many clean images."""

ARMS: tuple[Kind, ...] = ("fixed", "rescaled")
SETS = ("digits", "cifar10")


@dataclass(frozen=True, eq=False)
class DiffusionTask:
    """Images in [-1, 1], (N, C, H, W), and the features that Frechet distances are taken on."""

    train: Tensor
    test: Tensor
    features: Principal

    def fd(self, samples: Tensor) -> float:
        """FD-PCA of samples to the test images."""
        return frechet(self.features(samples), self.features(self.test))

    def floor(self, count: int) -> float:
        """That of as many training images as there are, `count` at most: what memory would reach."""
        return self.fd(self.train[:count])

    def ceiling(self, count: int, generator: torch.Generator) -> float:
        """That of noise, N(0, I), where a sampler starts."""
        return self.fd(self.noise(count, generator))

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """x_T, drawn on the CPU."""
        return torch.randn((count, *self.train.shape[1:]), generator=generator).to(self.train)

    def drawn(self, bandwidth: float = 0.0, images: Tensor | None = None) -> Draw:
        """Draws from the kernel density of the training images, or of those given."""
        points = self.train if images is None else images

        def draw(count: int, generator: torch.Generator) -> Tensor:
            rows = torch.randint(len(points), (count,), generator=generator).to(points.device)
            return points[rows] + bandwidth * self.noise(count, generator)

        return draw

    def exact(self, schedule: Schedule, bandwidth: float) -> ExactScore:
        """The best that any network could learn, were the kernel density the distribution of the images."""
        return ExactScore(self.train, schedule.alphas_cumprod, bandwidth)


def task(context: Context, name: str = "digits", components: int = 16) -> DiffusionTask:
    """The same images for every cell and seed. Raises ValueError for a set that there is not."""
    if name not in SETS:
        raise ValueError(f"images must be one of {', '.join(SETS)}, got {name!r}")
    return _task(context.data_dir, name, components, context.device)


@lru_cache(maxsize=2)
def _task(folder: Path | None, name: str, components: int, device: str) -> DiffusionTask:
    if name == "digits":
        split = digits()
        train, test = (2 * x.view(-1, 1, 8, 8) - 1 for x in (split.train_x, split.test_x))
    else:
        found = cifar10(folder)
        train, test = (x.float() / 127.5 - 1 for x in (found.train_x, found.test_x))
    train, test = train.to(device), test.to(device)
    return DiffusionTask(train, test, Principal(train, components))


@torch.no_grad()
def losses(
    epsilon: Epsilon, schedule: Schedule, draw: Draw, generator: torch.Generator, *, each: int, batch: int = 512
) -> Tensor:  # (T,)
    """mean |epsilon(x_t, t) - n|^2 / D for each t, over `each` clean images and noises n that no fit has seen.

    The mean over t is the loss that a denoiser is trained by; guessing 0 gives 1.
    """
    found = []
    for t in torch.arange(len(schedule)).repeat_interleave(each).split(batch):
        x = draw(len(t), generator)
        noise = torch.randn(x.shape, generator=generator).to(x)
        t = t.to(x.device)
        error = epsilon(schedule.noised(x, t, noise), t) - noise
        found.append(error.square().flatten(1).mean(1))
    return torch.cat(found).view(len(schedule), each).mean(1)


def loss_curve(values: Sequence[float], points: int = 40) -> tuple[list[float], list[float]]:
    """Losses a step as (t / T, mean) over at most so many stretches of neighbouring steps."""
    parts = [(range(len(values))[a:b], values[a:b]) for a, b in _stretches(len(values), points)]
    return [sum(t) / len(t) / (len(values) - 1) for t, _ in parts], [sum(v) / len(v) for _, v in parts]


def _stretches(length: int, points: int) -> list[tuple[int, int]]:
    count = min(points, length)
    return [(k * length // count, (k + 1) * length // count) for k in range(count)]


def sampled(
    epsilon: Epsilon,
    schedule: Schedule,
    x: Tensor,
    generator: torch.Generator,
    *,
    steps: int | None = None,
    clip: float | None = None,
    batch: int = 512,
    say: Callable[[str], None] = lambda text: None,
) -> Tensor:
    """Samples from the starts x, so many at once; say: told the step now and then."""

    def told(done: int, of: int) -> None:
        if done % 25 == 0 or done == of:
            say(f"sampling, step {done} of {of}")

    parts = [ancestral(epsilon, schedule, p, generator, steps=steps, clip=clip, progress=told) for p in x.split(batch)]
    return torch.cat(parts)


def cell_names(arms: Sequence[str], steps: Sequence[int]) -> list[str]:
    """One cell an arm and number of steps."""
    return [f"{arm}, T = {count}" for arm in arms for count in steps]


def parsed(cell: str) -> tuple[str, int]:
    """The inverse for one cell: arm and T.

    >>> parsed("fixed, T = 25")
    ('fixed', 25)
    """
    arm, _, count = cell.rpartition(", T = ")
    return arm, int(count)


def largest(values: Sequence[float]) -> float:
    """The largest, nan when one was not measured."""
    return max(values) + 0 * math.fsum(values)


def ratio(values: Sequence[float]) -> float:
    """The largest over the least, nan when one was not measured."""
    return largest(values) / min(values)


def scheduled(arm: str, steps: int) -> Schedule:
    """The linear schedule that the arm's first word names."""
    return linear_schedule(steps, arm.split()[0])  # type: ignore[arg-type]
