"""One step of a diffusers scheduler, for many samples at different times at once."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from settlepoint.chains.diffusers import diffusers
from settlepoint.solvers.solver import rowwise

Generators = torch.Generator | Sequence[torch.Generator] | None
DDIM = ("DDIMScheduler", "DDIMParallelScheduler")
DDPM = ("DDPMScheduler", "DDPMParallelScheduler")
_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large")


class ClippingWarning(UserWarning):
    """The scheduler clips or thresholds, so its step has kinks: sweeps stay right, but may take more calls."""


@dataclass(frozen=True)
class ReverseStep:
    """x' = to_clean x_0 + to_noise e + keep x + spread z        z standard normal, one for each step and sample

    with the clean sample x_0 and the noise e that the model's output m at x stands for, a = alphas_cumprod[t]:

        epsilon        e = m                                  x_0 = (x - sqrt(1 - a) m) / sqrt(a)
        v_prediction   e = sqrt(a) m + sqrt(1 - a) x          x_0 = sqrt(a) x - sqrt(1 - a) m
        sample         e = (x - sqrt(a) m) / sqrt(1 - a)      x_0 = m

    DDIM (Song et al. 2021, Eq. 12 and 16) has to_clean = sqrt(a'), to_noise = sqrt(1 - a' - spread^2), keep = 0; DDPM
    (Ho et al. 2020, Eq. 7) to_noise = 0 and the posterior mean in to_clean and keep. x_0 is clipped as the scheduler
    does it. All tables (n,), in the scheduler's own precision. times: (n,), integer training timesteps.
    """

    times: Tensor
    prediction: str
    signal: Tensor
    noise: Tensor
    to_clean: Tensor
    to_noise: Tensor
    keep: Tensor
    spread: Tensor
    drawing: Tensor  # (n,) bool, the steps at which a sequential loop draws noise
    bound: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, scheduler: Any, steps: int, eta: float = 0.0) -> ReverseStep:
        """The `steps` steps of a scheduler, which is left as it is. Errors and warnings as for `parallel_sample`."""
        name = type(scheduler).__name__
        if not isinstance(scheduler, tuple(getattr(diffusers(), n) for n in DDIM + DDPM)) or name not in DDIM + DDPM:
            raise ValueError(f"scheduler must be one of {', '.join(DDIM + DDPM)}, got {name}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
        if not 0 <= eta < math.inf or (eta and name in DDPM):
            raise ValueError(f"eta must be a finite number >= 0, and 0 for DDPM, got {eta} for {name}")
        planned = copy.deepcopy(scheduler)
        planned.set_timesteps(steps)
        if int(planned.timesteps.max()) >= len(planned.alphas_cumprod):
            raise ValueError(
                f"steps_offset must keep times below {len(planned.alphas_cumprod)}, got {planned.timesteps}"
            )
        return _ddim(planned, eta) if name in DDIM else _ddpm(planned)

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.times)

    @property
    def stochastic(self) -> bool:
        """True when steps add noise."""
        return bool(self.drawing.any())

    @property
    def linear(self) -> Tensor:
        """(n,): the derivative of the step in x while the predicted clean sample is held."""
        return self.keep + self.to_noise / self.noise

    def drawn(self, like: Tensor, generator: Generators) -> Tensor:  # (B, ...) -> (B, n, ...)
        """Noise of every step and sample, drawn in the order of a sequential loop; zero where that draws none."""
        shape = tuple(like.shape)
        none = torch.zeros_like(like)
        return torch.stack([standard(shape, like, generator) if d else none for d in self.drawing.tolist()], 1)

    def __call__(self, m: Tensor, x: Tensor, k: Tensor, z: Tensor | None = None) -> Tensor:
        """x' from the model's output m at the states x (M, ...) and positions k (M,), with the noise z (M, ...)."""
        at = lambda table: rowwise(table.to(x)[k], x)  # noqa: E731
        signal, noise = at(self.signal), at(self.noise)
        match self.prediction:
            case "epsilon":
                clean, e = (x - noise * m) / signal, m
            case "v_prediction":
                clean, e = signal * x - noise * m, signal * m + noise * x
            case _:
                clean, e = m, (x - signal * m) / noise
        clean = clean if self.bound is None else self.bound(clean)
        moved = at(self.to_clean) * clean + at(self.to_noise) * e + at(self.keep) * x
        return moved if z is None else moved + at(self.spread) * z


def standard(shape: tuple[int, ...], like: Tensor, generator: Generators) -> Tensor:
    """Normal noise as diffusers draws it: on the generator's device, in the dtype and on the device of like.

    Raises ValueError for a list of generators that are not one for each sample.
    """
    if isinstance(generator, list | tuple):
        if len(generator) != shape[0]:
            raise ValueError(f"generator must be one, or one for each of {shape[0]} samples, got {len(generator)}")
        return torch.cat([standard((1, *shape[1:]), like, one) for one in generator])
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or a list of them, got {type(generator).__name__}")
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def _outside() -> int:
    """How far up the caller of this room is, as warnings count."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("settlepoint.chains"):
        frame, level = frame.f_back, level + 1
    return level


def _ddim(scheduler: Any, eta: float) -> ReverseStep:
    times, levels = scheduler.timesteps, scheduler.alphas_cumprod
    before = times - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    a = levels[times]
    b = torch.where(before >= 0, levels[before.clamp(min=0)], scheduler.final_alpha_cumprod)
    spread = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
    none = torch.zeros_like(a)
    drawing = torch.full_like(times, eta > 0, dtype=torch.bool)
    return _step(scheduler, a, b**0.5, (1 - b - spread**2) ** 0.5, none, spread, drawing)


def _ddpm(scheduler: Any) -> ReverseStep:
    kind = scheduler.variance_type
    if kind not in _VARIANCES:
        raise ValueError(f"variance_type must be one of {', '.join(_VARIANCES)}, got {kind!r}")
    times, levels = scheduler.timesteps, scheduler.alphas_cumprod
    a = levels[times]
    b = torch.cat((a[1:], torch.ones_like(a[:1])))
    beta = 1 - a / b
    variance = beta if kind == "fixed_large" else ((1 - b) / (1 - a) * beta).clamp(min=1e-20)
    drawing = times > 0
    spread = torch.where(drawing, variance**0.5, 0.0)
    to_clean, keep = b**0.5 * beta / (1 - a), (1 - beta) ** 0.5 * (1 - b) / (1 - a)
    return _step(scheduler, a, to_clean, torch.zeros_like(a), keep, spread, drawing)


def _step(
    scheduler: Any, a: Tensor, to_clean: Tensor, to_noise: Tensor, keep: Tensor, spread: Tensor, drawing: Tensor
) -> ReverseStep:
    prediction = scheduler.config.prediction_type
    if prediction == "epsilon" and bool((a == 0).any()):
        raise ValueError("prediction_type must not be epsilon where alphas_cumprod is 0, got rescale_betas_zero_snr")
    return ReverseStep(
        scheduler.timesteps, prediction, a**0.5, (1 - a) ** 0.5, to_clean, to_noise, keep, spread, drawing,
        _bound(scheduler),
    )  # fmt: skip


def _bound(scheduler: Any) -> Callable[[Tensor], Tensor] | None:
    """How the scheduler bounds the predicted clean sample, if it does, with a warning."""
    config = scheduler.config
    if not (config.thresholding or config.clip_sample):
        return None
    name = "thresholding" if config.thresholding else "clip_sample"
    warnings.warn(
        f"the scheduler's {name} has kinks: samples stay right, but may take more calls than with {name}=False",
        ClippingWarning,
        stacklevel=_outside(),
    )
    if config.thresholding:
        return scheduler._threshold_sample
    return lambda x: x.clamp(-config.clip_sample_range, config.clip_sample_range)
