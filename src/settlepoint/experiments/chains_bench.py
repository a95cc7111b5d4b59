"""What chains cost and save: sequential calls of a sampler, and the time of a sweep, as rows of the target table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from settlepoint.chains import Chain, ExactScore, ReverseStep, Sweeps, jacobi_decode, sampling_chain
from settlepoint.chains.diffusers import diffusers
from settlepoint.data.digits import digits
from settlepoint.experiments.character_model import CharacterScale, generated, network
from settlepoint.experiments.measuring import Measure, cpu_seconds
from settlepoint.experiments.sampling_chains import one_by_one, relative_error
from settlepoint.runs import generator_from

SAMPLES, TOLERANCES = 8, (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)


def exact_score(scheduler: Any) -> ExactScore:
    """That of a kernel density of 200 digits."""
    images = digits(torch.float64).train_x[:200].reshape(-1, 1, 8, 8) * 2 - 1
    return ExactScore(images, scheduler.alphas_cumprod.double(), 0.1)


def fewer(kind: str, steps: int) -> Measure:
    """Sequential calls of diffusers' loop over those of a batch within 1e-4 of it: ours, and the sum form beside it."""

    def measure(repeats: int) -> tuple[float, float]:
        del repeats
        scheduler = getattr(diffusers(), f"{kind}Scheduler")(clip_sample=False)
        model, draw = exact_score(scheduler), lambda: generator_from("bench", kind, "noise")
        start = torch.randn(
            SAMPLES, 1, 8, 8, generator=generator_from("bench", kind, "start"), dtype=torch.float64
        )  # fmt: skip
        wanted = one_by_one(model, scheduler, start, steps, draw())
        chain = sampling_chain(model, ReverseStep.of(scheduler, steps), start, draw())
        ours, peer = (steps / _calls(chain, start, wanted, form) for form in ("secant", "sum"))
        return ours, peer

    return measure


def _calls(chain: Chain, start: Tensor, wanted: Tensor, form: Any) -> float:
    """Calls of the batch at the largest tolerance at which every sample is within 1e-4; inf when none is."""
    for tolerance in TOLERANCES:
        found = Sweeps(tolerance=tolerance, form=form).run(chain, start)
        if float(relative_error(found.value, wanted).max()) <= 1e-4:
            return found.calls
    return float("inf")


def over_calls(repeats: int) -> tuple[float, float]:
    """Process time of 50 steps swept over that of the same calls of step alone: ours, and the sum form beside it."""
    scheduler = diffusers().DDIMScheduler(clip_sample=False)
    start = torch.randn(SAMPLES, 1, 8, 8, generator=generator_from("bench", "sweep"), dtype=torch.float64)
    chain = sampling_chain(exact_score(scheduler), ReverseStep.of(scheduler, 50), start)
    ratios = []
    for form in ("secant", "sum"):
        kept: list[tuple[Tensor, Tensor]] = []

        def noted(x: Tensor, k: Tensor, kept: list[tuple[Tensor, Tensor]] = kept) -> Tensor:
            kept.append((x, k))
            return chain.step(x, k)

        how = Sweeps(tolerance=1e-4, form=form)  # type: ignore[arg-type]
        how.run(Chain(noted, 50, chain.linear), start)
        variants = {
            "sweeps": lambda how=how: how.run(chain, start),
            "calls": lambda kept=kept: [chain.step(x, k) for x, k in kept],
        }
        with torch.no_grad():
            seconds = cpu_seconds(variants, repeats)
        ratios.append(seconds["sweeps"] / seconds["calls"])
    return ratios[0], ratios[1]


def over_generate(repeats: int) -> tuple[float, float]:
    """Process time of 64 tokens decoded in blocks of 1 over transformers' generate; both call the model as often."""
    model = network(CharacterScale(), "bench")
    prompt = torch.randint(90, (1, 32), generator=generator_from("bench", "prompt"))
    variants = {
        "ours": lambda: jacobi_decode(model, prompt, 64, block=1),
        "peer": lambda: generated(model, prompt, 64),
    }
    with torch.no_grad():
        seconds = cpu_seconds(variants, min(repeats, 5))
    return seconds["ours"] / seconds["peer"], 1.0


CHAINS: Mapping[str, tuple[Measure, float | None, str, str]] = {
    "DDIM 50, loop / sequential calls": (fewer("DDIM", 50), 4, "sum form", "high"),
    "DDIM 100, loop / sequential calls": (fewer("DDIM", 100), 7, "sum form", "high"),
    "DDPM 50, loop / sequential calls": (fewer("DDPM", 50), None, "sum form", "high"),
    "50 steps swept, time over their calls alone": (over_calls, None, "sum form", "low"),
    "decoding in blocks of 1 over generate, time": (over_generate, None, "parity", "low"),
}
"""Name to measure, target, peer and the better side."""
