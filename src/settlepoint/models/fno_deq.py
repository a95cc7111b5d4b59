"""FNO-DEQ: a Fourier neural operator without a depth, for steady problems."""

from __future__ import annotations

from torch import Tensor, nn

from settlepoint.layers.frame import Frame
from settlepoint.solve import FixedPoint


class FNODEQ(nn.Module):
    """y = Q z*,  z* = T(z*, P x)        (FNO-DEQ: Marwah et al. 2023; the form of our T is that of layers.FourierCell)

    A steady state is what does not change any more, and so is z*. frame: P and Q. settle: the FixedPoint layer over
    T(z, u), such as FourierCell, with inject="input"; it holds solver, stop and gradient. Every sample stops on its
    own, and settle.last says how each of them ended; one that did not settle is decoded from where it stopped. x: (B,
    inputs, n1, n2), or (B, n1, n2) with one input; result: (B, outputs, n1, n2) on the same grid, whatever it is, as
    long as T can be evaluated there.

        >>> import torch, settlepoint as sp
        >>> from settlepoint.layers import FourierCell, Frame
        >>> settle = sp.FixedPoint(FourierCell(8, modes=4), sp.Anderson(3), sp.Tolerance(0.0, 1e-4), inject="input")
        >>> model = FNODEQ(Frame((1, 8, 1)), settle)
        >>> model(torch.zeros(2, 16, 16)).shape, model.settle.last.counts()
        (torch.Size([2, 1, 16, 16]), {'CONVERGED': 2})
    """

    def __init__(self, frame: Frame, settle: FixedPoint):
        super().__init__()
        if settle.inject != "input":
            raise ValueError(f"settle must have inject='input', since the cell sees the input, got {settle.inject!r}")
        self.frame, self.settle = frame, settle

    @property
    def operator(self):
        """T(z, u)."""
        return self.settle.operator

    def posed(self, x: Tensor):
        """The equation that forward solves for x, and where it starts: what certify and solve ask for."""
        return self.settle.posed(self.frame.encode(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.frame.decode(self.settle(self.frame.encode(x)), (x.shape[-2], x.shape[-1]))  # type: ignore[arg-type]
