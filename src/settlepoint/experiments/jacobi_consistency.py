"""jacobi-consistency: a character model trained to jump from any iterate of its sweeps to their end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from settlepoint.chains import jacobi_decode
from settlepoint.data.characters import BLANK, windows
from settlepoint.experiments.character_model import (
    SMALL,
    CharacterScale,
    distinct,
    fitted,
    generated,
    held_out_loss,
    held_out_prompts,
    ratio,
    texts,
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
from settlepoint.training.consistency import Consistency, Trajectories

BEFORE, LONGER, CONSISTENT, BOTH = "before", "longer on tokens", "consistency", "consistency, KL"
GUESSES = {"last character": None, "blank": BLANK, "space": 1}


@dataclass(frozen=True, kw_only=True)
class ConsistencyScale(CharacterScale):
    """Sizes of jacobi-consistency."""

    chains: Annotated[int, "prompts whose sweeps are trained on, of training text"] = 1000
    behind: Annotated[int, "characters behind each of them"] = 32
    further: Annotated[int, "steps of further training"] = 500
    further_lr: Annotated[float, "its learning rate at the start"] = 2e-3
    weight: Annotated[float, "of the consistency beside the token loss"] = 0.2
    prompts: Annotated[int, "prompts decoded, of held-out text"] = 100
    choosing: Annotated[int, "prompts of training text on which the guess of a row is chosen"] = 32


class JacobiConsistency(Experiment):
    """Sweeps before and after, with as much further training on token loss as control."""

    id = "jacobi-consistency"
    title = "Consistency training for Jacobi decoding"
    claim = (
        "Trained to predict the end of its own sweeps from any of their iterates, a character model needs fewer sweeps "
        "for the tokens of its greedy decoding; as much further training on the token loss alone saves none."
    )
    source = "Operator Learning Meets Numerical Analysis, Eq. 35; Kou et al. (2024), CLLMs"
    scales: ClassVar = {
        "smoke": ConsistencyScale(**SMALL, chains=8, behind=8, further=5, choosing=2),
        "cpu": ConsistencyScale(),
        "paper": ConsistencyScale(seeds=3, steps=5000, width=256, depth=6, heads=8, chains=20000, further=5000),
    }
    scaled_down = {
        "smoke": "16 features, one layer, 20 steps",
        "cpu": "a character model of two layers of width 128 in place of a language model of 7 billion weights",
    }
    tables = (
        Table(
            "64 characters behind prompts of held-out text",
            (
                Column("ratio", "Tokens a sweep", fmt=".2f", better="high", paper={CONSISTENT: "2.4 to 3.4"}),
                Column("median", "Median of prompts", fmt=".2f"),
                Column("sampled", "Sampled, temperature 1", fmt=".2f"),
                Column("loss", "Held-out loss", "nats", ".3f", better="low"),
                Column("change", "Its change", "%", "+.1f"),
                Column("same", "Characters as before training", "%", ".0f"),
                Column("distinct", "Distinct runs of 4 in what is decoded", fmt=".2f"),
                Column("equal", "Tokens as generate has them", "%", ".2f"),
                Column("ms jacobi", "Wall time a prompt: sweeps", "ms", ".0f"),
                Column("ms generate", "generate", "ms", ".0f"),
                Column("training seconds", "Further training", "CPU s", ".0f"),
                Column("frequencies", "Loss by frequencies", "nats", ".3f"),
            ),
            caption="Greedy, in float64; sampled, in float32. Sweeps begin at the last character, a space or a token "
            "that no text has, whichever takes the fewest sweeps behind a few prompts of training text. Tokens a "
            "sweep: both summed over prompts. Consistency: cross entropy of the end of the sweeps; KL: divergence from "
            "the model's own prediction there. All further training takes as many steps on the token loss of the same "
            "text; the weight of the consistency beside it was chosen on text of other modules (gettext, imaplib, "
            "heapq). Distinct: greedy text of small models repeats itself, which is part of what sweeps save; sampled "
            "text does not. Characters as before: agreement with the greedy text of the first row. Wall time: in "
            "float64, four prompts, one at a time. The paper's column: Kou et al.'s speed-up of language models in "
            "wall time.",
            command="settle run jacobi-consistency --scale {scale} --seeds {seeds}",
        ),
    )
    figures = (Figure("Tokens settled", ("settled",), "Tokens known to be right after each sweep, mean over prompts."),)

    def cells(self, scale: ConsistencyScale) -> Sequence[str]:
        return (BEFORE, LONGER, CONSISTENT, BOTH)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: ConsistencyScale = context.scale
        model, _ = trained(context, seed)
        loss, prompts = held_out_loss(model, scale), held_out_prompts(scale)
        text = generated(model.double(), prompts, scale.tokens)
        seconds = 0.0 if cell == BEFORE else further(model.float(), cell, seed, context)
        after, guess = held_out_loss(model.float(), scale), chosen(model, scale)
        noise = generator_from("jacobi", "noise", seed)
        drawn = jacobi_decode(model, prompts, scale.tokens, do_sample=True, generator=noise, guess=GUESSES[guess])
        found = jacobi_decode(model.double(), prompts, scale.tokens, guess=GUESSES[guess])
        alone = wall_ms(model, prompts[:4], scale.tokens, block=None, guess=GUESSES[guess], one=False)
        metrics = {
            "ratio": ratio(found),
            "median": float(found.per_sweep.median()),
            "sampled": ratio(drawn),
            "loss": after,
            "change": 100 * (after / loss - 1),
            "same": 100 * float((found.tokens == text).double().mean()),
            "distinct": distinct(found.tokens),
            "equal": 100 * float((found.tokens == generated(model, prompts, scale.tokens)).double().mean()),
            "training seconds": seconds,
            "frequencies": trivial_loss(),
            "evals": found.calls,
            "ms jacobi": alone["jacobi"],
            "ms generate": alone["generate"],
        }
        named: dict[str, Any] = {"x_label": "sweeps", "y_label": "tokens settled", "group": cell}
        settled = curve(range(1, found.calls + 1), found.settled.double().mean(1).tolist(), **named)
        return outcome(metrics, {"settled": settled}, (f"{guess} as the guess; source of Python {texts()[2]}",))

    def checks(self, results: Results) -> Sequence[Check]:
        cells = self.cells(results.scale)
        equal = min((min(results.values(cell, "equal"), default=math.nan) for cell in cells), default=math.nan)
        checks = [Check.at_least("tokens equal to generate, least of all rows and seeds, %", equal, 100.0)]
        if not results.scale.thresholds:
            return checks
        loss, bar = results.mean(BEFORE, "loss"), results.mean(BEFORE, "frequencies")
        return [
            *checks,
            Check("held-out loss before, below that of frequencies", loss < bar, loss, f"< {bar:.3f}"),
            Check.at_least("tokens a sweep after consistency training", results.mean(CONSISTENT, "ratio"), 2.4),
            Check.at_most("its held-out loss above that before, %", results.mean(CONSISTENT, "change"), 2.0),
            Check.at_most(
                "its held-out loss above that of as many steps on tokens, %",
                100 * (results.mean(CONSISTENT, "loss") / results.mean(LONGER, "loss") - 1),
                2.0,
            ),
        ]


def further(model: Any, cell: str, seed: int, context: Context) -> float:
    """Train the model further, as the cell says; CPU seconds without those of the sweeps, the same for all."""
    scale: ConsistencyScale = context.scale
    options: dict[str, Any] = {}
    if cell != LONGER:
        draw = generator_from("jacobi-consistency", "chains", seed)
        chains = sweeps(model, scale, draw).drawn(scale.further * scale.batch, draw)
        objective = Consistency(given=scale.given, weight=scale.weight, hard=cell == CONSISTENT)
        options = {"chains": chains, "objective": objective}
    history = fitted(model, context, ("further", seed), steps=scale.further, lr=scale.further_lr, **options)
    return history.seconds


def sweeps(model: Any, scale: ConsistencyScale, draw: torch.Generator) -> Trajectories:
    """Sweeps of the model from blanks, behind prompts of training text."""
    parts = []
    for prompts in windows(texts()[0], scale.chains, scale.given, draw).split(250):
        found = jacobi_decode(model, prompts, scale.behind, guess=BLANK, trace=True)
        assert found.states is not None
        parts.append(Trajectories(prompts, found.states, found.tokens))
    return Trajectories.joined(parts)


def chosen(model: Any, scale: ConsistencyScale) -> str:
    """The guess with the fewest sweeps behind prompts of training text, the same ones for every row."""
    draw = generator_from("jacobi-consistency", "guess")
    prompts = windows(texts()[0], scale.choosing, scale.given, draw)
    return max(GUESSES, key=lambda name: ratio(jacobi_decode(model, prompts, scale.tokens, guess=GUESSES[name])))


EXPERIMENT = JacobiConsistency()
