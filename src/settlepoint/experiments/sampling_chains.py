"""The task of parallel-sampling: denoisers on the digits, reverse chains, and what the sequential loop gives."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint.chains import Chain, ExactScore, ReverseStep, sampling_chain
from settlepoint.chains.diffusers import diffusers
from settlepoint.data.digits import digits
from settlepoint.experiments.experiment import Context, Scale
from settlepoint.runs import generator_from, seeded


@dataclass(frozen=True, kw_only=True)
class SamplingScale(Scale):
    """Sizes of the experiment on parallel sampling."""

    samples: Annotated[int, "samples of a batch"] = 8
    images: Annotated[int, "training images: of the kernel density, and of the network"] = 1400
    bandwidth: Annotated[float, "of the kernel density; pixels lie in [-1, 1]"] = 0.1
    chains: Annotated[tuple[str, ...], "kind and steps"] = ("DDIM 25", "DDIM 50", "DDIM 100", "DDPM 50")
    network: Annotated[bool, "whether a trained UNet2DModel is sampled too"] = True
    updates: Annotated[int, "gradient steps of the network, batches of 64"] = 1000
    brief: Annotated[int, "gradient steps of the other one"] = 200
    error: Annotated[float, "relative error to the sequential sample that is asked for"] = 1e-4
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


@dataclass(frozen=True)
class Task:
    """A chain, where it starts (B, 1, 8, 8), what diffusers' own loop gives for it, and that loop's wall seconds."""

    chain: Chain
    start: Tensor
    wanted: Tensor
    seconds: float


def pictures(scale: SamplingScale) -> Tensor:
    """Training digits (N, 1, 8, 8), float64 in [-1, 1]."""
    return digits(torch.float64).train_x[: scale.images].reshape(-1, 1, 8, 8) * 2 - 1


def task(kind: str, seed: int, context: Context) -> Task:
    """The chain of a kind, such as "DDIM 50" or "brief UNet, DDIM 50", and one pass of diffusers' own loop over it."""
    scale: SamplingScale = context.scale
    name, _, chosen = kind.rpartition(", ")
    sampler, steps = chosen.split()
    scheduler = getattr(diffusers(), f"{sampler}Scheduler")(clip_sample=False)
    if name:
        model = trained(replace(scale, updates=scale.brief) if name == "brief UNet" else scale, seed, context)
    else:
        model = ExactScore(pictures(scale), scheduler.alphas_cumprod.double(), scale.bandwidth)
    shape = (scale.samples, 1, 8, 8)
    start = torch.randn(shape, generator=generator_from("parallel-sampling", kind, seed), dtype=torch.float64)
    draws = lambda: generator_from("parallel-sampling", kind, seed, "noise")  # noqa: E731
    chain = sampling_chain(model, ReverseStep.of(scheduler, int(steps)), start, draws())
    began = time.perf_counter()
    wanted = one_by_one(model, scheduler, start, int(steps), draws())
    return Task(chain, start, wanted, time.perf_counter() - began)


@torch.no_grad()
def one_by_one(model: nn.Module, scheduler: Any, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Samples by the loop of diffusers' pipelines: one model call a step."""
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t).sample, t, x, generator=generator).prev_sample
    return x


@lru_cache(maxsize=4)
def _trained(scale: SamplingScale, seed: int) -> nn.Module:
    kit = diffusers()
    with seeded("parallel-sampling", "network", seed):
        model = kit.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32),
            norm_num_groups=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=16,
        )  # fmt: skip
    x, levels = pictures(scale).float(), kit.DDPMScheduler().alphas_cumprod
    draw = generator_from("parallel-sampling", "training", seed)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(scale.updates, 1))
    for _ in range(scale.updates):
        clean = x[torch.randint(len(x), (64,), generator=draw)]
        t, e = torch.randint(len(levels), (64,), generator=draw), torch.randn(clean.shape, generator=draw)
        a = levels[t].reshape(-1, 1, 1, 1)
        loss = (model(a.sqrt() * clean + (1 - a).sqrt() * e, t).sample - e).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.requires_grad_(False).double().eval()


def trained(scale: SamplingScale, seed: int, context: Context) -> nn.Module:
    """A small UNet2DModel that predicts noise in digits, in float64; trained once a seed."""
    context.progress(f"training a UNet2DModel, {scale.updates} updates")
    return _trained(scale, seed)


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:  # (B, ...) -> (B,)
    """||found - wanted|| / ||wanted|| of every sample."""
    return (found - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
