"""Picard iteration, plain or damped."""

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, Stateless


class Picard(Solver):
    """x_{k+1} = a x_k + (1 - a) P(x_k)        (Operator Learning Meets Numerical Analysis, Algorithms 1 and 2)

    damping: a, the weight of the OLD state, in [0, 1). Converges when P is a contraction; with a > 0 also for many maps
    whose derivative has eigenvalues left of 1 but below -1.
    """

    def __init__(self, damping: float = 0.0):
        super().__init__()
        self.damping = checked_damping(damping)

    def extra_repr(self) -> str:
        return f"damping={self.damping}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> Stateless:
        return Stateless()

    def blend(self, z: Tensor, image: Tensor) -> Tensor:
        return torch.lerp(image, z, self.damping) if self.damping else image

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: Stateless) -> tuple[Tensor, Stateless, int]:
        return z.add(r, alpha=1 - self.damping), state, 0


def checked_damping(damping: float) -> float:
    """damping if it lies in [0, 1)."""
    if not 0 <= damping < 1:
        raise ValueError(f"damping must lie in [0, 1), got {damping}")
    return damping
