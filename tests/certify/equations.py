"""Equations whose fixed points are known from outside: by Newton to the last digit, or by hand."""

from __future__ import annotations

from typing import TypeVar

import torch
from tests.cells import DOUBLE
from torch import Tensor, nn

from settlepoint import Anderson, Equation, Solution, Tolerance, solve
from settlepoint.layers import TanhCell

S = TypeVar("S", Tensor, tuple[Tensor, ...])


def iterated(eq: Equation, x: S, steps: int) -> S:
    """That many steps of Picard, written out."""
    for _ in range(steps):
        x = eq.image(x)  # type: ignore[assignment]
    return x


def newton(eq: Equation, x: Tensor, steps: int = 40) -> Tensor:
    """A fixed point near x, by Newton's method with dense Jacobians of torch.func, row by row, to 1e-14."""
    bound = eq.at(x)
    assert bound.layout is not None
    z = bound.layout.flatten(x).detach().clone()
    rows, width = z.shape
    for _ in range(steps):
        dense = torch.func.jacrev(lambda v: bound.flat(v))(z)
        A = torch.eye(width, dtype=z.dtype) - torch.stack([dense[r, :, r] for r in range(rows)])
        z = z + torch.linalg.solve(A, (bound.flat(z) - z).detach()[:, :, None])[:, :, 0].detach()
    scale = 1 + z.abs().amax()
    assert float((bound.flat(z) - z).detach().abs().max()) < 1e-13 * scale, "no fixed point found"
    return z.reshape(x.shape)


def tanh_cells(generator: torch.Generator, rows: int = 5, width: int = 8, gain: float = 0.9) -> tuple[Equation, Tensor]:
    """x = tanh(x W + u) with W of about that spectral radius, u through context, and a value near its fixed point."""
    W = gain / width**0.5 * torch.randn(width, width, dtype=DOUBLE, generator=generator)
    u = torch.randn(rows, width, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x, u: torch.tanh(x @ W + u), context=(u,))
    return eq, iterated(eq, torch.zeros_like(u), 200)


def two_roots(gaps: list[float], dtype: torch.dtype = DOUBLE) -> tuple[Equation, Tensor, Tensor]:
    """x = x^2 + 1/4 - (g/2)^2, whose fixed points lie at 1/2 -+ g/2, one gap a row: with the lower and the upper."""
    g = torch.tensor(gaps, dtype=dtype)[:, None]
    eq = Equation(lambda x, c: x.square() + c, context=(0.25 - g.square() / 4,))
    return eq, 0.5 - g / 2, 0.5 + g / 2


def away(x: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """x moved by exactly that much in every row, in random directions."""
    step = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    return x + size * step / step.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1))


def value_of(sol: Solution) -> Tensor:
    """The value of a solution of one tensor."""
    assert isinstance(sol.value, Tensor)
    return sol.value


def module_cell(generator: torch.Generator, gain: float = 0.4, rows: int = 4) -> tuple[Equation, Tensor, nn.Module]:
    """An operator with weights, and a value solved to 1e-8."""
    module = TanhCell(6, gain=gain, generator=generator, dtype=DOUBLE)
    u = torch.randn(rows, 6, dtype=DOUBLE, generator=generator)
    eq = Equation(module, context=(u,))
    with torch.no_grad():
        return eq, value_of(solve(eq, torch.zeros_like(u), Anderson(), Tolerance(1e-8))), module
