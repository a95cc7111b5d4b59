"""Networks side by side: several seeds of a model trained as one wide model, with the numbers of each alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from settlepoint.layers.masks import CopiedDropout


class Copies:
    """A wide model and the narrow ones it is made of: models of one build that differ in their weights alone.

    wide: built with copies = len(narrow), on whose output the copies lie one after another along the last dimension.
    Its weights become those of the narrow ones, joined along the one dimension in which they differ in size, and its
    dropout takes the masks of copy s from streams[s]: a copy gets what it would get alone.

    Raises ValueError for a parameter that is not as wide as its copies.
    """

    def __init__(self, wide: nn.Module, narrow: Sequence[nn.Module], streams: Sequence[torch.Generator] | None = None):
        self.wide, self.narrow = wide, narrow
        self._axes = {name: _axis(name, value, len(narrow), narrow[0]) for name, value in wide.state_dict().items()}
        states = [model.state_dict() for model in narrow]
        self.wide.load_state_dict(
            {n: torch.cat([s[n] for s in states], a) if a >= 0 else states[0][n] for n, a in self._axes.items()}
        )
        if streams is not None:
            _stream(wide, streams)

    def __len__(self) -> int:
        return len(self.narrow)

    def part(self, copy: int) -> dict[str, Tensor]:
        """The weights of one copy as its narrow model holds them."""
        state = self.wide.state_dict()
        return {
            name: (value.chunk(len(self), axis)[copy] if (axis := self._axes[name]) >= 0 else value).clone()
            for name, value in state.items()
        }


def _axis(name: str, wide: Tensor, copies: int, narrow: nn.Module) -> int:
    """The dimension along which the copies of a parameter lie; -1 when there is but one, or no copy has its own."""
    alone = narrow.state_dict()[name]
    if copies == 1 and wide.shape == alone.shape:
        return -1
    for axis in range(wide.ndim):
        if wide.shape == (*alone.shape[:axis], copies * alone.shape[axis], *alone.shape[axis + 1 :]):
            return axis
    raise ValueError(f"{name} must be {copies} times as wide as {tuple(alone.shape)}, got {tuple(wide.shape)}")


def _stream(model: nn.Module, streams: Sequence[torch.Generator]) -> None:
    for part in model.modules():
        if isinstance(part, CopiedDropout):
            if part.copies != len(streams):
                raise ValueError(f"the dropout must have {len(streams)} copies, one a stream, got {part.copies}")
            part.streams = list(streams)
        elif isinstance(part, nn.Dropout) and part.p:
            raise ValueError("a model side by side must draw by CopiedDropout, got nn.Dropout")
