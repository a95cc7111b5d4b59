"""Safeguarded: a fast solver that is watched, and a dependable one that takes over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, rowwise


@dataclass(frozen=True)
class SafeguardedState(State):
    """primary, fallback: their states; z, r: (R, W), the best iterate and its residual; norm: (R,), its norm;
    trusted: (R,), rows still led by the primary; idle: (R,), steps since the best.
    """

    primary: State
    fallback: State
    z: Tensor
    r: Tensor
    norm: Tensor
    trusted: Tensor
    idle: Tensor
    notes: tuple[str, ...] = ()

    @property
    def displacement(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the fallback, or else the primary, knows of it."""
        found = self.fallback.displacement
        return self.primary.displacement if found is None else found


class Safeguarded(Solver):
    """Steps of `primary` while they help, steps of `fallback` from the best iterate on once they do not.

    A row loses trust in its primary for good when its true residual exceeds growth times its best, is not finite, has
    not improved for `patience` steps, or when the primary proposes a step that is not finite. The fallback watches from
    the start, so that it takes over with its memory filled. Costs no evaluation of its own.
    """

    def __init__(self, primary: Solver, fallback: Solver, growth: float = 2.0, patience: int = 5):
        super().__init__()
        for name, value in (("primary", primary), ("fallback", fallback)):
            if not isinstance(value, Solver):
                raise TypeError(f"{name} must be a Solver, got {type(value).__name__}")
        if not growth >= 1:
            raise ValueError(f"growth must be >= 1, got {growth}")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience must be an integer >= 1, got {patience!r}")
        self.primary, self.fallback, self.growth, self.patience = primary, fallback, growth, patience
        self.recovery = 1 + fallback.recovery

    def extra_repr(self) -> str:
        return f"{self.primary!r}, {self.fallback!r}, growth={self.growth}, patience={self.patience}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> SafeguardedState:
        first, second = self.primary.init(eq, z, r), self.fallback.init(eq, z, r)
        norm, idle = z.new_full((len(z),), float("inf")), z.new_zeros(len(z))
        return SafeguardedState(first, second, z, r, norm, torch.ones_like(idle, dtype=torch.bool), idle)

    def step(
        self, eq: Equation, z: Tensor, r: Tensor, state: SafeguardedState
    ) -> tuple[Tensor, SafeguardedState, int | Tensor]:
        norm = eq.norm(r)
        better = norm < state.norm
        idle = torch.where(better, torch.zeros_like(state.idle), state.idle + 1)
        failed = state.trusted & (~(norm <= self.growth * state.norm) | (idle >= self.patience))
        best_z, best_r = z.where(rowwise(better, z), state.z), r.where(rowwise(better, r), state.r)
        back = rowwise(failed, z)
        here, residual = best_z.where(back, z), best_r.where(back, r)
        first, primary, extra = self.primary.step(eq, here, residual, state.primary)
        second, fallback, more = self.fallback.step(eq, here, residual, state.fallback)
        trusted = state.trusted & ~failed & torch.isfinite(first).all(1)
        new = SafeguardedState(
            primary, fallback, best_z, best_r, torch.where(better, norm, state.norm), trusted, idle,
            primary.notes + fallback.notes,
        )  # fmt: skip
        return first.where(rowwise(trusted, z), second), new, extra + more
