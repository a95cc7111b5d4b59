"""Fields cut into patches, and put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Patches(nn.Module):
    """(B, C, *grid) -> (B, tokens, C prod(patch)), one token a patch, the last axis of the grid running fastest

    grid: points along each axis. patch: points of a patch along each. shifted: beside each patch the patches of the
    field moved by half a patch along all diagonals, on a torus: (1 + 2^axes) times the features (shifted patch tokens,
    Lee, Lee and Song 2021).

    Raises ValueError when a patch does not divide the grid, and for a field of another grid.

        >>> cut = Patches((4, 6), (2, 3))
        >>> field = torch.arange(24.0).view(1, 1, 4, 6)
        >>> cut(field).shape, bool((cut.joined(cut(field)) == field).all())
        (torch.Size([1, 4, 6]), True)
    """

    def __init__(self, grid: Sequence[int], patch: Sequence[int], *, shifted: bool = False):
        super().__init__()
        self.grid, self.patch, self.shifted = tuple(grid), tuple(patch), shifted
        if len(self.grid) != len(self.patch) or not self.grid or min((*self.grid, *self.patch)) < 1:
            raise ValueError(f"patch must have one size >= 1 for each axis of the grid {self.grid}, got {self.patch}")
        if any(points % size for points, size in zip(self.grid, self.patch, strict=True)):
            raise ValueError(f"patch must divide the grid {self.grid}, got {self.patch}")

    def extra_repr(self) -> str:
        return f"grid={self.grid}, patch={self.patch}, shifted={self.shifted}"

    @property
    def tokens(self) -> int:
        """How many patches a field has."""
        return math.prod(self._counts)

    @property
    def points(self) -> int:
        """How many points a patch has."""
        return math.prod(self.patch)

    @property
    def copies(self) -> int:
        """How many times a field is cut."""
        return 1 + 2 ** len(self.grid) * self.shifted

    @property
    def _counts(self) -> tuple[int, ...]:
        return tuple(points // size for points, size in zip(self.grid, self.patch, strict=True))

    def forward(self, field: Tensor) -> Tensor:
        if field.ndim != 2 + len(self.grid) or field.shape[2:] != self.grid:
            raise ValueError(f"field must be (B, C, {', '.join(map(str, self.grid))}), got {tuple(field.shape)}")
        if not self.shifted:
            return self._cut(field)
        axes, halves = tuple(range(2, field.ndim)), [max(1, size // 2) for size in self.patch]
        signs = torch.cartesian_prod(*(torch.tensor((-1, 1)) for _ in axes)).view(-1, len(axes)).tolist()
        moved = [field.roll([s * half for s, half in zip(sign, halves, strict=True)], axes) for sign in signs]
        return self._cut(torch.cat((field, *moved), 1))

    def _cut(self, field: Tensor) -> Tensor:
        axes = len(self.grid)
        pairs = [size for both in zip(self._counts, self.patch, strict=True) for size in both]
        split = field.reshape(*field.shape[:2], *pairs)
        order = [0, *(2 + 2 * axis for axis in range(axes)), 1, *(3 + 2 * axis for axis in range(axes))]
        return split.permute(order).reshape(len(field), self.tokens, field.shape[1] * self.points)

    def joined(self, tokens: Tensor) -> Tensor:  # (B, tokens, C prod(patch)) -> (B, C, *grid)
        """The field whose patches these are."""
        axes, channels = len(self.grid), tokens.shape[-1] // self.points
        split = tokens.reshape(len(tokens), *self._counts, channels, *self.patch)
        order = [0, 1 + axes, *(at for axis in range(axes) for at in (1 + axis, 2 + axes + axis))]
        return split.permute(order).reshape(len(tokens), channels, *self.grid)
