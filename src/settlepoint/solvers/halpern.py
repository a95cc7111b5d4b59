"""Halpern iteration: every step is pulled back towards an anchor."""

from dataclasses import dataclass

from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, rowwise


@dataclass(frozen=True)
class HalpernState(State):
    """anchor: (R, W); start: (R,), residual norm at the anchor; count: (R,), steps since the anchor."""

    anchor: Tensor
    start: Tensor
    count: Tensor
    displacement: Tensor  # pyright: ignore[reportIncompatibleVariableOverride]


class Halpern(Solver):
    """x_{k+1} = x_0 / (k+2) + (k+1)/(k+2) P(x_k)        (Halpern 1967; rate 1/k of the residual: Lieder 2021)

    Settles for every nonexpansive P that has a fixed point, also where Picard cycles. When there is none,
    2 (x_k - x_0) / k tends to the smallest displacement |P(x) - x|, which the solve then reports as NO_FIXED_POINT.

    restart: once the residual has fallen to this share of what it was at the anchor, the anchor moves to the iterate,
    which makes contractions settle at a linear rate; None for the classical method.
    """

    def __init__(self, restart: float | None = 0.5):
        super().__init__()
        if restart is not None and not 0 < restart < 1:
            raise ValueError(f"restart must lie in (0, 1) or be None, got {restart}")
        self.restart = restart

    def extra_repr(self) -> str:
        return f"restart={self.restart}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> HalpernState:
        return HalpernState(z, eq.norm(r), z.new_zeros(len(z)), r)

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: HalpernState) -> tuple[Tensor, HalpernState, int]:
        anchor, start, count = state.anchor, state.start, state.count
        if self.restart is not None:
            norm = eq.norm(r)
            fresh = norm <= self.restart * start
            anchor = z.where(rowwise(fresh, z), anchor)
            start = norm.where(fresh, start)
            count = count.masked_fill(fresh, 0)
        weight = rowwise((count + 1) / (count + 2), z)
        moved = anchor + weight * (z + r - anchor)
        displacement = 2 * (moved - anchor) / rowwise(count + 1, z)
        return moved, HalpernState(anchor, start, count + 1, displacement), 0
