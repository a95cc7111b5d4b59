"""Mann iteration: damping that changes from step to step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.picard import checked_damping
from settlepoint.solvers.solver import Solver, State

Schedule = Sequence[float] | Callable[[Tensor], Tensor | float]


@dataclass(frozen=True)
class MannState(State):
    """step: 0-d count of steps taken."""

    step: Tensor


class Mann(Solver):
    """x_{k+1} = a_k x_k + (1 - a_k) P(x_k)        (Mann 1953; Krasnoselskii for constant a)

    schedule: the a_k, weights of the OLD state in [0, 1): a list (its last value goes on), or a function of the step
    count k = 0, 1, ..., given as a 0-d tensor of the state's dtype, as in Mann(lambda k: 1 / (k + 2)). A function is
    taken as given.
    """

    def __init__(self, schedule: Schedule):
        super().__init__()
        if not callable(schedule):
            schedule = tuple(checked_damping(a) for a in schedule)
            if not schedule:
                raise ValueError("schedule must hold at least one damping, got none")
        self.schedule = schedule

    def extra_repr(self) -> str:
        return f"schedule={self.schedule!r}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> MannState:
        return MannState(z.new_zeros((), dtype=torch.int64))

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: MannState) -> tuple[Tensor, MannState, int]:
        a = self._damping(state.step, z)
        return z + (1 - a) * r, MannState(state.step + 1), 0

    def _damping(self, k: Tensor, like: Tensor) -> Tensor | float:
        if callable(self.schedule):
            return self.schedule(k.to(like.dtype))
        places = torch.arange(len(self.schedule), device=k.device)
        here = (places == k.clamp(max=len(self.schedule) - 1)).to(like.dtype)
        return (here * like.new_tensor(self.schedule)).sum()
