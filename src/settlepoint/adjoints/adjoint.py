"""The contract of every gradient: it may run the loop as it likes, but never changes the value.

A gradient is a few lines because the loop is its argument: `loop(eq, z, solver, stop)` is `iterate` with the trace and
compaction of this solve.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack  # pyright: ignore[reportMissingImports]
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

from settlepoint.equation import Equation
from settlepoint.outcome import OperatorError, Outcome, unwrapped
from settlepoint.solution import Gradient
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Stop

Loop = Callable[..., Outcome]


class Adjoint(ABC):
    """How a solution depends on what the operator closes over."""

    @abstractmethod
    def run(self, loop: Loop, eq: Equation, z: Tensor, solver: Solver, stop: Stop, report: Gradient) -> Outcome:
        """Outcome of loop(eq, z, solver, stop) whose z carries gradients; fills report in backward where it solves."""


def untracked(loop: Loop, eq: Equation, z: Tensor, solver: Solver, stop: Stop) -> Outcome:
    """The loop without any graph or tangent, at every level of differentiation."""
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        outcome = loop(eq, plain(z), solver, stop)
    outcome.z = plain(outcome.z)
    return outcome


def evaluated(eq: Equation, z: Tensor, outcome: Outcome) -> Tensor:
    """P(z) after the loop; an operator that raises here loses nothing of the outcome."""
    try:
        return eq.flat(z)
    except Exception as error:
        raise OperatorError(outcome, int(outcome.evals.max()) + 1 if len(z) else 1) from error


def plain(z: Tensor) -> Tensor:
    """z as a constant for every level of differentiation."""
    inner = unwrapped(z)
    with temporarily_clear_interpreter_stack(), forward_ad._set_fwd_grad_enabled(False):
        return inner.detach()


def leaf(z: Tensor) -> Tensor:
    """A fresh leaf with the value of the plain tensor z, for autograd below every level of torch.func."""
    with temporarily_clear_interpreter_stack():
        return z.detach().requires_grad_()


def inside() -> bool:
    """True inside a transform of torch.func or a level of forward mode."""
    return forward_ad._current_level >= 0 or peek_interpreter_stack() is not None


def wanted() -> bool:
    """False where no derivative can be asked for, so that an adjoint may leave out its evaluations."""
    return torch.is_grad_enabled() or inside()


def differential(w: Tensor) -> Tensor:
    """Zero in value, also where w is not finite, with the derivatives of w."""
    return (w - w.detach()).nan_to_num(0.0, 0.0, 0.0)


def attached(z: Tensor, w: Tensor) -> Tensor:
    """The value of z with the derivatives of w, bit for bit."""
    return z + differential(w)
