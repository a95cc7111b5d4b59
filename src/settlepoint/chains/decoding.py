"""jacobi_decode: the tokens of greedy or sampled decoding, in fewer calls of the model than tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from settlepoint.chains.causal import CausalPredictor, library
from settlepoint.chains.decoded import Decoded
from settlepoint.chains.jacobi import Sweeping, swept
from settlepoint.chains.noise import GumbelNoise

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def jacobi_decode(
    model: PreTrainedModel,
    prompt: Tensor,
    n: int,
    *,
    block: int | None = None,
    do_sample: bool = False,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    guess: Tensor | int | None = None,
    eos: bool | int | Sequence[int] = False,
    monitor: bool = False,
    trace: bool = False,
    cached: bool = True,
) -> Decoded:
    """The n tokens behind a prompt as the fixed point of y -> (f(prompt), f(prompt, y_1), ..., f(prompt, y_<n))

    Eq. 35 of Zappala et al.; Song et al. (2021). Every sweep is one call of the model on the tokens that are not
    settled; there are at most n, and the answer is that of one token after the other: of `model.generate` without
    processors of logits, or with do_sample that of sampling with the same noise, argmax(logits / temperature +
    Gumbel), drawn token after token from generator before it is used. Equal up to rounding: a model evaluates several
    tokens at once in another order of sums, so that a tie within rounding may fall the other way; use float64 where
    that matters.

    prompt: (B, L), L >= 1, without padding. block: tokens swept at once, all n with None; 1 is one after the other.
    guess: where the sweeps begin, a token or (B, n); the last token of the prompt with None. eos: True for the model's
    own end tokens, those of its generation_config or else of its config, or a token, or several; a row stops behind the
    first that is settled, and what follows is filled as `generate` fills it. Rows stop on their own, and are no longer
    evaluated then. A NaN in the keys or values of one token reaches those before it through masked attention (0 times
    NaN): a row that meets one is NONFINITE. monitor: keep the KL divergence of successive predictions. trace: keep all
    iterates. cached=False: for models without a cache of keys and values.

    Memory beside the model's own, V tokens in the vocabulary, w = min(block, n) plus how far the first row is before
    the last: the cache of one token after the other, logits (B, w, V) in float32, as much again for noise and for
    monitor, and (sweeps + 1, B, n) numbers with trace.

    Raises TypeError for what is not a causal model of transformers, and a guess or eos that is no token; ValueError,
    naming the argument, for a model in training mode, a prompt that is empty, not of whole numbers or outside the
    vocabulary, an n or block that is no whole number of at least 1, more positions than the model has, and an end token
    that is asked for where there is none.
    """
    _check_model(model)
    size = int(model.config.get_text_config().vocab_size)
    prompt = _tokens("prompt", prompt, size)
    _check_length(model, prompt.shape[1], n)
    ends, filling = _ends(model, eos, size)
    noise = GumbelNoise(len(prompt), generator) if do_sample else None
    how = Sweeping(
        block=block, ends=ends, filling=filling, temperature=temperature, noise=noise, monitor=monitor, trace=trace
    )
    with torch.no_grad():
        return swept(CausalPredictor(model, prompt, cached=cached), _start(guess, prompt, n, size), how)


def _check_model(model: Any) -> None:
    if not isinstance(model, library().PreTrainedModel) or not model.can_generate():
        kind = type(model).__name__
        raise TypeError(f"model must be a causal model of transformers such as GPT2LMHeadModel, got {kind}")
    if model.config.is_encoder_decoder:
        raise TypeError(f"model must be causal, without an encoder, got {type(model).__name__}")
    if any(part.training for part in model.modules()):
        raise ValueError("model must be in evaluation mode, where dropout is off: call model.eval(); got training mode")


def _tokens(name: str, value: Any, size: int) -> Tensor:
    """value as (B, L) int64."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor of token numbers, got {type(value).__name__}")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name} must hold whole numbers, got {value.dtype}")
    if value.ndim != 2 or not value.numel():
        raise ValueError(f"{name} must be (B, L) with B, L >= 1, got {tuple(value.shape)}")
    outside = (value < 0) | (value >= size)
    if bool(outside.any()):
        raise ValueError(f"{name} must lie in [0, {size}), the vocabulary, got {int(value[outside][0])}")
    return value.long()


def _check_length(model: PreTrainedModel, given: int, n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    stated = model.config.get_text_config().to_dict()
    limit = stated.get("max_position_embeddings") or stated.get("n_positions")
    if limit is not None and given + n - 1 > limit:
        raise ValueError(f"prompt and n need {given} + {n} - 1 positions, the model has {limit}")


def _start(guess: Tensor | int | None, prompt: Tensor, n: int, size: int) -> Tensor:  # (B, n)
    if guess is None:
        return prompt[:, -1:].repeat(1, n)
    if isinstance(guess, bool) or not isinstance(guess, int | Tensor):
        raise TypeError(f"guess must be a token or a tensor of tokens, got {guess!r}")
    if isinstance(guess, int):
        guess = prompt.new_full((len(prompt), n), guess)
    start = _tokens("guess", guess, size).to(prompt.device)
    if start.shape != (len(prompt), n):
        raise ValueError(f"guess must be a token or (B, n) = ({len(prompt)}, {n}), got {tuple(start.shape)}")
    return start


def _ends(model: PreTrainedModel, eos: bool | int | Sequence[int], size: int) -> tuple[tuple[int, ...], int]:
    """The end tokens, and what stands behind one."""
    if eos is False:
        return (), 0
    stated, pad = _own_end(model) if eos is True else eos, _stated(model, "pad_token_id")
    source = "the model's end token" if eos is True else "eos"
    ends = _as_tokens(source, stated)
    if not ends or any(not 0 <= end < size for end in ends):
        raise ValueError(f"{source} must lie in [0, {size}), the vocabulary, got {stated}")
    return ends, ends[0] if pad is None else int(pad)


def _own_end(model: PreTrainedModel) -> Any:
    stated = _stated(model, "eos_token_id")
    if stated is None:
        places = f"{type(model).__name__}'s generation_config and config"
        raise ValueError(f"eos=True needs an end token, and eos_token_id of {places} is None")
    return stated


def _stated(model: PreTrainedModel, name: str) -> Any:
    """What generate reads, generation_config, or else the model's config."""
    places = (model.generation_config, model.config.get_text_config())
    found = [place.to_dict().get(name) for place in places if place is not None]
    return next((value for value in found if value is not None), None)


def _as_tokens(source: str, stated: Any) -> tuple[int, ...]:
    several = isinstance(stated, Sequence) and not isinstance(stated, str | bytes)
    ends: tuple[Any, ...] = tuple(stated) if several else (stated,)
    if any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
        raise TypeError(f"{source} must be True, False, a token or several tokens, got {stated!r}")
    return ends
