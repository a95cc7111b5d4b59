"""CausalPredictor: a causal model of transformers as the predictor of a chain, with a cache of what is settled."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from settlepoint.chains.jacobi import Predictor

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedModel

CACHES = ("cache", "past_key_values")
"""What the argument of forward that takes a DynamicCache is called, newest name first."""


def library() -> ModuleType:
    """The module transformers. Raises ImportError, naming the extra, when it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ImportError('decoding needs transformers: pip install "settlepoint[chains]"') from None
    return transformers


class CausalPredictor(Predictor):
    """Logits of the tokens behind a prompt, in float32 as `generate` compares them

    prompt: (B, L). cached: keys and values of settled tokens are kept, and only those behind them are evaluated anew.
    The cache holds B (L + n - 1) tokens at most, as that of one token after the other does.

    Raises ValueError for a model with no such cache, or one that cannot forget the latest tokens (recurrent ones).
    """

    def __init__(self, model: PreTrainedModel, prompt: Tensor, *, cached: bool = True):
        self.model, self.prompt = model, prompt
        known = signature(model.forward).parameters
        self.trims = "logits_to_keep" in known
        self.name = next((name for name in CACHES if name in known), "")
        if cached and not (self.name and library().DynamicCache(config=model.config).is_croppable):
            raise ValueError(f"{type(model).__name__} has no cache of keys and values to cut back; pass cached=False")
        self.cache = library().DynamicCache() if cached else None  # of the whole prefix, for models with windows too

    def predict(self, tokens: Tensor, low: int, high: int) -> tuple[Tensor, int]:
        given = torch.cat((self.prompt, tokens[:, : high - 1]), 1)[:, self._held() :]
        options = {"use_cache": self.cache is not None}
        options |= {self.name: self.cache} if self.cache is not None else {}
        options |= {"logits_to_keep": high - low} if self.trims else {}
        logits = self.model(input_ids=given, **options).logits[:, low - high :]
        return logits.float(), given.shape[1]

    def settle(self, low: int, keep: Tensor | None) -> None:
        if keep is not None:
            self.prompt = self.prompt[keep]
        if self.cache is None:
            return
        self.cache.crop(self.prompt.shape[1] + low - 1 - self._held())  # negative: so many tokens go
        if keep is not None:
            self.cache.batch_select_indices(keep)

    def _held(self) -> int:
        return 0 if self.cache is None else int(self.cache.get_seq_length())
