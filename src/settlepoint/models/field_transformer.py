"""FieldTransformer: a vision transformer whose blocks are iterated, from frames of a field to later frames."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from settlepoint.layers.patches import Patches
from settlepoint.layers.transformer import TransformerBlock
from settlepoint.solve import FixedPoint

Kind = Literal["vit", "small", "parallel", "space-time"]
Form = Literal["km", "picard", "input"]


class Core(nn.Module):
    """T of a FieldTransformer: blocks on tokens (B, n, width), behind them the layer norm where `bounded`

    With a second argument, T(x, f) = blocks(W [x, f]). bounded: an image in a ball whatever x is, so that iterating it
    cannot diverge.
    """

    def __init__(self, blocks: nn.Sequential, width: int, *, joins: bool, bounded: bool):
        super().__init__()
        self.blocks = blocks
        self.join = nn.Linear(2 * width, width) if joins else None
        self.norm = nn.LayerNorm(width) if bounded else nn.Identity()

    def forward(self, x: Tensor, *f: Tensor) -> Tensor:
        return self.norm(self.blocks(x if self.join is None else self.join(torch.cat((x, *f), -1))))


class FieldTransformer(nn.Module):
    """y = Q x_N,  x_0 = f = P u,  from x_k to x_{k+1} by T, a few transformer blocks     (Zappala et al., Algorithm 2)

    "km": a x + (1 - a) T(x);  "picard": a x + (1 - a) (T(x) + f);  "input": a x + (1 - a) T(x, f)

    u: (B, frames[0], *grid), y: (B, frames[1], *grid). P: patches and a linear map, and a learned place; Q: a linear
    map of each token. kind: "vit"; "small", shifted patches and locality attention (Lee, Lee and Song 2021);
    "parallel", two branches of attention and of perceptrons (Touvron et al. 2022); "space-time", patches in time too,
    of frames[0] = frames[1]. patch: points along each axis, time first for "space-time". depth: blocks of T. bounded:
    see Core. solver, stop, adjoint: of the FixedPoint layer `settle`; without, three steps with a = .5.

    Raises ValueError, naming the argument, for a kind or form that there is not, and patches that do not fit.
    """

    def __init__(
        self,
        frames: tuple[int, int],
        grid: tuple[int, int],
        width: int = 64,
        heads: int = 4,
        depth: int = 1,
        *,
        patch: tuple[int, ...] = (4, 4),
        kind: Kind = "vit",
        form: Form = "picard",
        bounded: bool = False,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        super().__init__()
        _check(frames, kind, form)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.form, self.timed, self.frames, self.grid = form, kind == "space-time", frames[0], tuple(grid)
        sizes = (frames[0], *grid) if self.timed else grid
        channels = (1, 1) if self.timed else frames
        self.patches = Patches(sizes, patch, shifted=kind == "small")
        self.lift = nn.Linear(channels[0] * self.patches.copies * self.patches.points, width)
        self.place = nn.Parameter(0.02 * torch.randn(self.patches.tokens, width))
        self.project = nn.Linear(width, channels[1] * self.patches.points)
        branches, local = 1 + (kind == "parallel"), kind == "small"
        blocks = nn.Sequential(*(TransformerBlock(width, heads, branches=branches, local=local) for _ in range(depth)))
        core = Core(blocks, width, joins=form == "input", bounded=bounded)
        inject = {"km": "init", "picard": "f", "input": "input"}[form]
        self.settle = FixedPoint.smoothed(core, 3, 0.5, inject, solver=solver, stop=stop, adjoint=adjoint)  # type: ignore[arg-type]

    @property
    def operator(self) -> Core:
        """T."""
        return self.settle.operator  # type: ignore[return-value]

    def encode(self, u: Tensor) -> Tensor:  # (B, frames[0], *grid) -> (B, tokens, width)
        """f = P u."""
        if u.shape[1:] != (wanted := (self.frames, *self.grid)):
            raise ValueError(f"u must be (B, {', '.join(map(str, wanted))}), got {tuple(u.shape)}")
        return self.lift(self.patches(u[:, None] if self.timed else u)) + self.place

    def start(self, f: Tensor) -> Tensor:
        """x_0 = f."""
        return f

    def decode(self, x: Tensor) -> Tensor:  # (B, tokens, width) -> (B, frames[1], *grid)
        """y = Q x."""
        y = self.patches.joined(self.project(x))
        return y[:, 0] if self.timed else y

    def forward(self, u: Tensor) -> Tensor:
        f = self.encode(u)
        return self.decode(self.settle(f, f))


def _check(frames: tuple[int, int], kind: Kind, form: Form) -> None:
    for name, value, known in (("kind", kind, get_args(Kind)), ("form", form, get_args(Form))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if min(frames) < 1 or (kind == "space-time" and frames[0] != frames[1]):
        raise ValueError(f"frames must be at least 1, and as many in as out for 'space-time', got {frames}")
