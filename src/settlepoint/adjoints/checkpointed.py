"""Backpropagation through every step, recomputing them in blocks."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from settlepoint.adjoints.adjoint import Adjoint, Loop, attached, untracked, wanted
from settlepoint.equation import Equation
from settlepoint.iterate import iterate
from settlepoint.outcome import Outcome
from settlepoint.solution import Gradient
from settlepoint.solvers.solver import Solver
from settlepoint.stop import FixedSteps, Stop


@dataclass(frozen=True)
class Checkpointed(Adjoint):
    """The gradient of Unrolled with the memory of N/every + every steps instead of N.

    every: steps a block. The solve runs without a graph, and its steps are then replayed in blocks; each block is
    computed again in backward.
    """

    every: int = 8

    def __post_init__(self):
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be an integer >= 1, got {self.every!r}")

    def run(self, loop: Loop, eq: Equation, z: Tensor, solver: Solver, stop: Stop, report: Gradient) -> Outcome:
        outcome = untracked(loop, eq, z, solver, stop)
        if not wanted():
            return outcome
        total = int(outcome.taken.max()) if len(outcome.taken) else 0
        w, state = z, None
        try:
            for start in range(0, total, self.every):
                steps = (outcome.taken - start).clamp(0, min(self.every, total - start))
                w, state = checkpoint(_block, eq, w, solver, steps, state, use_reentrant=False)  # type: ignore[misc]
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            raise RuntimeError(
                "Checkpointed cannot run inside torch.func.grad, which keeps every tensor: use Unrolled() or Implicit()"
            ) from error
        outcome.z = attached(outcome.z, w)
        return outcome


def _block(eq: Equation, z: Tensor, solver: Solver, steps: Tensor, state):
    with torch.enable_grad():
        outcome = iterate(eq, z, solver, FixedSteps(steps), state=state)
    return outcome.z, outcome.state
