"""A solver that is watched from outside while it works."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solution import Solution, SolveError
from settlepoint.solve import solve
from settlepoint.solvers.solver import Solver, State
from settlepoint.stop import Tolerance


class Observed(Solver):
    """The steps of `solver`, with arrive(x) before and depart(state) after each of them.

    What the callbacks of SciPy need. They may read the host and may raise; `watched` hands such errors on.
    """

    def __init__(self, solver: Solver, arrive: Callable[[Tensor], None], depart: Callable[[State], None]):
        super().__init__()
        self.solver, self.arrive, self.depart = solver, arrive, depart
        self.recovery = solver.recovery

    def extra_repr(self) -> str:
        return repr(self.solver)

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> State:
        return self.solver.init(eq, z, r)

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: State) -> tuple[Tensor, State, int | Tensor]:
        assert eq.layout is not None
        self.arrive(eq.layout.restore(z))  # type: ignore[arg-type]
        moved, state, extra = self.solver.step(eq, z, r, state)
        self.depart(state)
        return moved, state, extra


def watched(eq: Equation, x0: Tensor, solver: Observed, stop: Tolerance) -> Solution:
    """`solve`, with errors of the operator and of the callbacks raised as they were."""
    try:
        return solve(eq, x0, solver, stop, compact=False)
    except SolveError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
