"""A graph convolution with what the published PIGN puts behind it."""

from __future__ import annotations

from torch import Tensor, nn

from settlepoint.layers.held import HeldBatchNorm, HeldDropout
from settlepoint.layers.masks import CopiedDropout


class Activated(nn.Module):
    """h -> dropout(relu(norm(conv(h, edges)))), the body of the loop of PIGN's published code

    norm: the number of features for batch normalisation, or None for none. held: one mask and the running statistics
    for a whole solve (layers.held), which a tolerance needs; otherwise a new mask and the batch's own in every call.
    copies: networks side by side.
    """

    def __init__(
        self, conv: nn.Module, dropout: float = 0.5, *, norm: int | None = None, held: bool = False, copies: int = 1
    ):
        super().__init__()
        self.conv, self.dropout = conv, HeldDropout(dropout) if held else CopiedDropout(dropout, copies)
        normal = HeldBatchNorm if held else nn.BatchNorm1d
        self.norm = nn.Identity() if norm is None else normal(norm)

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(h, edges)).relu())
