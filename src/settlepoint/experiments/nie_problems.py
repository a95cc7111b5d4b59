"""Integral equations whose solutions are known: by a formula, or by a root finder of SciPy on other nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import root
from torch import Tensor

from settlepoint.layers import IntegralOperator, Quadrature, RandomNodes

Rule = Quadrature | RandomNodes


@dataclass(frozen=True, eq=False)
class Known:
    """y(t) = f(t) + int G(y(s), t, s) ds, its solution, and |G_y| <= bound(t, s) for all y.

    f, exact: of times, any shape. formula: the solution in words. volterra: integrals end at t. end: of the interval
    that begins at 0. random: by a sample of nodes, whose own fixed point is settled(nodes, weights).
    """

    formula: str
    kernel: Callable[[Tensor, Tensor, Tensor], Tensor]
    f: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor, Tensor], Tensor]
    volterra: bool = False
    end: float = 1.0
    settled: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def operator(self) -> IntegralOperator:
        """T of this equation."""
        return IntegralOperator(self.kernel, volterra=self.volterra)

    def forcing(self, t: Tensor) -> Tensor:  # (n, 1) -> (1, n, 1)
        """f at the nodes, one row."""
        return self.f(t)[None]


def separable(lam: float) -> Known:
    """y = t + lam int_0^1 t s y(s) ds, whose Neumann series is t sum_k (lam / 3)^k."""
    return Known(
        f"t / (1 - {lam:g} / 3)",
        lambda y, t, s: lam * t * s * y,
        lambda t: t,
        lambda t: t / (1 - lam / 3),
        lambda t, s: abs(lam) * t * s,
        settled=lambda s, w: s / (1 - lam * (w * s.square()).sum()),
    )


def exponential(lam: float) -> Known:
    """y = e^t - lam (e^{t+1} - 1) / (t + 1) + lam int_0^1 e^{ts} y(s) ds, by y = e^t, whatever lam is."""
    return Known(
        "e^t",
        lambda y, t, s: lam * torch.exp(t * s) * y,
        lambda t: t.exp() - lam * (torch.exp(t + 1) - 1) / (t + 1),
        torch.exp,
        lambda t, s: abs(lam) * torch.exp(t * s),
    )


def growing(c: float) -> Known:
    """y = 1 + c int_0^t y(s) ds, by y = e^{ct}; the k-th iterate is the k-th Taylor polynomial."""
    exact = lambda t: torch.exp(c * t)  # noqa: E731
    return Known(
        f"e^({c:g} t)", lambda y, t, s: c * y, torch.ones_like, exact, lambda t, s: abs(c) + 0 * t * s, volterra=True
    )


def swinging() -> Known:
    """y = t - int_0^t (t - s) y(s) ds on [0, 2 pi], by y = sin t: y'' = -y, y(0) = 0, y'(0) = 1."""
    return Known(
        "sin t", lambda y, t, s: (s - t) * y, lambda t: t, torch.sin, lambda t, s: (t - s).abs(), True, 2 * math.pi
    )


def hammerstein() -> Known:
    """y = 1 + t + int_0^1 sin(2 y(s)) / 2 / (1 + t + s) ds."""
    kernel = lambda y, t, s: torch.sin(2 * y) / 2 / (1 + t + s)  # noqa: E731
    f = lambda t: 1 + t  # noqa: E731
    exact = collocated(lambda y, t, s: np.sin(2 * y) / 2 / (1 + t + s), lambda t: 1 + t)
    return Known("by SciPy", kernel, f, exact, lambda t, s: 1 / (1 + t + s))


def urysohn() -> Known:
    """y = t + int_0^1 1 / (1 + t + s + y(s)^2) ds; with a = 1 + t + s, |G_y| <= 9/8 / sqrt(3 a^3), at y^2 = a / 3."""
    kernel = lambda y, t, s: 1 / (1 + t + s + y * y)  # noqa: E731
    exact = collocated(lambda y, t, s: 1 / (1 + t + s + y * y), lambda t: t)
    slope = lambda t, s: 9 / 8 / torch.sqrt(3 * (1 + t + s) ** 3)  # noqa: E731
    return Known("by SciPy", kernel, lambda t: t, exact, slope)


def collocated(G: Callable, f: Callable, count: int = 80) -> Callable[[Tensor], Tensor]:
    """The solution on [0, 1] by scipy.optimize.root on other nodes, at any time by the equation itself (Nystrom)."""
    x, w = np.polynomial.legendre.leggauss(count)
    s, w = (x + 1) / 2, w / 2
    found = root(lambda y: f(s) + G(y, s[:, None], s) @ w - y, f(s), tol=1e-15)
    residual = float(np.abs(f(s) + G(found.x, s[:, None], s) @ w - found.x).max())
    assert residual < 1e-12, f"the reference has a residual of {residual}"

    def at(t: Tensor) -> Tensor:
        times = t.numpy().reshape(-1)
        return torch.from_numpy(f(times) + G(found.x, times[:, None], s) @ w).reshape(t.shape)

    return at


CONSTANTS = (1.0, 4.0, 16.0)

PROBLEMS: Mapping[str, Callable[[], Known]] = {
    "fredholm ts": lambda: separable(0.9),
    "fredholm exp(ts)": lambda: exponential(0.5),
    "fredholm beyond": lambda: separable(5.0),
    "random nodes": lambda: separable(0.9),
    **{f"volterra c={c:g}": lambda c=c: growing(c) for c in CONSTANTS},
    "volterra t-s": swinging,
    "hammerstein": hammerstein,
    "urysohn": urysohn,
}
"""Cell to equation."""
