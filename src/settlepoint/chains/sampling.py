"""Samples of a diffusion model in fewer sequential calls: the reverse chain solved by sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from settlepoint.chains.chain import Chain
from settlepoint.chains.diffusers import diffusers
from settlepoint.chains.reverse_step import Generators, ReverseStep, standard
from settlepoint.chains.sweeps import Form, Sweeps, Told
from settlepoint.chains.swept import Swept
from settlepoint.solve import drops

Model = Callable[..., Any]


def parallel_sample(
    model: Model,
    scheduler: Any,
    noise: Tensor | Sequence[int],
    *,
    steps: int,
    tolerance: float = 1e-4,
    window: int | None = None,
    form: Form = "secant",
    eta: float = 0.0,
    generator: Generators = None,
    context: tuple[Tensor, ...] = (),
    progress: Told | None = None,
) -> Swept:
    """The samples that `scheduler` draws with `model` in `steps` calls one after the other, in fewer such calls.

    The reverse chain x_{k+1} = scheduler.step(model(x_k, t_k), t_k, x_k) is solved by `Sweeps`: each sequential call of
    model is on `window` times as many samples. tolerance: of the measured relative residuals, summed over the steps.
    That is the relative error to the sequential sample where the chain does not enlarge differences; a sample that is
    led between two modes enlarges them, and its error, by some factor. 0 gives the sequential numbers (rounding of
    other batch shapes aside) and saves nothing.

    model: diffusers' UNet2DModel or what is called as model(x, t, *context), t (M,), and returns `.sample`, a tuple or
    a tensor. scheduler: a DDIMScheduler or DDPMScheduler (or their Parallel variants), left as it is. noise: where the
    chain starts (B, ...), or its shape, then drawn. window: steps at once; all by default. form: of the sweeps;
    "implicit" and the first sweep of "secant" take as linear part that of the step while the predicted clean sample is
    held. eta: of DDIM. generator: draws first the noise, then that of stochastic steps, in the order of a sequential
    loop, so that equal seeds give equal samples; or one for each sample. context: tensors (B, ...) that model gets,
    such as class labels. progress: told the number of calls and the share of settled positions after every sweep.

    Memory: model's own for window * B samples, about ten times window * B samples, and for stochastic steps steps * B
    samples of noise. Smaller windows need less and more calls.

    Raises ValueError for unknown schedulers, windows larger than `steps`, models in training with dropout or batch
    norms, noise that is not finite. Warns ClippingWarning where the scheduler clips or thresholds.
    """
    step = ReverseStep.of(scheduler, steps, eta)
    how = Sweeps(window, tolerance, form)
    start = _start(model, noise, generator)
    if not isinstance(context, tuple) or not all(isinstance(c, Tensor) and c.ndim for c in context):
        raise TypeError(f"context must be a tuple of tensors (B, ...), got {context!r}")
    _check_model(model, start[:1], step.times[:1].to(start.device), tuple(c[:1] for c in context))
    return how.run(sampling_chain(model, step, start, generator, context), start, progress=progress)


def sampling_chain(
    model: Model,
    step: ReverseStep,
    start: Tensor,
    generator: Generators = None,
    context: tuple[Tensor, ...] = (),
) -> Chain:
    """The reverse chain of model from start (B, ...), with the noise of stochastic steps drawn now."""
    times = step.times.to(start.device)

    def forward(x: Tensor, k: Tensor, *tensors: Tensor) -> Tensor:
        out = _prediction(model(x, times[k], *tensors[: len(context)]), x)
        return step(out, x, k, *tensors[len(context) :])

    inputs = (step.drawn(start, generator),) if step.stochastic else ()
    return Chain(forward, step.length, step.linear, tuple(context), inputs)


def sample_pipeline(
    pipeline: Any,
    batch_size: int = 1,
    *,
    steps: int = 50,
    tolerance: float = 1e-4,
    window: int | None = None,
    form: Form = "secant",
    eta: float = 0.0,
    generator: Generators = None,
    progress: Told | None = None,
) -> Swept:
    """The images of `pipeline(batch_size, generator, ..., output_type="pt")`, (B, C, H, W) in [0, 1], in fewer calls.

    pipeline: an unmodified DDIMPipeline or DDPMPipeline of diffusers; other pipelines (latent, conditional) sample
    through `parallel_sample` on their own denoiser. The rest as for `parallel_sample`.
    """
    known = (diffusers().DDIMPipeline, diffusers().DDPMPipeline)
    if not isinstance(pipeline, known):
        names = " or ".join(p.__name__ for p in known)
        raise ValueError(
            f"pipeline must be a {names}, got {type(pipeline).__name__}; use parallel_sample with its model"
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer >= 1, got {batch_size!r}")
    unet = pipeline.unet
    size = unet.config.sample_size
    shape = (batch_size, unet.config.in_channels, *((size, size) if isinstance(size, int) else size))
    found = parallel_sample(
        unet, pipeline.scheduler, shape, steps=steps, tolerance=tolerance, window=window, form=form, eta=eta,
        generator=generator, progress=progress,
    )  # fmt: skip
    images = (found.value / 2 + 0.5).clamp(0, 1)
    return replace(found, solution=replace(found.solution, value=images))


def _start(model: Model, noise: Tensor | Sequence[int], generator: Generators) -> Tensor:
    if isinstance(noise, Tensor):
        if not noise.ndim or not noise.is_floating_point():
            raise ValueError(f"noise must be a floating tensor (B, ...), got {tuple(noise.shape)} of {noise.dtype}")
        if not bool(torch.isfinite(noise).all()):
            raise ValueError("noise must be finite, got NaN or Inf")
        return noise
    shape = tuple(noise) if isinstance(noise, Sequence) else ()
    if not shape or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"noise must be a tensor or the shape of one, got {noise!r}")
    weights = (*model.parameters(), *model.buffers()) if isinstance(model, nn.Module) else ()
    like = next((w for w in weights if w.is_floating_point()), torch.empty(0))
    return standard(shape, like, generator)


@torch.no_grad()
def _check_model(model: Model, x: Tensor, t: Tensor, context: tuple[Tensor, ...]) -> None:
    """Refuse a model with dropout or batch norms in training, or whose output in training is chance."""
    if not isinstance(model, nn.Module):
        return
    training = [(name, part) for name, part in model.named_modules() if part.training]
    for name, part in training:
        if isinstance(part, nn.modules.batchnorm._BatchNorm) or drops(part):
            raise ValueError(f"model must be in eval mode where it has dropout or batch norms, got {name} in training")
    if training and len(x):
        once, again = (_prediction(model(x, t, *context), x) for _ in range(2))
        if not torch.equal(once.nan_to_num(), again.nan_to_num()):
            raise ValueError("model must be in eval mode where its output is chance, got two outputs for one sample")


def _prediction(out: Any, x: Tensor) -> Tensor:
    found = out if isinstance(out, Tensor) else out[0] if isinstance(out, tuple) else out.sample
    if found.shape != x.shape:
        raise ValueError(f"model must return a prediction like x, {tuple(x.shape)}, got {tuple(found.shape)}")
    return found
