"""parallel-sampling: the samples of a diffusion chain in fewer sequential calls, by every form of its sweeps."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from settlepoint.chains import Sweeps, Swept
from settlepoint.chains.diffusers import diffusers
from settlepoint.experiments.diffusion_task import largest
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Table,
    curve,
    outcome,
)
from settlepoint.experiments.sampling_chains import SamplingScale, Task, pictures, relative_error, task

FORMS: Mapping[str, Sweeps] = {
    "jacobi": Sweeps(form="jacobi"),
    "sum": Sweeps(form="sum"),
    "implicit": Sweeps(form="implicit"),
    "secant": Sweeps(form="secant"),
    "sum, Anderson(2)": Sweeps(form="sum", depth=2),
    "implicit, Anderson(2)": Sweeps(form="implicit", depth=2),
    "secant, Anderson(2)": Sweeps(form="secant", depth=2),
    "sum, window 20": Sweeps(form="sum", window=20),
    "sum, window 10": Sweeps(form="sum", window=10),
    "implicit, window 20": Sweeps(form="implicit", window=20),
    "implicit, window 10": Sweeps(form="implicit", window=10),
    "secant, window 20": Sweeps(form="secant", window=20),
    "secant, window 10": Sweeps(form="secant", window=10),
}
BARE = ("jacobi", "sum", "implicit", "secant")
NETWORK = ("UNet, DDIM 50", "brief UNet, DDIM 50")
KINDS = ("DDIM 25", "DDIM 50", "DDIM 100", "DDPM 50", *NETWORK)
NETWORK_FORMS = ("sum", "implicit", "secant", "secant, window 10")
TARGETS = {"DDIM 50, secant": 4.0, "DDIM 100, secant": 7.0, "UNet, DDIM 50, secant": 4.0}
TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01)


class ParallelSampling(Experiment):
    """Rows are a chain and how it is swept; the sequential loop of diffusers is the truth and the baseline."""

    id = "parallel-sampling"
    title = "Parallel sampling: diffusion chains by sweeps"
    claim = (
        "Solved as a triangular fixed point, a DDIM chain gives the sequential samples to 1e-4 in a fraction of the "
        "sequential model calls, at a cost of several times the evaluations."
    )
    source = "Operator Learning Meets Numerical Analysis, Section on diffusion; Shih et al. 2023 (parallel sampling)"
    needs: ClassVar = (lambda context: diffusers(), lambda context: pictures(context.scale))
    scales: ClassVar = {
        "smoke": SamplingScale(
            seeds=1, samples=2, images=60, chains=("DDIM 25",), network=False, thresholds=False
        ),
        "cpu": SamplingScale(seeds=3),
        "paper": SamplingScale(seeds=5, samples=64, updates=4000, brief=800),
    }  # fmt: skip
    scaled_down: ClassVar = {
        "smoke": "60 images, two samples, DDIM with 25 steps, no network",
        "cpu": "digits of 8 x 8 pixels, batches of 8 samples, a network of two levels trained for 1,000 updates",
    }
    tables: ClassVar = (
        Table(
            "Calls for the sequential samples to a relative error of 1e-4",
            (
                Column("calls", "sequential calls, batch", fmt=".1f", better="low"),
                Column("sample calls", "sequential calls, a sample", fmt=".1f", better="low"),
                Column("fewer, batch", "times fewer, batch", fmt=".1f", better="high"),
                Column("fewer, sample", "times fewer, a sample", fmt=".1f", better="high"),
                Column("fewer at 1e-4", "times fewer, batch, at tolerance 1e-4", fmt=".1f"),
                Column("evals", "evaluations a sample", fmt=".0f"),
                Column("error", "largest error", fmt=".1e"),
                Column("tolerance", "tolerance it took", fmt=".0e"),
                Column("error at 1e-4", "largest error at tolerance 1e-4", fmt=".1e"),
                Column("seconds", "ours", "s", fmt=".2f", better="low"),
                Column("sequential seconds", "sequential loop", "s", fmt=".2f"),
            ),
            caption="Float64, batches of independent samples that stop on their own: the batch takes the calls of its "
            "slowest sample, a sample those it took part in, on average. The error is to diffusers' own loop on the "
            "same noise; the tolerance is the largest of 1e-4 x (1, .3, .1, .03, .01) at which it is within 1e-4 for "
            "every sample, which takes that loop to know; what is met without it stands under tolerance 1e-4. "
            "Evaluations are the cost: the sequential loop takes one a step. Wall seconds of one run each, in the same"
            " process on one thread, where a call on more samples takes longer; sequential calls are what counts where"
            " it does not. Exact score of a kernel density of the digits; UNet: trained UNet2DModel; brief: trained "
            "for a fifth of the updates.",
            command="settle run parallel-sampling --scale {scale} --seeds {seeds}",
        ),
    )
    figures: ClassVar = (
        Figure("Settled steps", ("settled",), "Share of the chain that is final, after every sequential call; DDIM 50.",
               rows=tuple(f"DDIM 50, {form}" for form in (*BARE, "secant, window 10"))),
        Figure("Times fewer sequential calls", ("fewer, batch",), "Calls of a batch; a sample alone takes fewer.",
               rows=tuple(f"{kind}, {form}" for kind in KINDS for form in BARE), kind="bars"),
    )  # fmt: skip

    def cells(self, scale: SamplingScale) -> Sequence[str]:
        exact = [f"{kind}, {form}" for kind in scale.chains for form in FORMS]
        return [*exact, *(f"{kind}, {form}" for kind in NETWORK for form in NETWORK_FORMS if scale.network)]

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        kind = next(k for k in (*NETWORK, *context.scale.chains) if cell.startswith(f"{k}, "))
        how, asked = FORMS[cell.removeprefix(f"{kind}, ")], context.scale.error
        job = task(kind, seed, context)
        found: list[tuple[Swept, float, float, float]] = []
        for share in TOLERANCES:
            found.append(_swept(replace(how, tolerance=share * asked), job))
            if found[-1][1] <= asked:
                break
        best, error, seconds, tolerance = found[-1]
        count, n, met = len(job.start), job.chain.length, error <= asked
        calls = best.calls if met else math.inf
        sample_calls = float(best.solution.steps.double().mean()) if met else math.inf
        metrics = {
            "calls": calls,
            "sample calls": sample_calls,
            "fewer, batch": n / calls,
            "fewer, sample": n / sample_calls,
            "fewer at 1e-4": n / found[0][0].calls,
            "evals": best.solution.work / count,
            "error": error,
            "tolerance": tolerance,
            "error at 1e-4": found[0][1],
            "seconds": seconds,
            "sequential seconds": job.seconds,
        }
        share = (best.trace.double().mean(1) / n).tolist()
        named: dict[str, Any] = {"x_label": "sequential calls", "y_label": "share of the chain settled", "group": cell}
        return outcome(metrics, {"settled": curve(range(1, best.calls + 1), share, **named)})

    def checks(self, results: Results) -> Sequence[Check]:
        ended = Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))
        if not results.scale.thresholds:
            return [ended]
        errors = [largest(results.values(cell, "error") or [math.nan]) for cell in self.cells(results.scale)]
        return [
            ended,
            Check.at_most("largest error of all cells and seeds", largest(errors), results.scale.error),
            *(
                Check.at_least(
                    f"{cell}: times fewer sequential calls of the batch", results.mean(cell, "fewer, batch"), least
                )
                for cell, least in TARGETS.items()
            ),
        ]


def _swept(how: Sweeps, job: Task) -> tuple[Swept, float, float, float]:
    """One run: what it gave, its largest error, its wall seconds and its tolerance."""
    began = time.perf_counter()
    found = how.run(job.chain, job.start)
    seconds = time.perf_counter() - began
    return found, float(relative_error(found.value, job.wanted).max()), seconds, how.tolerance


EXPERIMENT = ParallelSampling()
