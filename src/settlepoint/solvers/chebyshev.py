"""Chebyshev semi-iteration: acceleration without inner products, for a known real spectrum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State


@dataclass(frozen=True)
class ChebyshevState(State):
    """move: (R, W), the last step; tau: 0-d, its factor, 0 before the first step."""

    move: Tensor
    tau: Tensor


class Chebyshev(Solver):
    """p_k = d^2 t_k t_{k-1} p_{k-1} + 2 t_k r_k,  x_{k+1} = x_k + p_k,  t_k = 1 / (2c - d^2 t_{k-1})

    with t_0 = 1/c, p_0 = r_0/c, c = 1 - (low + high)/2, d = (high - low)/2 (Golub & Varga 1961): the best polynomial
    method when all eigenvalues of P' are real and lie in [low, high], high < 1. Outside that interval it may diverge.
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        if not low <= high < 1:
            raise ValueError(f"low and high must satisfy low <= high < 1, got low={low}, high={high}")
        self.low, self.high = low, high

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> ChebyshevState:
        return ChebyshevState(torch.zeros_like(z), z.new_zeros(()))

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: ChebyshevState) -> tuple[Tensor, ChebyshevState, int]:
        centre, square = 1 - (self.low + self.high) / 2, ((self.high - self.low) / 2) ** 2
        first = state.tau == 0
        tau = torch.where(first, 1 / centre, 1 / (2 * centre - square * state.tau))
        move = square * tau * state.tau * state.move + torch.where(first, tau, 2 * tau) * r
        return z + move, ChebyshevState(move, tau), 0
