"""Gradient of the last few evaluations only."""

from dataclasses import dataclass

from torch import Tensor

from settlepoint.adjoints.adjoint import Adjoint, Loop, attached, evaluated, untracked, wanted
from settlepoint.equation import Equation
from settlepoint.outcome import Outcome
from settlepoint.solution import Gradient
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Stop


@dataclass(frozen=True)
class Truncated(Adjoint):
    """(I + J + ... + J^{k-1}) dP in place of (I - J)^{-1} dP: k evaluations from the value on.

    steps: k; 1 is the Jacobian-free gradient (Fung et al. 2022). Its relative error is about rate^k; it is no gradient
    of anything, so ask for it by name only.
    """

    steps: int = 1

    def __post_init__(self):
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be an integer >= 1, got {self.steps!r}")

    def run(self, loop: Loop, eq: Equation, z: Tensor, solver: Solver, stop: Stop, report: Gradient) -> Outcome:
        outcome = untracked(loop, eq, z, solver, stop)
        if not wanted():
            return outcome
        w = outcome.z
        for _ in range(self.steps):
            w = evaluated(eq, w, outcome)
        outcome.z = attached(outcome.z, w)
        return outcome
