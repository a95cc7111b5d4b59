"""ANIE: an integral equation on space and time whose integral is attention, from one frame to those that follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from settlepoint.layers.galerkin import GalerkinAttention, GalerkinBlock, coordinates
from settlepoint.layers.patches import Patches
from settlepoint.solve import FixedPoint


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What the published code does otherwise than the equation; all off is the equation.

    dropout_in_evaluation: attention drops at test too. misaligned: coordinates run through time fastest while tokens
    run through space fastest. one_more: N asks for N + 1 evaluations; a `stop` that is given says its own number. no_f:
    y <- a y + (1 - a) T(y), f only as the start. detached: the gradient goes through the last evaluation alone, unless
    an `adjoint` is given. adds_y: T(y) + y for T(y).
    """

    dropout_in_evaluation: bool = False
    misaligned: bool = False
    one_more: bool = False
    no_f: bool = False
    detached: bool = False
    adds_y: bool = False

    @classmethod
    def published(cls) -> Faults:
        """All of them."""
        return cls(
            dropout_in_evaluation=True, misaligned=True, one_more=True, no_f=True, detached=True, adds_y=True
        )  # fmt: skip


class Integral(nn.Module):
    """T(y) = W_o blocks(W_i [y, t, x]) on tokens (B, times * points, features): int G(y, x, z, t, s) dz ds."""

    def __init__(self, blocks: nn.Sequential, features: int, width: int, places: Tensor, *, adds_y: bool = False):
        super().__init__()
        self.blocks, self.adds_y = blocks, adds_y
        self.lift, self.project = nn.Linear(features + places.shape[1], width), nn.Linear(width, features)
        self.register_buffer("places", places)
        self.places: Tensor

    def forward(self, y: Tensor) -> Tensor:
        found = self.project(self.blocks(self.lift(torch.cat((y, self.places.expand(len(y), -1, -1)), -1))))
        return found + y if self.adds_y else found


class ANIE(nn.Module):
    """y <- a y + (1 - a) (f + T(y)),  y = f + int G(y, x, z, t, s) dz ds      (attentional neural integral equations)

    u: (B, 1, *grid), a frame; the answer (B, times, *grid), the frames that follow. f: features of the patches of u,
    the same at all times. T: `blocks` of Galerkin attention with `heads` heads on all times and places, see Integral.
    D: a perceptron of each token. faults: see Faults. solver, stop, adjoint: of the FixedPoint layer `settle`; without,
    two steps with a = 1/2.

    Raises ValueError, naming the argument, for patches that do not fit and heads that do not divide width.
    """

    def __init__(
        self,
        times: int,
        grid: tuple[int, int],
        *,
        heads: int = 1,
        blocks: int = 1,
        patch: tuple[int, int] = (4, 4),
        features: int = 32,
        width: int = 64,
        hidden: int = 128,
        dropout: float = 0.1,
        faults: Faults | None = None,
        solver: nn.Module | None = None,
        stop: object = None,
        adjoint: object = None,
    ):
        super().__init__()
        if times < 1:
            raise ValueError(f"times must be at least 1, got {times}")
        self.times, self.patches = times, Patches(grid, patch)
        self.faults = faults = faults or Faults()
        points = self.patches.points
        self.encoder = nn.Sequential(nn.Linear(points, hidden), nn.ReLU(), nn.Linear(hidden, features))
        self.decoder = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, points))
        attention = lambda: GalerkinAttention(  # noqa: E731
            width, heads, dropout=dropout, in_evaluation=faults.dropout_in_evaluation
        )
        stack = nn.Sequential(*(GalerkinBlock(attention(), width, hidden, dropout) for _ in range(blocks)))
        core = Integral(stack, features, width, self._places(), adds_y=faults.adds_y)
        inject = "init" if faults.no_f else "f"
        steps, inject = 2 + faults.one_more, "init" if faults.no_f else "f"
        given = {"solver": solver, "stop": stop, "adjoint": adjoint}
        self.settle = FixedPoint.smoothed(core, steps, 0.5, inject, detached=faults.detached, **given)  # type: ignore[arg-type]

    def _places(self) -> Tensor:  # (tokens, 3): t, x_1, x_2
        (high, wide), (p, q) = self.patches.grid, self.patches.patch
        sizes = high // p, wide // q
        if self.faults.misaligned:
            return coordinates(*sizes, self.times).roll(1, 1)
        return coordinates(self.times, *sizes)

    @property
    def operator(self) -> Integral:
        """T."""
        return self.settle.operator  # type: ignore[return-value]

    def encode(self, u: Tensor) -> Tensor:  # (B, 1, *grid) -> (B, times * points, features)
        """f."""
        if u.shape[1:] != (1, *self.patches.grid):
            raise ValueError(f"u must be (B, 1, {', '.join(map(str, self.patches.grid))}), got {tuple(u.shape)}")
        return self.encoder(self.patches(u)).repeat(1, self.times, 1)

    def start(self, f: Tensor) -> Tensor:
        """y_0 = f."""
        return f

    def decode(self, y: Tensor) -> Tensor:  # (B, times * points, features) -> (B, times, *grid)
        """The frames."""
        frames = self.decoder(y).unflatten(1, (self.times, -1))
        return self.patches.joined(frames.flatten(0, 1)).view(len(y), self.times, *self.patches.grid)

    def forward(self, u: Tensor) -> Tensor:
        f = self.encode(u)
        return self.decode(self.settle(f, f))
