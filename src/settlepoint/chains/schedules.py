"""Schedule: how much noise each step of a diffusion adds, and what of the signal is left behind the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["fixed", "rescaled"]

LARGEST = 0.999
"""Where a rescaled beta is cut: at 1 nothing of the step before is left, and no step back is defined."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n,  abar_t = prod_{s <= t} (1 - beta_s)     (Ho, Jain and Abbeel 2020)

    betas: (T,), in (0, 1). Raises ValueError for fewer than two of them, and for one that is 0 or less, or reaches 1.
    """

    betas: Tensor

    def __post_init__(self):
        if self.betas.ndim != 1 or len(self.betas) < 2:
            raise ValueError(f"betas must be (T,) with T at least 2, got {tuple(self.betas.shape)}")
        if not bool(((self.betas > 0) & (self.betas < 1)).all()):
            low, high = self.betas.min().item(), self.betas.max().item()
            raise ValueError(f"betas must lie in (0, 1), got {low:g} to {high:g}")

    def __len__(self) -> int:
        return len(self.betas)

    @property
    def alphas_cumprod(self) -> Tensor:  # (T,)
        """abar: the share of the variance at each step that is signal."""
        return (1 - self.betas).cumprod(0)

    @property
    def left(self) -> float:
        """abar_T: the signal behind the last step, of which a sampler that starts at N(0, I) knows nothing."""
        return self.alphas_cumprod[-1].item()

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t for clean x (B, ...), steps t (B,) from 0 to T - 1, and noise like x."""
        abar = self.alphas_cumprod.to(x)[t].view(-1, *[1] * (x.ndim - 1))
        return abar.sqrt() * x + (1 - abar).sqrt() * noise

    def respaced(self, steps: int) -> tuple[Tensor, Schedule]:
        """Fewer steps over the same noise: the places (steps,) in this schedule, and the schedule between them.

        The places are spread evenly from the first step to the last (Nichol and Dhariwal 2021). Raises ValueError for
        fewer than two steps or more than there are.
        """
        if not 2 <= steps <= len(self):
            raise ValueError(f"steps must lie in [2, {len(self)}], got {steps}")
        times = torch.linspace(0, len(self) - 1, steps, dtype=torch.float64).round().long().to(self.betas.device)
        abar = self.alphas_cumprod[times]
        before = torch.cat((abar.new_ones(1), abar[:-1]))
        return times, self if steps == len(self) else Schedule(1 - abar / before)


def linear_schedule(steps: int, kind: Kind = "fixed", *, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """beta from `first` to `last` in equal strides, in float64.

    kind: "fixed", the same two ends whatever the number of steps, as the paper has it: with few steps much signal is
    left; "rescaled": times 1000 / T, cut below 1, so that what is left hardly depends on the number of steps.

    >>> [round(linear_schedule(steps).left, 4) for steps in (100, 400, 1000)]
    [0.3636, 0.0175, 0.0]

    Raises ValueError for a kind that there is not and fewer than two steps.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    betas = torch.linspace(first, last, steps, dtype=torch.float64)
    return Schedule(betas if kind == "fixed" else (betas * (1000 / steps)).clamp(max=LARGEST))
