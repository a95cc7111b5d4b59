"""Layers that draw or learn statistics, held still for the length of a solve, so that it has a fixed point."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HeldDropout(nn.Dropout):
    """Dropout with one mask from one `release` to the next, instead of one a call.

    The first call in training draws the mask; a call on another shape draws another.
    """

    def __init__(self, p: float = 0.5):
        super().__init__(p)
        self._mask: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.p):
            return input
        if self._mask is None or self._mask.shape != input.shape or self._mask.dtype != input.dtype:
            self._mask = nn.functional.dropout(torch.ones_like(input), self.p)
        return input * self._mask

    def release(self) -> None:
        """The next call draws a new mask."""
        self._mask = None


class HeldBatchNorm(nn.BatchNorm1d):
    """Batch normalisation by its running statistics; in training the first call after a `release` updates them."""

    def __init__(self, width: int):
        super().__init__(width)
        self._updated = False

    def forward(self, input: Tensor) -> Tensor:
        if self.training and not self._updated:
            self._updated = True
            with torch.no_grad():
                super().forward(input)
        return nn.functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def release(self) -> None:
        """The next call updates the statistics."""
        self._updated = False


def release(module: nn.Module) -> None:
    """Begin a solve: every held layer in module draws and updates anew in its next call."""
    for part in module.modules():
        if isinstance(part, HeldDropout | HeldBatchNorm):
            part.release()
