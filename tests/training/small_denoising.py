"""A small fit of Denoising, and all that it holds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from settlepoint.training.denoising import Denoising, DenoisingRecipe, noise_error

RECIPE = DenoisingRecipe(steps=12, batch=8, lr=1e-2, warm_up=3, decay=0.9)
ABAR = torch.tensor([0.9, 0.5, 0.1])


class Small(nn.Module):
    """A perceptron of the image and the time, with a buffer."""

    def __init__(self, width: int = 6):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, width), nn.SiLU(), nn.Dropout(0.0), nn.Linear(width, 4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.net(torch.cat((x.flatten(1), t[:, None].to(x)), 1)).view_as(x)


def fitting(recipe: DenoisingRecipe = RECIPE, *, seed: int = 0, width: int = 6, name: str = "") -> Denoising:
    """A fit of 12 steps to 20 random images."""
    torch.manual_seed(seed)
    images = torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(seed)
    return Denoising(Small(width), images, ABAR, recipe, generator=draw, name=name)


def other(
    images: Tensor | None = None, abar: Tensor = ABAR, objective: Callable[..., Tensor] = noise_error
) -> Denoising:
    """One of other images, another schedule or another objective."""
    fit = fitting()
    return Denoising(fit.model, fit.images if images is None else images, abar, RECIPE, objective=objective)


def state(fit: Denoising) -> list[Tensor]:
    """All that a step depends on or changes."""
    moments = [v for p in fit.model.parameters() for _, v in sorted(fit.optimizer.state[p].items())]
    weights = [*fit.model.state_dict().values(), *fit.average.state_dict().values()]
    return [*weights, *moments, fit.generator.get_state(), torch.tensor(fit.losses)]
