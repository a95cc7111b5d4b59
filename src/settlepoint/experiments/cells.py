"""The problems on which solvers are compared: small, seeded, and each with a reason to be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.stop import Tolerance

Make = Callable[[torch.Generator], "Problem"]


@dataclass(frozen=True)
class Problem:
    """x = T(x, *context) from x0, to be solved to stop. settles: whether a fixed point can be reached at all."""

    operator: Callable[..., Tensor]
    x0: Tensor
    stop: Tolerance
    context: tuple[Tensor, ...] = field(default=())
    settles: bool = True

    def equation(self) -> Equation:
        """The equation of this problem."""
        return Equation(self.operator, context=self.context)

    def whole(self, x: Tensor) -> Tensor:
        """P on the whole batch, for solvers that know no rows."""
        return self.operator(x, *self.context)


def symmetric(generator: torch.Generator, unknowns: int, radius: float) -> Tensor:
    """(D, D) float64, symmetric, eigenvalues uniform on [-radius, radius], both ends taken."""
    basis = torch.linalg.qr(torch.randn(unknowns, unknowns, generator=generator, dtype=torch.float64))[0]
    values = (2 * torch.rand(unknowns, generator=generator, dtype=torch.float64) - 1) * radius
    values[0], values[1] = radius, -radius
    return basis @ torch.diag(values) @ basis.T


def affine(
    rows: int,
    unknowns: int,
    radius: float,
    *,
    dtype: torch.dtype = torch.float64,
    size: float = 1.0,
    stop: Tolerance | None = None,
) -> Make:
    """x = x W + f with W of `symmetric`, started at f; f normal of that size. Stops at a relative 1e-6."""

    def make(generator: torch.Generator) -> Problem:
        matrix = symmetric(generator, unknowns, radius).to(dtype)
        f = (size * torch.randn(rows, unknowns, generator=generator, dtype=torch.float64)).to(dtype)
        return Problem(lambda x, f: x @ matrix + f, f, stop or Tolerance(0.0, 1e-6, max_steps=5000), (f,))

    return make


def mixed(rows: int, unknowns: int, *, dtype: torch.dtype = torch.float64) -> Make:
    """Rows of very different speed: x = c_i x W + f_i, |W| = 1, c_i even on [.1, .99]. Stops at an absolute 1e-6."""

    def make(generator: torch.Generator) -> Problem:
        matrix = symmetric(generator, unknowns, 1.0).to(dtype)
        factor = torch.linspace(0.1, 0.99, rows, dtype=torch.float64)[:, None].to(dtype)
        f = torch.randn(rows, unknowns, generator=generator, dtype=torch.float64).to(dtype)
        stop = Tolerance(1e-6, max_steps=5000)
        return Problem(lambda x, c, f: c * (x @ matrix) + f, f, stop, (factor, f))

    return make


def skew(generator: torch.Generator) -> Problem:
    """A non-normal affine map with complex eigenvalues, spectral radius .9."""
    matrix = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    matrix *= 0.9 / torch.linalg.eigvals(matrix).abs().max()
    f = torch.randn(64, 32, generator=generator, dtype=torch.float64)
    return Problem(lambda x, f: x @ matrix + f, f, Tolerance(1e-8, max_steps=2000), (f,))


def network(dtype: torch.dtype, tolerance: float) -> Make:
    """x = tanh(x W + u), |W|_2 = 1.2: an equilibrium layer that no norm bound certifies."""

    def make(generator: torch.Generator) -> Problem:
        matrix = torch.randn(48, 48, generator=generator, dtype=torch.float64)
        matrix = (1.2 * matrix / torch.linalg.matrix_norm(matrix, 2)).to(dtype)
        u = torch.randn(128, 48, generator=generator, dtype=torch.float64).to(dtype)
        stop = Tolerance(tolerance, max_steps=500)
        return Problem(lambda x, u: torch.tanh(x @ matrix + u), torch.zeros_like(u), stop, (u,))

    return make


def rotation(generator: torch.Generator) -> Problem:
    """Rotation by 90 degrees: Picard cycles, other methods settle at once."""
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    x0 = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    return Problem(lambda x: x @ turn, x0, Tolerance(1e-8, max_steps=500))


def expansion(generator: torch.Generator) -> Problem:
    """An affine map of norm 1.5 with eigenvalues on both sides: Picard diverges, the fixed point exists."""
    matrix = symmetric(generator, 16, 1.5)
    f = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    return Problem(lambda x, f: x @ matrix + f, f, Tolerance(1e-8, max_steps=500), (f,))


def escape(generator: torch.Generator) -> Problem:
    """x = sqrt(x^2 + 1): no fixed point anywhere."""
    x0 = torch.rand(8, 4, generator=generator, dtype=torch.float64)
    return Problem(lambda x: torch.sqrt(x * x + 1), x0, Tolerance(1e-8, max_steps=500), settles=False)


TIMED: Mapping[str, Make] = {
    "B1 D64 .9": affine(1, 64, 0.9),
    "B64 D64 .9": affine(64, 64, 0.9),
    "B64 D64 .99": affine(64, 64, 0.99),
    "B64 D512 .99": affine(64, 512, 0.99),
}
"""Anchors: name to problem; B rows, D unknowns, spectral radius; float64, relative 1e-6."""

HONEST: Mapping[str, Make] = {
    "float32 .99": affine(64, 64, 0.99, dtype=torch.float32, stop=Tolerance(1e-5, 1e-6, max_steps=5000)),
    "float32 beyond": affine(64, 64, 0.9, dtype=torch.float32, stop=Tolerance(1e-9, max_steps=2000)),
    "tiny": affine(16, 64, 0.9, size=1e-6),
    "huge": affine(16, 64, 0.9, size=1e6),
    "mixed": mixed(256, 32),
    "skew": skew,
    "tanh float32": network(torch.float32, 1e-5),
    "tanh bfloat16": network(torch.bfloat16, 0.1),
    "tanh float16": network(torch.float16, 2e-2),
    "rotation": rotation,
    "expansion": expansion,
    "escape": escape,
}
"""Problems on which claims of convergence are checked: precision at its limits, cycles, divergence, no fixed point."""


def true_claims(problem: Problem, value: Tensor, stop: Tolerance) -> Tensor:
    """Rows whose value satisfies ||P(x)-x|| <= atol + rtol ||P(x)|| + 8 eps (||x|| + ||P(x)||), re-checked in float64.

    The operator is evaluated once in the problem's dtype, differences and norms in float64; eps is that of the dtype.
    """
    with torch.no_grad():
        image = problem.whole(value).double()
    x = value.double()
    norm = lambda t: torch.linalg.vector_norm(t, dim=1)  # noqa: E731
    slack = 8 * torch.finfo(value.dtype).eps * (norm(x) + norm(image))
    return norm(image - x) <= stop.atol + stop.rtol * norm(image) + slack
