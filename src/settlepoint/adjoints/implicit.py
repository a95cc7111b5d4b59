"""The exact gradient of a fixed point, of every order, from one linear equation.

With J = P'(z*) and S = (I - J)^{-1}, dz* = S dP. The backward equation v = J^T v + g is an Equation like any other,
with a solver, a stop and a reported residual of its own.

How derivatives of every order come about: take the constant z0 = z* and treat J and S as *frozen* linear maps, whose
own derivatives are zero. Then `order` times

    z <- z0 + S [P(z) - z0 - J (z - z0)]

keeps the value z0, and each pass makes one more derivative of z exact (simplified Newton in the ring of derivatives).
Closures over parameters need no parameter list, since P itself is called once a pass.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.adjoints.adjoint import Adjoint, Loop, differential, evaluated, inside, leaf, untracked, wanted
from settlepoint.equation import Equation
from settlepoint.iterate import iterate
from settlepoint.outcome import Outcome, unwrapped
from settlepoint.solution import Gradient, GradientWarning, Status
from settlepoint.solvers.anderson import Anderson
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.solver import Solver
from settlepoint.spaces import Rows
from settlepoint.stop import Stop, Tolerance


@dataclass(frozen=True)
class Implicit(Adjoint):
    """dz* = (I - J)^{-1} dP by solving v = J^T v + g; memory of `order` evaluations, whatever the number of steps.

    solver: of the backward equation; Anderson(5) by default, Picard() for a triangular operator, whose J^T is one
    too. stop: its tolerance; by default relative, 1e-10 or eight rounding units, whichever is larger. order: highest
    derivative that is exact (third derivatives need 3). A row that misses is reported in Solution.gradient and by
    GradientWarning. Rows that did not converge get the gradient that their value would have if it were a fixed point.
    """

    solver: Solver | None = None
    stop: Stop | None = None
    order: int = 2

    def __post_init__(self):
        if isinstance(self.order, bool) or not isinstance(self.order, int) or self.order < 1:
            raise ValueError(f"order must be an integer >= 1, got {self.order!r}")

    def run(self, loop: Loop, eq: Equation, z: Tensor, solver: Solver, stop: Stop, report: Gradient) -> Outcome:
        outcome = untracked(loop, eq, z, solver, stop)
        report.adjoint = repr(self)
        if not wanted():
            return outcome
        z0 = outcome.z
        image = evaluated(eq, z0, outcome)
        if not (image.requires_grad or inside()):
            return outcome
        maps = _Linearised(eq, outcome, self, report)
        w = Frozen.apply(differential(image), maps, "solve")
        for _ in range(1, self.order):
            error = evaluated(eq, z0 + w, outcome) - Frozen.apply(w, maps, "jacobian")
            w = Frozen.apply(differential(error), maps, "solve")
        outcome.z = z0 + w
        return outcome


class _Linearised:
    """J at z0 and (I - J)^{-1} as frozen maps of plain tensors (R, W), from one recorded evaluation."""

    def __init__(self, eq: Equation, outcome: Outcome, adjoint: Implicit, report: Gradient):
        self.adjoint, self.report, self.triangular = adjoint, report, eq.triangular
        with torch.enable_grad():
            self.z = leaf(outcome.z)
            self.image = unwrapped(evaluated(eq, self.z, outcome))
            probe = unwrapped(self.z * 1)
        if not probe.requires_grad:
            raise RuntimeError("implicit gradients inside torch.func need grad mode outside of it: leave no_grad")
        self._dual: tuple[Tensor, Tensor] | None = None

    def transposed(self, v: Tensor) -> Tensor:
        """J^T v."""
        if not self.image.requires_grad:
            return torch.zeros_like(v)
        (g,) = torch.autograd.grad(self.image, self.z, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(v) if g is None else g

    def jacobian(self, u: Tensor) -> Tensor:
        """J u, as the derivative of J^T v in v."""
        if not self.image.requires_grad:
            return torch.zeros_like(u)
        if self._dual is None:
            with torch.enable_grad():
                v = torch.zeros_like(self.image, requires_grad=True)
                (g,) = torch.autograd.grad(self.image, self.z, v, create_graph=True, allow_unused=True)
            self._dual = (v, torch.zeros_like(u) if g is None else g)
        v, g = self._dual
        if not g.requires_grad:
            return torch.zeros_like(u)
        (out,) = torch.autograd.grad(g, v, u, retain_graph=True, allow_unused=True)
        return torch.zeros_like(u) if out is None else out

    def solve(self, g: Tensor, transposed: bool) -> Tensor:
        """v with v = J v + g, or J^T for transposed; solved at size 1, so that no square over- or underflows."""
        size = g.abs().amax(1, keepdim=True) if g.shape[1] else g.new_ones(len(g), 1)
        size = torch.where((size > 0) & torch.isfinite(size), size, 1.0)
        g = g / size
        steps = max(1000, self.triangular + 1)
        stop = self.adjoint.stop or Tolerance(0.0, max(1e-10, 8 * torch.finfo(g.dtype).eps), max_steps=steps, window=50)
        operator, chain = self.transposed if transposed else self.jacobian, self.triangular
        eq = Equation(operator, g, space=Rows(), triangular=chain).at(g)
        solver = self.adjoint.solver or (Picard() if chain else Anderson(5))
        outcome = iterate(eq, g, solver, stop, compact=False)
        self._note(outcome, torch.linalg.vector_norm(g, dim=1) > 0)
        return outcome.z * size

    def _note(self, outcome: Outcome, asked: Tensor) -> None:
        """Report this solve for the rows that had something to solve; the others keep what an earlier one said."""
        report = self.report
        size = torch.linalg.vector_norm(outcome.z, dim=1)
        relative = torch.where(size > 0, outcome.residual / size, outcome.residual)
        report.solves += 1
        report.status = _kept(asked, outcome.status, report.status)
        report.evals = _kept(asked, outcome.evals, report.evals)
        report.residual = _kept(asked, relative, report.residual)
        missed = (outcome.status > int(Status.COMPLETED)).nonzero().flatten().tolist()
        if missed:
            row = missed[0]
            warnings.warn(
                f"the backward equation missed its tolerance in {len(missed)} of {len(size)} rows: row {row} is "
                f"{Status(int(outcome.status[row])).name} at relative residual {float(relative[row]):.1e} after "
                f"{int(outcome.evals[row])} evaluations; give Implicit a stop of more steps, or solver=NewtonKrylov()",
                GradientWarning,
                stacklevel=2,
            )


def _kept(asked: Tensor, new: Tensor, old: Tensor | None) -> Tensor:
    return new if old is None else torch.where(asked, new, old)


class Frozen(torch.autograd.Function):
    """A linear map with zero derivative of its own: jvp is the map, backward its transpose, both through itself.

    kind: "jacobian" J, "solve" (I - J)^{-1}, their transposes, behind a leading "=" where u is known to be not zero in
    value; the passes of Implicit only ever apply the maps to zero, whose image costs nothing.
    """

    @staticmethod
    def forward(u: Tensor, maps: _Linearised, kind: str) -> Tensor:
        if not kind.startswith("="):
            return torch.zeros_like(u)
        with torch.no_grad():
            match kind:
                case "=jacobian":
                    return maps.jacobian(u)
                case "=jacobian^T":
                    return maps.transposed(u)
                case "=solve":
                    return maps.solve(u, transposed=False)
                case _:
                    return maps.solve(u, transposed=True)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.maps, ctx.kind = inputs

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        kind = ctx.kind.lstrip("=")
        kind = kind.removesuffix("^T") if kind.endswith("^T") else kind + "^T"
        return Frozen.apply(g, ctx.maps, "=" + kind), None, None

    @staticmethod
    def jvp(ctx, u: Tensor, *_):  # type: ignore[override]
        return Frozen.apply(u, ctx.maps, "=" + ctx.kind.lstrip("="))

    @staticmethod
    def vmap(info, in_dims, u: Tensor, maps: _Linearised, kind: str):  # type: ignore[override]
        slices = u.movedim(in_dims[0], 0)
        return torch.stack([Frozen.apply(s, maps, kind) for s in slices]), 0
