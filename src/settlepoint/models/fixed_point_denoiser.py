"""FixedPointDenoiser: the noise in an image by a block that is applied until its state settles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.patches import Patches
from settlepoint.layers.time_embedding import TimeEmbedding
from settlepoint.layers.transformer import TransformerBlock
from settlepoint.models.field_transformer import Core
from settlepoint.solve import FixedPoint


class FixedPointDenoiser(nn.Module):
    """epsilon(x, t) = Q z*,  z* = T(z*, f),  f = P(x, t)     (fixed-point diffusion: Bai and Melas-Kyriazi 2024)

    x: (B, C, size, size), t: (B,) from 0 to steps - 1. P: patches, their places, the time, and `before` transformer
    blocks, evaluated once; T: `depth` blocks on W [z, f], with a layer norm behind them, shared by all iterations; Q:
    `after` blocks and a linear map of each token. z starts at f, or where a caller
    says: at the state that the step of a sampler before this one ended in.

    solver, stop, adjoint: of the FixedPoint layer `settle`; without, four steps that keep half of the old state.
    settle.last.value is the state after a call.

        >>> model = FixedPointDenoiser((1, 8), 10, width=8, heads=2)
        >>> x, t = torch.zeros(3, 1, 8, 8), torch.tensor([0, 5, 9])
        >>> model(x, t).shape, model(x, t, model.settle.last.value).shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3, 1, 8, 8]))

    Raises ValueError for patches that do not divide the image and heads that do not divide the width.
    """

    def __init__(
        self,
        image: tuple[int, int],  # channels, size
        steps: int,
        *,
        width: int = 48,
        heads: int = 4,
        patch: int = 2,
        depths: tuple[int, int, int] = (1, 1, 0),  # before, T, after
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        super().__init__()
        (channels, size), (before, depth, after) = image, depths
        if depth < 1 or min(depths) < 0:
            raise ValueError(f"depths must be (before >= 0, T >= 1, after >= 0) blocks, got {depths}")
        self.patches, self.time = Patches((size, size), (patch, patch)), TimeEmbedding(width, steps)
        inside = channels * self.patches.points
        self.lift, self.place = nn.Linear(inside, width), nn.Parameter(0.02 * torch.randn(self.patches.tokens, width))
        blocks = [nn.Sequential(*(TransformerBlock(width, heads) for _ in range(n))) for n in (before, depth, after)]
        self.before, self.after = blocks[0], blocks[2]
        core = Core(blocks[1], width, joins=True, bounded=True)
        usual = FixedPoint.smoothed(core, 4, 0.5)
        self.settle = FixedPoint(core, solver or usual.solver, stop or usual.stop, adjoint, inject="input")  # type: ignore[arg-type]
        self.project = nn.Linear(width, inside)

    @property
    def operator(self) -> Core:
        """T(z, f)."""
        return self.settle.operator  # type: ignore[return-value]

    def encode(self, given: tuple[Tensor, Tensor]) -> Tensor:  # (x, t) -> (B, tokens, width)
        """f = P(x, t)."""
        x, t = given
        return self.before(self.lift(self.patches(x)) + self.place + self.time(t)[:, None])

    def start(self, f: Tensor) -> Tensor:
        """z_0 = f."""
        return f

    def decode(self, z: Tensor) -> Tensor:  # (B, tokens, width) -> (B, C, size, size)
        """Q z."""
        return self.patches.joined(self.project(self.after(z)))

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        f = self.encode((x, t))
        return self.decode(self.settle(f, self.start(f) if z is None else z))
