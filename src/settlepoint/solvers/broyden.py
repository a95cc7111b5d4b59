"""Broyden's second method with limited memory."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, alike, guarded_ratio, placed, rowwise, select_state, sound


@dataclass(frozen=True)
class BroydenState(State):
    """H = I + sum_j left_j right_j^T, the approximate inverse of I - P'.

    left, right: (R, m, W), allocated once; z, r: (R, W), last iterate and residual; best_z, best_r, best: those of the
    smallest residual so far, and its norm (R,); step: 0-d count.
    """

    left: Tensor
    right: Tensor
    z: Tensor
    r: Tensor
    best_z: Tensor
    best_r: Tensor
    best: Tensor
    step: Tensor


class Broyden(Solver):
    """x_{k+1} = x_k + H_k r_k,  H_{k+1} = H_k + (s - H_k y) y^T / (y^T y),  s = dx, y = -dr        (Broyden 1965)

    The second of Broyden's methods needs no products with H^T, and its residual humps less than that of the first.

    memory: number of updates kept; when they are full all are forgotten, since dropping only the oldest is unstable.
    growth: a row whose residual exceeds this multiple of its best learns from the failed step (H is updated) but
    steps again from its best iterate.
    """

    def __init__(self, memory: int = 30, growth: float = 10.0):
        super().__init__()
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
            raise ValueError(f"memory must be an integer >= 1, got {memory!r}")
        if not growth > 1:
            raise ValueError(f"growth must be > 1, got {growth}")
        self.memory, self.growth = memory, growth

    def extra_repr(self) -> str:
        return f"memory={self.memory}, growth={self.growth}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> BroydenState:
        empty = z.new_zeros(len(z), self.memory, z.shape[1])
        best = z.new_full((len(z),), float("inf"))
        return BroydenState(empty, empty.clone(), z, r, z, r, best, z.new_zeros((), dtype=torch.int64))

    def resume(self, eq: Equation, z: Tensor, r: Tensor, state) -> BroydenState:
        fresh = self.init(eq, z, r)
        sizes = (self.memory, 2 * self.memory)
        if not isinstance(state, BroydenState) or not alike(state.z, z) or state.left.shape[1] not in sizes:
            return fresh
        if state.left.shape[1] == self.memory:  # room for as many updates again, so that none is forgotten soon
            used = (state.step - 1) % self.memory + 1
            left, right = (torch.cat((old, torch.zeros_like(old)), 1) for old in (state.left, state.right))
            state = replace(state, left=left, right=right, step=used)
        kept = replace(state, z=z, r=r, best_z=z, best_r=r, best=fresh.best)
        empty = torch.zeros_like(state.left)
        return select_state(sound(state), kept, replace(kept, left=empty, right=empty))  # pyright: ignore[reportReturnType]

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: BroydenState) -> tuple[Tensor, BroydenState, int]:
        s, y = z - state.z, state.r - r
        slot = ((state.step - 1) % state.left.shape[1]).reshape(1)
        old = torch.where(slot == 0, torch.zeros_like(state.left), state.left)
        hy = y + _combined(eq.gram(y[:, None], state.right)[:, 0], old)
        new_left = s - hy
        scale = guarded_ratio(torch.ones_like(state.best), eq.dot(y, y), 0.0)
        left, right = placed(old, new_left, slot), placed(state.right, y * rowwise(scale, z), slot)
        norm = eq.norm(r)
        better, bad = norm < state.best, norm > self.growth * state.best
        best = torch.where(better, norm, state.best)
        best_z, best_r = z.where(rowwise(better, z), state.best_z), r.where(rowwise(better, r), state.best_r)
        here, residual = best_z.where(rowwise(bad, z), z), best_r.where(rowwise(bad, r), r)
        moved = here + residual + _combined(eq.gram(residual[:, None], right)[:, 0], left)
        return moved, BroydenState(left, right, z, r, best_z, best_r, best, state.step + 1), 0


def _combined(g: Tensor, vectors: Tensor) -> Tensor:
    return torch.bmm(g[:, None], vectors)[:, 0]
