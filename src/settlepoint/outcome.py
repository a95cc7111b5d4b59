"""What the loop is given and gives back, on the flat view, and the two places where it touches operator and host."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]

from settlepoint.equation import Equation
from settlepoint.solution import Trace
from settlepoint.solvers.solver import Solver, State, clone_state


@dataclass
class Outcome:
    """What the loop returns, on the flat view; `taken` is the number of steps behind each row's value."""

    z: Tensor
    status: Tensor
    steps: Tensor
    evals: Tensor
    residual: Tensor
    taken: Tensor
    work: int
    trace: Trace | None = None
    notes: list[str] = field(default_factory=list)
    displacement: Tensor | None = None
    state: State | None = None


class OperatorError(Exception):
    """The operator raised after some evaluations; outcome holds what was computed."""

    def __init__(self, outcome: Outcome, evaluation: int):
        super().__init__(f"operator raised at evaluation {evaluation}")
        self.outcome, self.evaluation = outcome, evaluation


@dataclass(frozen=True)
class Start:
    """A solver and what it may begin with."""

    solver: Solver
    state: State | None
    warm: State | None

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> State:
        if self.state is not None:
            return self.state
        return self.solver.init(eq, z, r) if self.warm is None else self.solver.resume(eq, z, r, clone_state(self.warm))


def evaluate(eq: Equation, z: Tensor) -> Tensor:
    """P(z), refusing an operator that overwrites its input."""
    if z.is_inference():
        return eq.flat(z)
    version = z._version
    image = eq.flat(z)
    if z._version != version:
        raise ValueError("operator must not change its input in place, got it overwritten; return a new tensor instead")
    return image


def read(table: Tensor) -> np.ndarray:
    """The one host read of a look."""
    table = table.cpu()
    try:
        host = table.numpy()
    except RuntimeError:  # inside torch.func: wrapped, so without memory of its own
        host = np.array(unwrapped(table).tolist())
    return host.astype(np.float64)


def unwrapped(x: Tensor) -> Tensor:
    """x as a plain tensor, below every level of torch.func; refused under vmap."""
    while _functorch.is_functorch_wrapped_tensor(x):
        if _functorch.is_batchedtensor(x):
            raise RuntimeError(
                "a solve cannot run under vmap, since its rows stop on their own: give the batch as rows of x0 instead"
            )
        x = torch.func.debug_unwrap(x, recurse=False)
    return x
