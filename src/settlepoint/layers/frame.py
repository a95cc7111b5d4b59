"""The way into the hidden channels of a field and out again."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Frame(nn.Module):
    """Lift, pad, and back: the P and Q of a Fourier neural operator        (Li et al. 2021, Figure 2)

    channels: (inputs, width, outputs). encode: (B, inputs, n1, n2) or (B, n1, n2) to (B, width, N1, N2): the
    coordinates i / n1 and j / n2 of every point become two inputs more, a perceptron of one hidden layer lifts each
    point, and `padding` times as many points of zeros follow, so that a field that is not periodic has room to
    become so. decode: the first n1 x n2 points of a hidden field, each through another perceptron, to
    (B, outputs, n1, n2). Nothing depends on n1 and n2, so that a model serves every grid.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        *,
        padding: float = 0.25,
        hidden: int = 64,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        inputs, width, outputs = channels
        if not 0 <= padding < math.inf:
            raise ValueError(f"padding must be a finite share of the points >= 0, got {padding}")
        self.inputs, self.padding = inputs, padding
        self.lift = _perceptron(inputs + 2, hidden // 2, width, dtype)
        self.project = _perceptron(width, hidden, outputs, dtype)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"

    def encode(self, x: Tensor) -> Tensor:
        x = x[:, None] if x.ndim == 3 else x
        if x.ndim != 4 or x.shape[1] != self.inputs:
            raise ValueError(f"x must be (B, {self.inputs}, n1, n2), got {tuple(x.shape)}")
        more = [round(self.padding * n) for n in x.shape[2:]]
        return nn.functional.pad(self.lift(_placed(x)), (0, more[1], 0, more[0]))

    def decode(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        return self.project(z[..., : size[0], : size[1]])


def _placed(x: Tensor) -> Tensor:
    """x with the coordinates of its points as two channels more."""
    n1, n2 = x.shape[2:]
    rows, columns = (torch.arange(n, dtype=x.dtype, device=x.device) / n for n in (n1, n2))
    places = torch.stack((rows[:, None].expand(n1, n2), columns.expand(n1, n2)))
    return torch.cat((x, places.expand(len(x), 2, n1, n2)), 1)


def _perceptron(inputs: int, hidden: int, outputs: int, dtype: torch.dtype | None) -> nn.Sequential:
    first, last = nn.Conv2d(inputs, hidden, 1, dtype=dtype), nn.Conv2d(hidden, outputs, 1, dtype=dtype)
    return nn.Sequential(first, nn.GELU(), last)
