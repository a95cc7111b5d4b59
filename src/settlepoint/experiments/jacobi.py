"""jacobi: greedy and sampled decoding by sweeps over all open tokens, beside one token after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from settlepoint.chains import Decoded, jacobi_decode
from settlepoint.experiments.character_model import (
    SMALL,
    CharacterScale,
    generated,
    held_out_loss,
    held_out_prompts,
    network,
    ratio,
    trained,
    trivial_loss,
    wall_ms,
)
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
from settlepoint.runs import generator_from

RANDOM, GREEDY = "random weights, greedy", "greedy"
SAMPLED = {"sampled, temperature 0.5": 0.5, "sampled": 1.0}
BLOCKS = "greedy, blocks"


@dataclass(frozen=True, kw_only=True)
class JacobiScale(CharacterScale):
    """Sizes of jacobi."""

    block: Annotated[int, "tokens swept at once in the row with blocks"] = 8


class Jacobi(Experiment):
    """What sweeping saves and costs with models that were not trained for it."""

    id = "jacobi"
    title = "Jacobi decoding"
    claim = (
        "Sweeping over all open tokens gives the tokens of greedy decoding, and with noise drawn before those of "
        "sampling, in fewer calls of the model than tokens; a model that was not trained for it saves little."
    )
    source = "Operator Learning Meets Numerical Analysis, Eq. 35; Song et al. (2021)"
    scales: ClassVar = {
        "smoke": JacobiScale(**SMALL, block=4),
        "cpu": JacobiScale(steps=300),
        "paper": JacobiScale(seeds=3, steps=5000, width=256, depth=6, heads=8, prompts=200),
    }
    scaled_down = {
        "smoke": "16 features, one layer, 20 steps",
        "cpu": "two layers of width 128 on characters of the standard library's source, 300 steps of 32 windows",
    }
    tables = (
        Table(
            "64 characters behind prompts of held-out text",
            (
                Column("ratio", "Tokens a sweep", fmt=".2f", better="high"),
                Column("sweeps", "Sweeps a prompt, mean", fmt=".1f"),
                Column("most", "Most", fmt=".0f"),
                Column("equal", "Tokens as one by one has them", "%", fmt=".2f"),
                Column("evaluations", "Tokens evaluated a prompt", fmt=".0f"),
                Column("evaluations one", "One by one", fmt=".0f"),
                Column("ms jacobi", "Wall time a prompt: sweeps", "ms", ".1f"),
                Column("ms block of 1", "Block of 1", "ms", ".1f"),
                Column("ms generate", "generate, greedy", "ms", ".1f"),
                Column("loss", "Held-out loss", "nats", ".3f"),
                Column("frequencies", "By frequencies of characters", "nats", ".3f"),
            ),
            caption="In float64, with a cache of keys and values for what is settled. Tokens a sweep: both summed over "
            "prompts, so that a prompt that settles at once does not weigh more; 1 is one token after the other. One "
            "by one: for greedy rows transformers' generate, for sampled rows the same noise and blocks of 1. Tokens "
            "evaluated: given to the model, prompt included. Wall time: prompts one at a time. Random weights repeat "
            "one token, so their sweeps end at once.",
            command="settle run jacobi --scale {scale} --seeds {seeds}",
        ),
    )
    figures = (
        Figure("Tokens settled", ("settled",), "Tokens known to be right after each sweep, mean over prompts."),
        Figure("Monitor", ("divergence",), "KL divergence of successive predictions at tokens that are still open."),
    )

    def cells(self, scale: JacobiScale) -> Sequence[str]:
        return (RANDOM, GREEDY, BLOCKS, *SAMPLED)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: JacobiScale = context.scale
        model = (network(scale, seed) if cell == RANDOM else trained(context, seed)[0]).double()
        prompts, block = held_out_prompts(scale), scale.block if cell == BLOCKS else None
        options: dict[str, Any] = {"do_sample": cell in SAMPLED, "temperature": SAMPLED.get(cell, 1.0)}
        drawn = lambda **more: jacobi_decode(  # noqa: E731
            model, prompts, scale.tokens, **options, **more, generator=generator_from("jacobi", "noise", seed)
        )
        one = drawn(block=1)
        found = drawn(block=block, monitor=True)
        wanted = one.tokens if cell in SAMPLED else generated(model, prompts, scale.tokens)
        alone = {} if cell in SAMPLED else wall_ms(model, prompts[:8], scale.tokens, block=block, guess=None)
        metrics = {
            "ratio": ratio(found),
            "sweeps": float(found.sweeps.double().mean()),
            "most": int(found.sweeps.max()),
            "equal": 100 * float((found.tokens == wanted).double().mean()),
            "evaluations": evaluated(found, scale.given, block),
            "evaluations one": evaluated(one, scale.given, 1),
            "loss": held_out_loss(model.float(), scale),
            "frequencies": trivial_loss(),
            "evals": found.calls,
            **{f"ms {name}": value for name, value in alone.items()},
        }
        return outcome(metrics, _curves(found, cell))

    def checks(self, results: Results) -> Sequence[Check]:
        scale: JacobiScale = results.scale
        cells = self.cells(scale)
        equal = min((min(results.values(cell, "equal"), default=math.nan) for cell in cells), default=math.nan)
        most = max((max(results.values(cell, "most"), default=math.nan) for cell in cells), default=math.nan)
        checks = [
            Check.at_least("tokens equal to one by one, least of all rows and seeds, %", equal, 100.0),
            Check.at_most("sweeps, most of all rows, seeds and prompts", most, scale.tokens),
        ]
        if not scale.thresholds:
            return checks
        loss, bar = results.mean(GREEDY, "loss"), results.mean(GREEDY, "frequencies")
        return [
            *checks,
            Check("held-out loss, below that of frequencies", loss < bar, loss, f"< {bar:.3f}"),
            Check.at_least("tokens a sweep, greedy", results.mean(GREEDY, "ratio"), 1.1),
        ]


def evaluated(found: Decoded, given: int, block: int | None) -> float:
    """Tokens given to the model for a prompt decoded alone, mean over rows; in a batch, rows wait for the slowest."""
    n = found.tokens.shape[1]
    before = torch.cat((torch.zeros_like(found.settled[:1]), found.settled[:-1]))
    looked = (before + (block or n)).clamp(max=n) - before
    looked[0] += given - 1
    working = torch.arange(found.calls)[:, None] < found.sweeps
    return int((looked * working).sum()) / len(found.tokens)


def _curves(found: Decoded, cell: str) -> dict[str, Any]:
    label: dict[str, Any] = {"x_label": "sweeps", "group": cell}
    sweeps = range(1, found.calls + 1)
    curves = {"settled": curve(sweeps, found.settled.double().mean(1).tolist(), y_label="tokens settled", **label)}
    mean: Tensor = found.divergence[1:].nanmean(1) if found.divergence is not None else torch.empty(0)
    known = ~mean.isnan()
    named: dict[str, Any] = {"y_label": "KL divergence, nats", "log_y": True, **label}
    numbers = torch.arange(2, 2 + len(mean))[known].tolist()
    return curves | {"divergence": curve(numbers, mean[known].tolist(), **named)}


EXPERIMENT = Jacobi()
