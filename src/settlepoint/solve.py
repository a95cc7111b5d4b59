"""`solve`, the front door, and `FixedPoint`, the same as a layer."""

from functools import partial

import torch
from torch import Tensor, nn

from settlepoint.adjoints.adjoint import Adjoint
from settlepoint.adjoints.implicit import Implicit
from settlepoint.adjoints.truncated import Truncated
from settlepoint.adjoints.unrolled import Unrolled
from settlepoint.equation import Equation, Operator
from settlepoint.iterate import iterate
from settlepoint.outcome import OperatorError, Outcome
from settlepoint.solution import Gradient, Solution, SolveError
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.solver import Solver
from settlepoint.solvers.solver import State as SolverState
from settlepoint.spaces import Rows, State
from settlepoint.stop import FixedSteps, Stop, Tolerance


def solve(
    eq: Equation,
    x0: State | None = None,
    solver: Solver | None = None,
    stop: Stop | None = None,
    adjoint: Adjoint | None = None,
    *,
    trace: bool = False,
    compact: str | bool = "auto",
    warm: Solution | None = None,
) -> Solution:
    """Find x with x = lam*T(x) + f, every row on its own.

    x0: where to start; None starts at warm.value, else at f. solver: Picard() by default. stop: Tolerance() by default.
    adjoint: Implicit() with a Tolerance, Unrolled() with FixedSteps. trace: keep the residual of every look. compact:
    "auto" gathers unfinished rows once one call on them has agreed with the whole batch; True trusts the operator;
    False never gathers. warm: an earlier solution to start from; its solver state is taken up too when it came from
    compact=False and the same solver.

    Wrong calls raise ValueError or TypeError here; wrong numbers become a status of their row. When the operator
    itself raises after some evaluations, SolveError carries all that was computed.

        >>> import torch, settlepoint as sp
        >>> sol = sp.solve(sp.Equation(torch.cos), torch.ones(1, 1, dtype=torch.float64))
        >>> sol.status.tolist(), round(sol.require().value.item(), 5)
        ([0], 0.73908)
    """
    x0, state = _start(eq, x0, warm)
    solver, stop = solver or Picard(), stop or Tolerance()
    _check(solver, stop, adjoint, compact)
    adjoint = adjoint or (Unrolled() if isinstance(stop, FixedSteps) else Implicit())
    bound = eq.at(x0)
    z = bound.layout.flatten(x0, "x0")  # type: ignore[union-attr]
    loop = partial(iterate, trace=trace, compact=compact, warm=state)
    report = Gradient()
    try:
        outcome = adjoint.run(loop, bound, z, solver, stop, report)
    except OperatorError as error:
        partial_solution = _solution(bound, error.outcome, report, compact)
        raise SolveError(
            f"operator raised at evaluation {error.evaluation}: {error.__cause__!r}; .solution holds the best values "
            "before it",
            partial_solution,
        ) from error.__cause__
    return _solution(bound, outcome, report, compact)


def _start(eq: Equation, x0: State | None, warm: Solution | None) -> tuple[State, SolverState | None]:
    if not isinstance(eq, Equation):
        raise TypeError(f"eq must be an Equation, got {type(eq).__name__}; write solve(Equation(T), x0)")
    if warm is not None and not isinstance(warm, Solution):
        raise TypeError(f"warm must be a Solution, got {type(warm).__name__}")
    if x0 is None:
        x0 = warm.value if warm is not None else eq.f
    if x0 is None:
        raise ValueError("x0 must be given when the equation has no f to start from, got None")
    if isinstance(x0, list):
        raise TypeError("x0 must be a tensor or a tuple of tensors, got list")
    return x0, None if warm is None else warm.state


def _check(solver: Solver, stop: Stop, adjoint: Adjoint | None, compact: str | bool) -> None:
    for name, value, kind in (("solver", solver, Solver), ("stop", stop, Stop)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__} such as {_EXAMPLE[name]}, got {value!r}")
    if adjoint is not None and not isinstance(adjoint, Adjoint):
        raise TypeError(f"adjoint must be an Adjoint such as Implicit(), got {adjoint!r}")
    if compact not in ("auto", True, False):
        raise ValueError(f"compact must be 'auto', True or False, got {compact!r}")


_EXAMPLE = {"solver": "Anderson()", "stop": "Tolerance(atol=1e-6)"}


def _solution(eq: Equation, out: Outcome, report: Gradient, compact: str | bool) -> Solution:
    restore = eq.layout.restore  # type: ignore[union-attr]
    return Solution(
        value=restore(out.z), status=out.status, steps=out.steps, evals=out.evals, work=out.work, residual=out.residual,
        trace=out.trace, notes=tuple(out.notes), gradient=report,
        displacement=None if out.displacement is None else restore(out.displacement.detach()),
        state=out.state if compact is False else None,
    )  # fmt: skip


class FixedPoint(nn.Module):
    """A layer whose output is a fixed point of `operator`.

    inject: how the input u enters. "f": x = T(x) + u, started at u (Eq. 1 of Operator Learning Meets Numerical
    Analysis); "init": x = T(x), started at u (the recipe behind the paper's tables; a contraction forgets where it
    started); "input": x = T(x, u), started at zeros like u or at x0.

    `last` is the detached Solution of the latest call: statuses, evaluations, residuals.

        >>> import torch, settlepoint as sp
        >>> layer = sp.FixedPoint(torch.nn.Linear(3, 3), stop=sp.FixedSteps(4))
        >>> layer(torch.zeros(2, 3)).shape, layer.last.steps.tolist()
        (torch.Size([2, 3]), [4, 4])
    """

    last: Solution | None

    def __init__(
        self,
        operator: Operator,
        solver: Solver | None = None,
        stop: Stop | None = None,
        adjoint: Adjoint | None = None,
        inject: str = "f",
    ):
        super().__init__()
        if inject not in ("f", "init", "input"):
            raise ValueError(f"inject must be 'f', 'init' or 'input', got {inject!r}")
        _check(solver or Picard(), stop or Tolerance(), adjoint, "auto")
        self.operator, self.solver, self.stop, self.adjoint = operator, solver, stop, adjoint
        self.inject, self.last = inject, None

    @classmethod
    def smoothed(
        cls,
        operator: Operator,
        steps: int = 10,
        damping: float = 0.7,
        inject: str = "f",
        *,
        solver: Solver | None = None,
        stop: Stop | None = None,
        adjoint: Adjoint | None = None,
        detached: bool = False,
    ) -> "FixedPoint":
        """The recipe of the paper's Algorithms 1 and 2: `steps` of x <- a x + (1 - a) P(x), a = damping.

        solver, stop, adjoint: in place of what the recipe says, where they are given. detached: its gradient goes
        through the last step alone.
        """
        adjoint = adjoint or (Truncated(1) if detached else None)
        return cls(operator, solver or Picard(damping), stop or FixedSteps(steps), adjoint, inject)

    def extra_repr(self) -> str:
        return f"inject={self.inject!r}, stop={self.stop}, adjoint={self.adjoint}"

    def posed(
        self, u: State, x0: State | None = None, context: tuple = (), *, weights: Tensor | None = None
    ) -> tuple[Equation, State]:
        """The equation that `forward` solves for the inputs u, and where it starts."""
        space = Rows(weights)
        match self.inject:
            case "f":
                return Equation(self.operator, u, space=space, context=context), u if x0 is None else x0
            case "init":
                return Equation(self.operator, space=space, context=context), u if x0 is None else x0
        inputs = u if isinstance(u, tuple) else (u,)
        return Equation(self.operator, space=space, context=(*inputs, *context)), _zeros(u) if x0 is None else x0

    def forward(
        self, u: State, x0: State | None = None, context: tuple = (), *, weights: Tensor | None = None
    ) -> State:
        """Fixed points for the inputs u; x0 overrides the start, context is handed to the operator row by row.

        weights: of the norm of a row, as for Rows.
        """
        eq, start = self.posed(u, x0, context, weights=weights)
        compact = False if self.training and any(_draws(m) for m in self.modules()) else "auto"
        solution = solve(eq, start, self.solver, self.stop, self.adjoint, compact=compact)
        self.last = solution.detach()
        return solution.value


def _zeros(u: State) -> State:
    return tuple(torch.zeros_like(t) for t in u) if isinstance(u, tuple) else torch.zeros_like(u)


def drops(module: nn.Module) -> bool:
    """True for dropout, as a module or as the number that nn.MultiheadAttention and recurrent ones hold; 0 is none."""
    share = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else vars(module).get("dropout")
    return isinstance(share, int | float) and share > 0


def _draws(module: nn.Module) -> bool:
    """True for layers whose output in training depends on chance or on the rest of the batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or drops(module)
