"""The task of jacobi and jacobi-consistency: a small causal transformer on characters, and how it is decoded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from settlepoint.chains import Decoded, jacobi_decode
from settlepoint.chains.causal import library
from settlepoint.data.characters import TOKENS, characters, windows
from settlepoint.experiments.scale import Context, Scale
from settlepoint.runs import generator_from, seeded
from settlepoint.training.consistency import Consistency, token_loss
from settlepoint.training.fit import History, Recipe, fit

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


@dataclass(frozen=True, kw_only=True)
class CharacterScale(Scale):
    """Sizes of the experiments on characters."""

    width: Annotated[int, "features of a token"] = 128
    depth: Annotated[int, "layers"] = 2
    heads: Annotated[int, "heads of the attention"] = 4
    length: Annotated[int, "characters of a window of text"] = 128
    batch: Annotated[int, "windows a step"] = 32
    steps: Annotated[int, "steps on token loss"] = 500
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 3e-3
    held_out: Annotated[int, "windows of held-out text"] = 128
    given: Annotated[int, "characters of a prompt"] = 32
    tokens: Annotated[int, "characters decoded behind it"] = 64
    prompts: Annotated[int, "prompts decoded, of held-out text"] = 50
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


SMALL: Mapping[str, Any] = {
    "width": 16, "depth": 1, "heads": 2, "length": 32, "batch": 8, "steps": 20, "held_out": 8, "given": 8,
    "tokens": 12, "prompts": 4, "thresholds": False,
}  # fmt: skip
"""What makes a scale one of seconds."""


def network(scale: CharacterScale, *names: object) -> LlamaForCausalLM:
    """A Llama of random weights, drawn from the names."""
    config = library().LlamaConfig(
        vocab_size=TOKENS, hidden_size=scale.width, intermediate_size=3 * scale.width, num_hidden_layers=scale.depth,
        num_attention_heads=scale.heads, num_key_value_heads=scale.heads, tie_word_embeddings=True,
        max_position_embeddings=max(scale.length, scale.given + scale.tokens), bos_token_id=None, eos_token_id=None,
        pad_token_id=None,
    )  # fmt: skip
    with seeded("characters", "weights", *names):
        return library().LlamaForCausalLM(config).eval()


@lru_cache(maxsize=1)
def texts() -> tuple[Tensor, Tensor, str]:
    """Text to train on, held-out text, and of which Python."""
    data = characters()
    return data.train, data.held_out, data.version


def trained(context: Context, seed: int) -> tuple[LlamaForCausalLM, History]:
    """The model fitted to the text, the same for all cells of a seed; a copy that may be fitted further."""
    scale: CharacterScale = context.scale
    sizes = (scale.width, scale.depth, scale.heads, scale.length, scale.batch, scale.steps, scale.lr)
    if (sizes, seed) not in _TRAINED:
        model = network(scale, seed)
        history = fitted(model, context, ("text", seed), steps=scale.steps)
        _TRAINED.clear()
        _TRAINED[sizes, seed] = model.state_dict(), history
    weights, history = _TRAINED[sizes, seed]
    model = network(scale, seed)
    model.load_state_dict(weights)
    return model.eval(), history


_TRAINED: dict[tuple[Any, int], tuple[Mapping[str, Tensor], History]] = {}


def fitted(
    model: LlamaForCausalLM,
    context: Context,
    names: tuple[object, ...],
    *,
    steps: int,
    lr: float | None = None,
    chains: Tensor | None = None,
    objective: Consistency | None = None,
) -> History:
    """Fit the model to text drawn from the names for some steps; with chains and an objective, to these as well."""
    scale: CharacterScale = context.scale
    draw = generator_from("characters", "windows", *names)
    text = windows(texts()[0], steps * scale.batch, scale.length + 1, draw)
    recipe = Recipe(epochs=1, batch=scale.batch, lr=lr or scale.lr, clip=1.0, weight_decay=0.01)
    context.progress(f"{names[0]}: {steps} steps")
    minimised = objective or Consistency(given=1, weight=0.0)
    return fit(model, (text, text if chains is None else chains), recipe, generator=draw, objective=minimised)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, scale: CharacterScale) -> float:
    """Token loss on the same held-out windows for all, in nats a character."""
    text = windows(texts()[1], scale.held_out, scale.length + 1, generator_from("characters", "held out"))
    return sum(float(token_loss(model, part)) * len(part) for part in text.split(64)) / len(text)


def trivial_loss() -> float:
    """That of the frequencies of characters in the training text, on all held-out text."""
    train, held_out, _ = texts()
    share = (torch.bincount(train, minlength=TOKENS) + 1.0) / (len(train) + TOKENS)
    return float(-share.log()[held_out].mean())


def held_out_prompts(scale: CharacterScale) -> Tensor:  # (prompts, given)
    """Parts of held-out text to decode from."""
    return windows(texts()[1], scale.prompts, scale.given, generator_from("characters", "prompts"))


def ratio(found: Decoded) -> float:
    """Tokens over sweeps, both summed over rows: rows that settle at once do not count more than others."""
    return float(found.lengths.sum() / found.sweeps.sum())


def generated(model: LlamaForCausalLM, prompt: Tensor, n: int) -> Tensor:  # (B, n)
    """transformers' own greedy decoding with its cache."""
    given = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": n}
    return model.generate(prompt, **given)[:, prompt.shape[1] :]  # type: ignore[operator]


def wall_ms(
    model: LlamaForCausalLM, prompts: Tensor, n: int, *, block: int | None, guess: int | None, one: bool = True
) -> dict[str, float]:
    """Milliseconds of wall time a prompt, decoded one prompt at a time: least of 2 rounds, in turns.

    one: blocks of 1 are measured as well.
    """
    calls = {
        "generate": lambda p: generated(model, p, n),
        "jacobi": lambda p: jacobi_decode(model, p, n, block=block, guess=guess),
    }
    calls |= {"block of 1": lambda p: jacobi_decode(model, p, n, block=1)} if one else {}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(2):
        for name, call in calls.items():
            start = time.perf_counter()
            for row in prompts:
                call(row[None])
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start) / len(prompts))
    return best


def distinct(tokens: Tensor, width: int = 4) -> float:
    """Share of different ones among the runs of 4 characters of a row, mean over rows: low where it repeats itself."""
    runs = [row.unfold(0, width, 1) for row in tokens]
    return sum(len(run.unique(dim=0)) / len(run) for run in runs) / len(runs)
