"""Safeguarded: a fast solver that is watched, and a dependable one that takes over."""

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, rowwise, select_state, stepped


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
    not improved for `patience` steps, or when the primary proposes a step that is not finite; it goes on from its best
    iterate. A fallback without calls of its own watches from the start, so that it takes over with its memory filled.

    Costs no evaluation of its own. Where a step of one of the two makes calls (learned solvers of several stages,
    Newton-Krylov), the host reads once a step which rows are whose, and only those rows are evaluated.
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
        self.recovery, self.calls = 1 + fallback.recovery, primary.calls + fallback.calls

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
        trusted = state.trusted & ~failed
        watched = state.fallback
        if self.fallback.calls:  # has not watched: begins where it takes over
            watched = select_state(failed, self.fallback.init(eq, here, residual), watched)
        first, primary, extra = stepped(self.primary, eq, here, residual, state.primary, trusted)
        second, fallback, more = stepped(self.fallback, eq, here, residual, watched, ~trusted)
        trusted = trusted & torch.isfinite(first).all(1)
        new = SafeguardedState(
            primary, fallback, best_z, best_r, torch.where(better, norm, state.norm), trusted, idle,
            primary.notes + fallback.notes,
        )  # fmt: skip
        return first.where(rowwise(trusted, z), second), new, extra + more
