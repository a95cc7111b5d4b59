"""The slope of every step of a chain, measured from one sweep to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.chains.sliding import slid


@dataclass(frozen=True)
class Secant:
    """A_k = <dy_k, dx_k> / |dx_k|^2        dx_k, dy_k: changes of x_k and of y_k = step(x_k, k) in the last sweep

    the number closest to the derivative of the step along the last change, a Rayleigh quotient of it (the step length
    of Barzilai and Borwein 1988, for each position of each row). Where x_k has not changed, or only by rounding, A_k
    stays as it was; where it was not in the window before, it is the guess given for it.

    x, y: (R, W, ...), of the sweep before. slope: (R, W). known: (R, W), which of these were in the window.
    """

    x: Tensor
    y: Tensor
    slope: Tensor
    known: Tensor

    @classmethod
    def empty(cls, x: Tensor) -> Secant:  # (R, W, ...)
        """Nothing known yet."""
        slope = x.new_zeros(x.shape[:2])
        return cls(torch.zeros_like(x), torch.zeros_like(x), slope, torch.zeros_like(slope, dtype=torch.bool))

    def step(self, x: Tensor, y: Tensor, guess: Tensor) -> tuple[Tensor, Secant]:
        """A, (R, W), and what is remembered. guess: (R, W)."""
        dx, dy = (x - self.x).flatten(2), (y - self.y).flatten(2)
        far = dx.norm(dim=2) > 8 * torch.finfo(x.dtype).eps * x.flatten(2).norm(dim=2)
        slope = (dx * dy).sum(2) / (dx * dx).sum(2)
        before = torch.where(self.known, self.slope, guess)
        slope = torch.where(self.known & far & slope.isfinite(), slope, before)
        return slope, Secant(x, y, slope, torch.ones_like(self.known))

    def shifted(self, ahead: Tensor) -> Secant:
        """Every row moved on by its own number of positions."""
        inside, (x, y, slope, known) = slid(ahead, self.x, self.y, self.slope, self.known)
        return Secant(x, y, slope, known & inside)

    def only(self, index: Tensor) -> Secant:
        """The rows in index alone."""
        return Secant(self.x[index], self.y[index], self.slope[index], self.known[index])
