"""GumbelNoise: the chance of a sampled chain, fixed before it is sampled."""

from __future__ import annotations

import torch
from torch import Tensor


class GumbelNoise:
    """-log E with E ~ Exp(1), drawn entry after entry: argmax(logits + noise) is a draw from softmax(logits).

    The noise of entry i is one draw of (rows, V) numbers behind those of the entries before it, so that it depends on
    the generator alone and not on how many entries are asked for at once. Kept are the entries that may still be
    asked for.
    """

    def __init__(self, rows: int, generator: torch.Generator | None = None):
        self.rows, self.generator = rows, generator
        self._first, self._kept = 0, []  # number of the first entry that is kept; a (rows, V) tensor an entry

    def window(self, low: int, high: int, like: Tensor) -> Tensor:  # (rows, high - low, V)
        """Entries low, ..., high - 1, in dtype, device and V of like; what lies before low is let go."""
        while self._first + len(self._kept) < high:
            self._kept.append(self._draw(like))
        del self._kept[: low - self._first]
        self._first = max(low, self._first)
        return torch.stack(self._kept[: high - low], 1)

    def _draw(self, like: Tensor) -> Tensor:
        device = like.device if self.generator is None else self.generator.device
        draw = torch.empty(self.rows, like.shape[-1], dtype=like.dtype, device=device)
        return -draw.exponential_(generator=self.generator).log().to(like.device)
