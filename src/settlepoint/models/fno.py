"""The Fourier neural operator, with layers of its own or one layer over and over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.fourier import FourierLayer
from settlepoint.layers.fourier_cell import FourierCell
from settlepoint.layers.frame import Frame


class FNO(nn.Module):
    """y = Q L_K(... L_1(P x)),  L_k = sigma(W_k + F^-1 R_k F), the last without sigma        (Li et al. 2021)

    channels: (inputs, width, outputs). x: (B, inputs, n1, n2), or (B, n1, n2) with one input; result:
    (B, outputs, n1, n2) on the same grid, whatever it is, as long as it has 2 * modes points either way, padding
    included. layers: K. tied: L_1 for all of them, which has the parameters of one layer. padding, hidden: see
    layers.Frame. gain: of the first R, see layers.SpectralConvolution. sees_input: z_{k+1} = T_k(z_k, P x)
    from z_0 = P x, each T_k a layers.FourierCell, in place of the above.

        >>> FNO((1, 8, 1), modes=4)(torch.zeros(2, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        modes: int,
        layers: int = 4,
        *,
        tied: bool = False,
        sees_input: bool = False,
        padding: float = 0.25,
        gain: float = 0.5,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, got {layers}")
        width = channels[1]
        self.frame = Frame(channels, padding=padding, dtype=dtype)
        count, one = 1 if tied else layers, lambda: FourierLayer(width, width, modes, gain=gain, dtype=dtype)
        cell = lambda: FourierCell(width, modes, gain=gain, dtype=dtype)  # noqa: E731
        self.layers = nn.ModuleList((cell if sees_input else one)() for _ in range(count))
        self.depth, self.tied, self.sees_input = layers, tied, sees_input

    def forward(self, x: Tensor) -> Tensor:
        z = u = self.frame.encode(x)
        for k in range(self.depth):
            layer = self.layers[0 if self.tied else k]
            z = layer(z, u) if self.sees_input else layer(z)
            z = nn.functional.gelu(z) if k < self.depth - 1 and not self.sees_input else z
        return self.frame.decode(z, (x.shape[-2], x.shape[-1]))
