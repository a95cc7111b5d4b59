"""A graph convolution with what the published PIGN puts behind it."""

from __future__ import annotations

from torch import Tensor, nn


class Activated(nn.Module):
    """h -> dropout(relu(conv(h, edges))), the body of the loop of PIGN's published code; a new mask in every call."""

    def __init__(self, conv: nn.Module, dropout: float = 0.5):
        super().__init__()
        self.conv, self.dropout = conv, nn.Dropout(dropout)

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        return self.dropout(self.conv(h, edges).relu())
