"""Denoising: the fit of a model to the noise in images, step by step, that goes on from a file as if never stopped."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from settlepoint.solve import drops
from settlepoint.training.checkpoint import write
from settlepoint.training.denoising_file import FORMAT, fingerprint, identity, stored
from settlepoint.training.fit import finite

Objective = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class DenoisingRecipe:
    """How a denoiser is fitted; the defaults are the paper's.

    steps: of AdamW with lr, betas, eps, weight_decay, on `batch` images each. warm_up: steps over which the rate rises
    from 0; from there it falls to 0 along a cosine. clip: the gradient is shortened to this norm. decay: of the moving
    average of the weights, min(decay, (1 + step) / (10 + step)).
    """

    steps: int
    batch: int = 64
    lr: float = 1e-4
    betas: tuple[float, float] = (0.95, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-6
    warm_up: int = 500
    clip: float = 1.0
    decay: float = 0.9999

    def __post_init__(self):
        for name, value in (("steps", self.steps), ("batch", self.batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.warm_up < self.steps:
            raise ValueError(f"warm_up must lie in [0, steps = {self.steps}), got {self.warm_up}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.lr * step / self.warm_up
        return self.lr * (1 + math.cos(math.pi * (step - self.warm_up) / (self.steps - self.warm_up))) / 2


def noise_error(model: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the noise that the model finds in x at t."""
    return nn.functional.mse_loss(model(x, t), noise)


class Denoising:
    """min E |model(x_t, t) - n|^2 over clean x_0 from images, t from 0 ... T - 1 and n ~ N(0, I)

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n,  abar = alphas_cumprod (T,). images: (N, ...), on the model's device.
    generator: draws all three, on the CPU. objective: what is minimised instead, of (model, x_t, t, n). name: tells one
    run from another in its files, as do the images, abar, the recipe and the repr of objective.

    model, average (its weights' moving average, for samples), losses (one a step) and step say how far it is.

        >>> images = torch.zeros(8, 2)
        >>> class Half(nn.Linear):
        ...     def forward(self, x, t):
        ...         return super().forward(x)
        >>> fit = Denoising(Half(2, 2), images, torch.tensor([0.9, 0.5]), DenoisingRecipe(steps=5, batch=4, warm_up=0))
        >>> fit.advance(3)
        >>> fit.step, len(fit.losses)
        (3, 3)

    Raises ValueError for a model with dropout, whose draws no file would hold, and images that are not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        alphas_cumprod: Tensor,
        recipe: DenoisingRecipe,
        *,
        generator: torch.Generator | None = None,
        objective: Objective = noise_error,
        name: str = "",
    ):
        _check_model(model)
        if not bool(images.isfinite().all()):
            raise ValueError("images must be finite, got NaN or Inf")
        self.model, self.recipe, self.objective, self.name = model, recipe, objective, name
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.images, self.abar = images, alphas_cumprod.to(images)
        self.generator = torch.Generator() if generator is None else generator
        self.optimizer = torch.optim.AdamW(model.parameters(), recipe.lr, recipe.betas, recipe.eps, recipe.weight_decay)
        self.losses: list[float] = []

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def advance(self, steps: int | None = None, after_step: Callable[[int, float], None] = lambda step, loss: None):
        """Take so many more steps, all that are left unless given; after_step(steps done, loss).

        Raises FloatingPointError when loss or gradient of a step is not finite; the weights are then those before it.
        """
        left = self.recipe.steps - self.step
        self.model.train()
        for _ in range(left if steps is None else min(steps, left)):
            loss = self._loss()
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step)
            self.optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            found = finite(self.model, loss, norm, f"step {self.step}")
            self.optimizer.step()
            self.losses.append(found)
            self._follow()
            after_step(self.step, self.losses[-1])
        self.model.eval()

    def _loss(self) -> Tensor:
        count, device = self.recipe.batch, self.images.device
        rows = torch.randint(len(self.images), (count,), generator=self.generator)
        t = torch.randint(len(self.abar), (count,), generator=self.generator).to(device)
        clean = self.images[rows.to(device)]
        noise = torch.randn(clean.shape, generator=self.generator, dtype=clean.dtype).to(device)
        abar = self.abar[t].view(-1, *[1] * (clean.ndim - 1))
        return self.objective(self.model, abar.sqrt() * clean + (1 - abar).sqrt() * noise, t, noise)

    @torch.no_grad()
    def _follow(self) -> None:
        kept = min(self.recipe.decay, (1 + self.step) / (10 + self.step))
        for mine, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - kept)
        for mine, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)

    def save(self, path: Path | str) -> None:
        """Write all that the rest of the fit depends on into one file of safetensors, whole or not at all."""
        tensors = self._weights() | {"generator": self.generator.get_state()}
        tensors |= {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"optimizer.{name}.{k}": v for k, v in self.optimizer.state[parameter].items()}
        note = {"format": FORMAT, "run": json.dumps(self._run)}
        write({name: tensor.clone() for name, tensor in tensors.items()}, path, note)

    def resume(self, path: Path | str) -> None:
        """Go on from a file of `save`: the steps to come are, bit for bit, those of a fit that was never stopped.

        Raises ValueError for a file of something else, of another run or of another model, naming what differs; the
        fit is then as it was.
        """
        parameters = dict(self.model.named_parameters())
        moments = {name: _moments(name, parameter) for name, parameter in parameters.items()}
        tensors = stored(path, self._run, self._weights(), moments, self.generator)
        self.model.load_state_dict(_under("model.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        for name, parameter in parameters.items():
            state = _under(f"optimizer.{name}.", tensors)
            self.optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter) for k, v in state.items()}
        self.generator.set_state(tensors["generator"])
        self.losses = tensors["losses"].tolist()

    def _weights(self) -> dict[str, Tensor]:
        parts = (("model", self.model), ("average", self.average))
        return {f"{part}.{k}": v for part, module in parts for k, v in module.state_dict().items()}

    @cached_property
    def _run(self) -> dict[str, Any]:
        """What a file must agree with."""
        mine = {"name": self.name, "images": fingerprint(self.images), "alphas_cumprod": fingerprint(self.abar)}
        return {**mine, "objective": identity(self.objective), **asdict(self.recipe)}


def _check_model(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if drops(part):
            raise ValueError(f"model must be without dropout, whose draws no checkpoint holds, got {name or part}")


def _moments(name: str, parameter: Tensor) -> dict[str, Tensor]:
    """What AdamW holds of a parameter once it had a gradient."""
    like = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
    return {f"optimizer.{name}.{key}": value for key, value in like.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def smoothed(values: list[float], weight: float = 0.1) -> list[float]:
    """Exponential moving average, s_k = (1 - weight) s_{k-1} + weight v_k from s_0 = v_0: how the paper shows losses.

    >>> smoothed([1.0, 0.0])
    [1.0, 0.9]
    """
    found: list[float] = []
    for value in values:
        found.append(value if not found else (1 - weight) * found[-1] + weight * value)
    return found
