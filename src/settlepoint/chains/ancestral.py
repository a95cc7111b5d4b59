"""ancestral: samples of a diffusion, one step back after another, as Ho, Jain and Abbeel draw them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from settlepoint.chains.schedules import Schedule

Epsilon = Callable[[Tensor, Tensor], Tensor]
"""The noise in x (B, ...) at the steps t (B,): a model, or the exact score of a known distribution."""


def _quiet(done: int, steps: int) -> None:
    """Nobody watches."""


@torch.no_grad()
def ancestral(
    epsilon: Epsilon,
    schedule: Schedule,
    x: Tensor,
    generator: torch.Generator | None = None,
    *,
    steps: int | None = None,
    clip: float | None = None,
    progress: Callable[[int, int], None] = _quiet,
) -> Tensor:
    """x_0 from x = x_T by x_{t-1} = c_t x_0(x_t) + d_t x_t + sigma_t n     (Ho, Jain and Abbeel 2020, Eq. 7)

    x_0(x_t) = (x_t - sqrt(1 - abar_t) epsilon(x_t, t)) / sqrt(abar_t),  c_t = sqrt(abar_{t-1}) beta_t / (1 - abar_t),
    d_t = sqrt(1 - beta_t) (1 - abar_{t-1}) / (1 - abar_t),  sigma_t^2 = beta_t (1 - abar_{t-1}) / (1 - abar_t).

    x: (B, ...), usually drawn from N(0, I), which is the distribution of x_T only where schedule.left is near 0.
    generator: draws n on its own device. steps: of the sampler, all of the schedule unless given. clip: holds x_0(x_t)
    in [-clip, clip], for models; a map that is not smooth. progress: called with (steps done, steps).

    Raises ValueError for steps that the schedule has not.
    """
    times, course = schedule.respaced(len(schedule) if steps is None else steps)
    for k in range(len(course) - 1, -1, -1):
        signal, noise, toward, stays, sigma = _step(course, k)
        clean = (x - noise * epsilon(x, times[k].to(x.device).expand(len(x)))) / signal
        x = toward * (clean if clip is None else clean.clamp(-clip, clip)) + stays * x
        x = x + sigma * _drawn(x, generator) if k else x
        progress(len(course) - k, len(course))
    return x


def _step(course: Schedule, k: int) -> tuple[float, ...]:
    """sqrt(abar_t), sqrt(1 - abar_t), c_t, d_t and sigma_t; in float32 the first 1 - abar would keep three digits."""
    betas, abar = course.betas.double(), course.alphas_cumprod.double()
    beta, here, before = betas[k], abar[k], abar[k - 1] if k else abar.new_ones(())
    toward, stays = before.sqrt() * beta / (1 - here), (1 - beta).sqrt() * (1 - before) / (1 - here)
    sigma = (beta * (1 - before) / (1 - here)).sqrt()
    return tuple(v.item() for v in (here.sqrt(), (1 - here).sqrt(), toward, stays, sigma))


def _drawn(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
