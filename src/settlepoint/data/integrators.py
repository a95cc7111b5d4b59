"""One step of w' = L w + N(w), L diagonal: the integrators of spectral fluid solvers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Rate = Callable[[Tensor], Tensor]
Scheme = Literal["etdrk4", "ifrk4", "cn-heun", "cn-euler"]


class Integrator(ABC):
    """L: (...), real, at most 0; dt > 0. order: the power of dt that its error at a given time follows."""

    order: int

    @abstractmethod
    def step(self, w: Tensor, rate: Rate, first: Tensor) -> Tensor:
        """w one dt later; rate is N, and first is N(w), which the caller has made."""


class ETDRK4(Integrator):
    """Exponential time differencing, Runge-Kutta of order 4 (Cox and Matthews 2002)

    with a = e^{z/2} w + q N(w), b = e^{z/2} w + q N(a), c = e^{z/2} a + q (2 N(b) - N(w)), z = L dt:

    w+ = e^z w + f1 N(w) + 2 f2 (N(a) + N(b)) + f3 N(c)

    The coefficients are means over a circle around z, which do not cancel near 0 (Kassam and Trefethen 2005). Exact
    where N is constant.
    """

    order = 4

    def __init__(self, linear: Tensor, dt: float, points: int = 32):
        z = linear.double() * dt
        angles = torch.pi * (torch.arange(points, dtype=torch.float64, device=z.device) + 0.5) / points
        around = z[..., None] + torch.polar(torch.ones_like(angles), angles)
        e = around.exp()
        mean = lambda values: (dt * values.mean(-1).real).to(torch.complex128)  # noqa: E731
        self.half, self.whole = (z / 2).exp().to(torch.complex128), z.exp().to(torch.complex128)
        self.q = mean(((around / 2).exp() - 1) / around)
        self.f1 = mean((-4 - around + e * (4 - 3 * around + around**2)) / around**3)
        self.f2 = mean(2 * (2 + around + e * (around - 2)) / around**3)
        self.f3 = mean((-4 - 3 * around - around**2 + e * (4 - around)) / around**3)
        self.twice = 2 * self.q

    def step(self, w: Tensor, rate: Rate, first: Tensor) -> Tensor:
        middle = self.half * w
        a = torch.addcmul(middle, self.q, first)
        second = rate(a)
        third = rate(torch.addcmul(middle, self.q, second))
        c = (self.half * a).addcmul_(self.twice, third).addcmul_(self.q, first, value=-1)
        return (
            (self.whole * w).addcmul_(self.f1, first).addcmul_(self.f2, second.add_(third)).addcmul_(self.f3, rate(c))
        )


class IFRK4(Integrator):
    """The classical Runge-Kutta method of order 4 for e^{-L t} w (integrating factor)."""

    order = 4

    def __init__(self, linear: Tensor, dt: float):
        self.dt = dt
        self.half, self.whole = ((linear.double() * t).exp().to(torch.complex128) for t in (dt / 2, dt))

    def step(self, w: Tensor, rate: Rate, first: Tensor) -> Tensor:
        dt, middle = self.dt, self.half * w
        second = rate(torch.addcmul(middle, self.half, first, value=dt / 2))
        third = rate(middle.add(second, alpha=dt / 2))
        fourth = rate((self.whole * w).addcmul_(self.half, third, value=dt))
        inner = self.half * second.add_(third)
        return (self.whole * (w + dt / 6 * first)).add_(inner, alpha=dt / 3).add_(fourth, alpha=dt / 6)


class CNHeun(Integrator):
    """Crank-Nicolson for L, Heun's predictor and corrector for N

    (1 - z/2) w* = (1 + z/2) w + dt N(w),  (1 - z/2) w+ = (1 + z/2) w + dt/2 (N(w) + N(w*)),  z = L dt
    """

    order = 2

    def __init__(self, linear: Tensor, dt: float):
        z = linear.double() * dt
        self.keep, self.share = (
            ((1 + z / 2) / (1 - z / 2)).to(torch.complex128),
            (dt / (1 - z / 2)).to(torch.complex128),
        )

    def step(self, w: Tensor, rate: Rate, first: Tensor) -> Tensor:
        kept = self.keep * w
        second = rate(torch.addcmul(kept, self.share, first))
        return kept.addcmul_(self.share, second.add_(first), value=0.5)


class CNEuler(CNHeun):
    """Crank-Nicolson for L, Euler for N: (1 - z/2) w+ = (1 + z/2) w + dt N(w), as the published generator has it."""

    order = 1

    def step(self, w: Tensor, rate: Rate, first: Tensor) -> Tensor:
        return (self.keep * w).addcmul_(self.share, first)


SCHEMES: dict[Scheme, Callable[[Tensor, float], Integrator]] = {
    "etdrk4": ETDRK4,
    "ifrk4": IFRK4,
    "cn-heun": CNHeun,
    "cn-euler": CNEuler,
}
