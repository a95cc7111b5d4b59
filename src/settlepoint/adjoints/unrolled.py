"""Backpropagation through every step."""

from dataclasses import dataclass

from torch import Tensor

from settlepoint.adjoints.adjoint import Adjoint, Loop
from settlepoint.equation import Equation
from settlepoint.outcome import Outcome
from settlepoint.solution import Gradient
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Stop


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """d x_N of the iteration itself; exact for the iterate, memory proportional to the number of steps."""

    def run(self, loop: Loop, eq: Equation, z: Tensor, solver: Solver, stop: Stop, report: Gradient) -> Outcome:
        return loop(eq, z, solver, stop)
