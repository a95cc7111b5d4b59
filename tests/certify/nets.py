"""Random networks, drawn piece by piece: the adversary of every bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tests.cells import DOUBLE
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]


class Draw:
    """Numbers from one seed."""

    def __init__(self, seed: int):
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)

    def integer(self, low: int, high: int) -> int:
        """One of low, ..., high."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=DOUBLE, generator=self.generator)

    def scaled(self, *shape: int) -> Tensor:
        """Small and large ones."""
        return self.normal(*shape) * self.pick((0.1, 0.5, 1.0, 3.0))

    def places(self, count: int, among: int) -> list[int]:
        """With repeats."""
        return torch.randint(0, among, (count,), generator=self.generator).tolist()

    def balls(self) -> tuple[float, ...]:
        """The whole space, and one of the others: what costs time is each of them."""
        return math.inf, self.pick(BALLS[1:])

    def filled(self, module: nn.Module) -> nn.Module:
        """The module in evaluation, its weights and running statistics drawn anew."""
        module = module.double().eval()
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(self.normal(*p.shape) * self.pick((0.2, 0.6, 1.5)))
            for name, b in module.named_buffers():
                if name.endswith("running_var"):
                    b.copy_(self.normal(*b.shape) ** 2 + 0.05)
                elif name.endswith("running_mean"):
                    b.copy_(self.normal(*b.shape))
        return module.requires_grad_(False)


BALLS = (math.inf, 1.0, 1e-2, 1e-4)
"""Radii; inf is the whole space."""

Builder = Callable[[Draw, int], tuple[Function, int]]


@dataclass(frozen=True)
class Net:
    """An operator on states (R, ...), what it is made of, and the balls on which bounds are held against it.

    whole: its rows depend on each other.
    """

    names: tuple[str, ...]
    call: Function
    x: Tensor
    whole: bool = False
    radii: tuple[float, ...] = BALLS

    def __repr__(self) -> str:
        return f"{' > '.join(self.names)} on {tuple(self.x.shape)}"


def chained(functions: Sequence[Function]) -> Function:
    def call(x: Tensor) -> Tensor:
        for f in functions:
            x = f(x)
        return x

    return call


def chain(draw: Draw, pieces: dict[str, Builder], width: int, length: int) -> tuple[list[str], Function, int]:
    """Some pieces one after the other, from a width to the last one."""
    names, functions = [], []
    for _ in range(length):
        name = draw.pick(tuple(pieces))
        f, width = pieces[name](draw, width)
        names.append(name)
        functions.append(f)
    return names, chained(functions), width
