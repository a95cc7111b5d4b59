"""ImageTransformer: a transformer from image to image, iterated, for pixels that were dropped."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from settlepoint.layers.patches import Patches
from settlepoint.layers.transformer import TransformerBlock
from settlepoint.solve import FixedPoint

Form = Literal["km", "correction"]


class ImageCore(nn.Module):
    """T of an ImageTransformer, on images x (B, C, H, W), the guess f and the mask m (1 where a pixel is known)

    "km": T(x, f, m) = net(x, m). "correction": T(x, f, m) = f + (1 - m) net(x, f, m): what is known stays.
    """

    def __init__(self, net: nn.Module, form: Form):
        super().__init__()
        self.net, self.form = net, form

    def extra_repr(self) -> str:
        return f"form={self.form!r}"

    def forward(self, x: Tensor, f: Tensor, m: Tensor) -> Tensor:
        if self.form == "km":
            return self.net(torch.cat((x, m), 1))
        return f + (1 - m) * self.net(torch.cat((x, f, m), 1))


class ImageNet(nn.Module):
    """(B, channels[0], H, W) -> (B, channels[1], H, W): patches, a linear map and a learned place, transformer blocks
    and the layer norm, a linear map that starts at 0."""

    def __init__(self, channels: tuple[int, int], patches: Patches, width: int, heads: int, depth: int):
        super().__init__()
        self.channels = channels
        self.patches = patches
        self.lift = nn.Linear(channels[0] * patches.copies * patches.points, width)
        self.place = nn.Parameter(0.02 * torch.randn(patches.tokens, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)), nn.LayerNorm(width))
        self.project = nn.Linear(width, channels[1] * patches.points)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.channels[0]:
            raise ValueError(f"x must have {self.channels[0]} channels, images and masks together, got {x.shape[1]}")
        return self.patches.joined(self.project(self.blocks(self.lift(self.patches(x)) + self.place)))


class ImageTransformer(nn.Module):
    """x_{k+1} = a x_k + (1 - a) T(x_k, f, m), images throughout        (pixel dropout of Zappala et al., Table 3)

    u: (B, C + 1, H, W), an image whose dropped pixels are 0 and its mask, see data.dropped. form: "km", started at the
    image as it came; "correction", started at the guess f, the mean of the neighbours. painter: what makes f of u. T
    sees the mask, which the paper does not say. solver, stop, adjoint: of `settle`; without, two steps with a = 1/2.

    Raises ValueError, naming the argument, for another form and for patches that do not fit.
    """

    def __init__(
        self,
        net: nn.Module,
        painter: nn.Module,
        form: Form = "km",
        *,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
        self.painter = painter
        core = ImageCore(net, form)
        self.settle = FixedPoint.smoothed(core, 2, 0.5, "input", solver=solver, stop=stop, adjoint=adjoint)  # type: ignore[arg-type]

    @property
    def operator(self) -> ImageCore:
        """T."""
        return self.settle.operator  # type: ignore[return-value]

    def encode(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """f and m; f is the image as it came for "km". Raises ValueError where u does not end in a mask of 0 and 1."""
        if u.ndim != 4 or u.shape[1] < 2:
            raise ValueError(f"u must be (B, C + 1, H, W), images and their masks, got {tuple(u.shape)}")
        mask = u[:, -1:]
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("u must end in a mask of zeros and ones, see data.dropped")
        return (u[:, :-1] if self.operator.form == "km" else self.painter(u)), u[:, -1:]

    def start(self, f: tuple[Tensor, Tensor]) -> Tensor:
        """x_0."""
        return f[0]

    def decode(self, x: Tensor) -> Tensor:
        """The image itself."""
        return x

    def forward(self, u: Tensor) -> Tensor:
        f = self.encode(u)
        return self.settle(f, self.start(f))
