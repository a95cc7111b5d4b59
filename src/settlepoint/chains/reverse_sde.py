"""The reverse of the variance-preserving SDE, as it is and as it is printed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Drift = Callable[[Tensor, Tensor, float], Tensor]


def reverse_drift(x: Tensor, score: Tensor, beta: float) -> Tensor:
    """-beta x / 2 - beta s: the drift, against time, of dx = [-beta x/2 - beta grad log p] dt + sqrt(beta) dw

    (Anderson 1982) for the forward dx = -beta x / 2 dt + sqrt(beta) dw, which takes any variance to 1. Run backwards
    with s = -x, it keeps N(0, 1) as it is. Erratum: Operator Learning Meets Numerical Analysis prints it without the
    x of the first term, see `printed_drift`.
    """
    return -0.5 * beta * x - beta * score


def printed_drift(x: Tensor, score: Tensor, beta: float) -> Tensor:
    """-beta / 2 - beta s, as it is printed: wrong. Run backwards with s = -x, it takes N(0, 1) to N(1/2, 1/2)."""
    return -0.5 * beta - beta * score


@torch.no_grad()
def reversed_sde(
    score: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    steps: int,
    *,
    beta: tuple[float, float] = (0.1, 20.0),
    drift: Drift = reverse_drift,
    generator: torch.Generator | None = None,
) -> Tensor:
    """From x ~ N(0, 1) at t = 1 to data at t = 0 by `steps` Euler-Maruyama steps of dt = 1 / steps

    beta(t) runs linearly from beta[0] at t = 0 to beta[1] at t = 1 (Song et al. 2021); abar(t) = exp(-int_0^t beta).
    score: s(x, sigma) of x_0 + sigma n, as for `langevin`. Here x_t = sqrt(abar) (x_0 + sigma n), sigma^2 =
    1/abar - 1, so that the score of x_t is s(x_t / sqrt(abar), sigma) / sqrt(abar).

    Raises ValueError for steps < 1 and rates that are not above 0.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    if not all(0 < rate < math.inf for rate in beta) or sum(beta) > 1400:
        raise ValueError(f"beta must be above 0 at both ends and leave a signal, at most 1400 in all, got {beta}")
    for k in range(steps):
        t, dt = 1 - k / steps, 1 / steps
        now = beta[0] + t * (beta[1] - beta[0])
        abar = math.exp(-t * (beta[0] + now) / 2)
        root, sigma = math.sqrt(abar), math.sqrt(1 / abar - 1)
        s = score(x / root, x.new_tensor(sigma)) / root
        n = torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device)
        x = x - dt * drift(x, s, now) + math.sqrt(now * dt) * n
    return x
