"""Aitken's relaxation of vector sequences."""

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, guarded_ratio, rowwise


@dataclass(frozen=True)
class AitkenState(State):
    """r: (R, W), residual before the last step; relaxation, norm: (R,), the last factor and residual norm."""

    r: Tensor
    relaxation: Tensor
    norm: Tensor


class Aitken(Solver):
    """x_{k+1} = x_k + w_k r_k,  w_k = -w_{k-1} <r_{k-1}, dr> / <dr, dr>,  dr = r_k - r_{k-1}        (Irons & Tuck 1969)

    One vector of memory and two inner products a step. w is kept within [1/limit, limit] in size, and a row whose
    residual more than doubled takes a Picard step instead.
    """

    def __init__(self, limit: float = 1e3):
        super().__init__()
        if not limit > 1:
            raise ValueError(f"limit must be > 1, got {limit}")
        self.limit = limit

    def extra_repr(self) -> str:
        return f"limit={self.limit}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> AitkenState:
        return AitkenState(torch.zeros_like(r), z.new_ones(len(z)), z.new_full((len(z),), float("inf")))

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: AitkenState) -> tuple[Tensor, AitkenState, int]:
        norm = eq.norm(r)
        change = r - state.r
        w = guarded_ratio(-state.relaxation * eq.dot(state.r, change), eq.dot(change, change), 1.0)
        w = w.sign() * w.abs().clamp(1 / self.limit, self.limit)
        first_or_worse = torch.isinf(state.norm) | (norm > 2 * state.norm)
        w = torch.where(first_or_worse | (w == 0), torch.ones_like(w), w)
        return z + rowwise(w, z) * r, AitkenState(r, w, norm), 0
