"""Systems with memory: with known solutions, and as trajectories to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from settlepoint.layers import MemoryOperator, Quadrature, joined


def _ones(t: Tensor, y: Tensor) -> Tensor:
    return torch.ones_like(y)


@dataclass(frozen=True, eq=False)
class Exact:
    """An equation on [0, end] with y(0) = start, and its solution.

    slope, memory: Lipschitz constants for NIDE.table, None where there are none on the whole space.
    """

    formula: str
    operator: MemoryOperator
    start: float
    exact: Callable[[Tensor], Tensor]
    end: float
    slope: float | None = 0.0
    memory: float = 1.0


def hyperbolic() -> Exact:
    """y' = 1 + int_0^t y ds, y(0) = 0: y'' = y, y'(0) = 1."""
    operator = MemoryOperator(_ones, _ones, lambda t, s: torch.ones_like(t * s))
    return Exact("sinh t", operator, 0.0, torch.sinh, 2.0)


def circular() -> Exact:
    """y' = -int_0^t y ds, y(0) = 1: y'' = -y, y'(0) = 0."""
    operator = MemoryOperator(lambda t, y: 0 * y, lambda t, y: -_ones(t, y), lambda t, s: torch.ones_like(t * s))
    return Exact("cos t", operator, 1.0, torch.cos, 10.0)


def fading() -> Exact:
    """y' = -y + e^{-2t} (1 - e^{-t}) - y int_0^t e^{-(t-s)} y(s)^2 ds, y(0) = 1.

    By y = e^{-t}: the integral is e^{-t} (1 - e^{-t}), and what is left is y' = -y.
    """
    operator = MemoryOperator(
        lambda t, y: -y + torch.exp(-2 * t) * (1 - torch.exp(-t)), lambda t, y: -y, lambda t, s: torch.exp(s - t),
        torch.square,
    )  # fmt: skip
    return Exact("e^-t", operator, 1.0, lambda t: torch.exp(-t), 4.0, slope=None)


EXACT: Mapping[str, Callable[[], Exact]] = {"sinh": hyperbolic, "cos": circular, "fading": fading}
"""Cell to equation."""


@dataclass(frozen=True, eq=False)
class System:
    """A system to learn, as an operator and, by the linear chain trick, as one of ordinary equations with m beside y.

    With K = r e^{-r (t - s)} the memory m = int K F(y) ds has m' = r (F(y) - m), m(0) = 0. slope: (y, m) to dy/dt.
    """

    operator: MemoryOperator
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray]
    F: Callable[[np.ndarray], np.ndarray]
    rate: float
    starts: tuple[float, float]

    def trajectories(self, count: int, rule: Quadrature, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Starts (B, 2), drawn evenly, and states at the nodes (B, n, 2), to 1e-9 by scipy.integrate.solve_ivp."""
        low, high = self.starts
        start = low + (high - low) * torch.rand(count, 2, generator=draw, dtype=torch.float64)
        return start, torch.stack([self._one(row.numpy(), rule) for row in start])

    def _one(self, start: np.ndarray, rule: Quadrature) -> Tensor:  # (n, 2)
        def rhs(t: float, z: np.ndarray) -> np.ndarray:
            y, m = z[:2], z[2:]
            return np.concatenate((self.slope(y, m), self.rate * (self.F(y) - m)))

        z0 = np.concatenate((start, np.zeros(2)))
        found = solve_ivp(rhs, (rule.low, rule.high), z0, "DOP853", rule.nodes.numpy(), rtol=1e-10, atol=1e-10)
        return torch.from_numpy(found.y[:2].T.copy())


def lotka_volterra() -> System:
    """u' = u (1.2 - .4 u - v), v' = v (-.6 + int_0^t e^{-(t-s)} u(s) ds): predators live on what they once ate."""
    operator = MemoryOperator(
        lambda t, y: torch.stack((y[..., 0] * (1.2 - 0.4 * y[..., 0] - y[..., 1]), -0.6 * y[..., 1]), -1),
        lambda t, y: torch.stack((0 * y[..., 1], y[..., 1]), -1),
        lambda t, s: torch.exp(s - t),
        lambda y: y.flip(-1),
    )
    slope = lambda y, m: np.array([y[0] * (1.2 - 0.4 * y[0] - y[1]), y[1] * (m[1] - 0.6)])  # noqa: E731
    return System(operator, slope, lambda y: y[::-1], 1.0, (0.2, 2.0))


def spirals() -> System:
    """y' = A y + 2 B int_0^t e^{-(t-s)} tanh y(s) ds, A = (-.3, -1; 1, -.3), B = (-1, -1; 1, -1)."""
    A, B = np.array([[-0.3, -1.0], [1.0, -0.3]]), np.array([[-1.0, -1.0], [1.0, -1.0]])
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    operator = MemoryOperator(
        lambda t, y: y @ a.T, lambda t, y: 2 * _ones(t, y), lambda t, s: torch.exp(s - t)[..., None] * b, torch.tanh
    )
    return System(operator, lambda y, m: A @ y + 2 * B @ m, np.tanh, 1.0, (-2.0, 2.0))


SYSTEMS: Mapping[str, Callable[[], System]] = {"lotka-volterra": lotka_volterra, "spirals": spirals}
"""Name to system."""


class Net(nn.Module):
    """Two hidden layers of tanh on what is given, side by side."""

    def __init__(self, inputs: int, outputs: int, hidden: int):
        super().__init__()
        layers = (nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.net = nn.Sequential(*layers, nn.Linear(hidden, outputs))

    def forward(self, *given: Tensor) -> Tensor:
        return self.net(joined(*given))


class Autonomous(Net):
    """The same without the time that comes first."""

    def forward(self, *given: Tensor) -> Tensor:
        return self.net(given[1])


class Lag(Net):
    """The same of t - s."""

    def forward(self, *given: Tensor) -> Tensor:
        t, s = given
        return self.net(t - s)


def operator_of(model: str, hidden: int, width: int = 2) -> MemoryOperator:
    """nide: c(y), d(y), K(t - s), F(y); ode: its c(y) alone; timed: c(t, y) alone, of about as many parameters as nide.

    Weights by torch's global generator.
    """
    if model == "timed":
        return MemoryOperator(Net(1 + width, width, round(2.09 * hidden)))
    c = Autonomous(width, width, hidden)
    if model == "ode":
        return MemoryOperator(c)
    d, F = Autonomous(width, width, hidden), Net(width, width, hidden)
    return MemoryOperator(c, d, Lag(1, width, hidden), F)
