"""A classifier whose hidden state is a fixed point."""

from __future__ import annotations

from torch import Tensor, nn

from settlepoint.solve import FixedPoint


class EquilibriumClassifier(nn.Module):
    """y = D z*,  z* = T(z*, E x)        (deep equilibrium model: Bai, Kolter and Koltun 2019)

    encoder: E, from (B, inputs) to (B, width), evaluated once. settle: the FixedPoint layer over the cell T(z, u), such
    as TanhCell, with inject="input"; it holds solver, stop and gradient, and its `last` is the report of the latest
    forward pass. decoder: D.

        >>> import torch, settlepoint as sp
        >>> from settlepoint.layers import TanhCell, linear
        >>> cell = TanhCell(5)
        >>> model = EquilibriumClassifier(linear(3, 5), sp.FixedPoint(cell, inject="input"), linear(5, 2))
        >>> model(torch.zeros(4, 3)).shape, model.settle.last.counts()
        (torch.Size([4, 2]), {'CONVERGED': 4})
    """

    def __init__(self, encoder: nn.Module, settle: FixedPoint, decoder: nn.Module):
        super().__init__()
        if settle.inject != "input":
            raise ValueError(f"settle must have inject='input', since the cell sees the input, got {settle.inject!r}")
        self.encoder, self.settle, self.decoder = encoder, settle, decoder

    @property
    def operator(self):
        """T(z, u)."""
        return self.settle.operator

    def encode(self, x: Tensor) -> Tensor:  # (B, inputs) -> (B, width)
        """u = E x."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:  # (B, width) -> (B, classes)
        """D z."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.settle(self.encode(x)))
