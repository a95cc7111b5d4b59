"""Linear layers of several networks side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Blocks(nn.Linear):
    """y_s = W_s x_s + b_s for s = 1 ... copies: (N, copies * inputs) -> (N, copies * outputs), block diagonal

    weight: (copies * outputs, inputs), the weights of nn.Linear one below the other. With one copy it is that layer.
    """

    def __init__(self, inputs: int, outputs: int, copies: int = 1, *, bias: bool = True):
        if copies < 1:
            raise ValueError(f"copies must be at least 1, got {copies}")
        super().__init__(inputs, copies * outputs, bias=bias)
        self.copies = copies

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, copies={self.copies}"

    def forward(self, input: Tensor) -> Tensor:
        if self.copies == 1:
            return super().forward(input)
        parts = input.unflatten(-1, (self.copies, self.in_features)).movedim(-2, 0).flatten(1, -2)
        y = torch.bmm(parts, self.weight.view(self.copies, -1, self.in_features).mT)
        y = y.movedim(0, -2).reshape(*input.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias
