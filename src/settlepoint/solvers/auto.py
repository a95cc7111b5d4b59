"""Auto: watches the first residuals, times the operator once, and takes the solver that should be cheapest here."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from settlepoint.equation import Equation
from settlepoint.solvers.aitken import Aitken
from settlepoint.solvers.anderson import Anderson
from settlepoint.solvers.newton_krylov import NewtonKrylov
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.solver import Solver, State

_EFOLDS = 14.0  # a reduction by 1e6 is assumed to be wanted
_MARGIN = 2.0  # Picard is left only for a gain of this factor: early rates are uncertain, and too high
_LOOKS = 4  # residuals looked at before a decision
_BEHIND = 0.25  # a choice that reaches less than this share of the foretold reduction is dropped,
_PATIENCE = 6.0  # once that is so many e-folds
_BOOKKEEPING = (1.0, 4.2, 9.6, 16.0)  # of a step, in units of Picard's, measured at 1 to 64 rows of 64 unknowns
_CALLS = (1.0, 1.0, 1.0, 2.5)  # time of an evaluation, in units of P: Jacobian-vector products cost more


@dataclass(frozen=True)
class Plan:
    """What Auto has found out, shared by the rows and replaced at decisions only.

    choice: index into the candidates; decision: Picard steps after which it is looked at again; begun: starting time;
    costs: seconds of an evaluation by every candidate; rate: of Picard; pace, start: foretold e-folds a step of the
    choice, and the log residual it started from; dropped: candidates that fell behind; notes: for the Solution.
    """

    decision: int
    begun: float
    choice: int = 0
    costs: tuple[float, ...] = ()
    rate: float = 0.0
    pace: float = 0.0
    start: float = 0.0
    dropped: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AutoState(State):
    """inner: state of the choice; norms: tuple of (R,), Picard's last residual norms; steps: of the choice, shared."""

    inner: State
    norms: tuple[Tensor, ...]
    steps: int
    plan: Plan

    @property
    def notes(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What was chosen, and why."""
        return self.plan.notes


class Auto(Solver):
    """Picard for `probe` steps, then whichever of Picard, Aitken, Anderson, Newton-Krylov should take least time.

    The rate rho of Picard is the limit of the ratios of successive residuals, fitted as rho - c/k. It gives evaluations
    per e-fold: Picard 1/log(1/rho); Krylov 1/log(1/s), s = rho/(1 + sqrt(1 - rho^2)), as for a symmetric spectrum in
    [-rho, rho]; Aitken and Anderson fitted multiples of that. The operator is timed once, on the problem itself.

    While Picard goes on, the choice is looked at again whenever its steps have quadrupled; a choice that falls behind
    what was foretold gives way to the next best. All depends on the clock and on the slowest row: where runs must
    repeat bit for bit, pin the solver named in Solution.notes. Auto reads on the host, so it is no solver for fullgraph
    compilation.
    """

    def __init__(self, probe: int = 8):
        super().__init__()
        if isinstance(probe, bool) or not isinstance(probe, int) or probe < _LOOKS:
            raise ValueError(f"probe must be an integer >= {_LOOKS}, got {probe!r}")
        self.probe = probe
        last = NewtonKrylov()
        self._candidates = nn.ModuleList((Picard(), Aitken(), Anderson(), last))
        self.recovery = last.recovery

    def extra_repr(self) -> str:
        return f"probe={self.probe}"

    def candidate(self, choice: int) -> Solver:
        """The solver of that index: 0 Picard, 1 Aitken, 2 Anderson, 3 Newton-Krylov."""
        solver = self._candidates[choice]
        assert isinstance(solver, Solver)
        return solver

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> AutoState:
        return AutoState(self.candidate(0).init(eq, z, r), (), 0, Plan(self.probe, time.perf_counter()))

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[Tensor, AutoState, int | Tensor]:
        plan, steps, norms = state.plan, state.steps + 1, state.norms
        if plan.choice:
            return self._follow(eq, z, r, state)
        if steps <= plan.decision - _LOOKS:
            return z + r, AutoState(state.inner, norms, steps, plan), 0
        norms = (*norms, eq.norm(r.detach()))
        if steps <= plan.decision:
            return z + r, AutoState(state.inner, norms, steps, plan), 0
        measured = _measured(eq, z, norms, plan)
        plan, calls = self._chosen(eq, r, measured), 0 if plan.costs else 1
        if not plan.choice:
            return z + r, AutoState(state.inner, (), steps, plan), calls
        inner = self.candidate(plan.choice).init(eq, z, r)
        moved, state, extra = self._follow(eq, z, r, AutoState(inner, (), 0, plan))
        return moved, state, calls + extra

    def _chosen(self, eq: Equation, r: Tensor, plan: Plan) -> Plan:
        """The plan with the candidate of least foretold time."""
        counts = evaluations_per_efold(plan.rate)
        times = [_EFOLDS * n * cost for n, cost in zip(counts, plan.costs, strict=True)]
        times = [math.inf if i in plan.dropped else t for i, t in enumerate(times)]
        choice = min(range(len(times)), key=times.__getitem__)
        if not plan.choice and _MARGIN * times[choice] > times[0]:
            choice = 0
        names = [type(c).__name__ for c in self._candidates]
        listed = ", ".join(f"{name} {1e3 * t:.3g} ms" for name, t in zip(names, times, strict=True))
        why = f"{names[plan.choice]} fell behind" if plan.choice else f"{plan.decision} Picard steps"
        note = f"Auto: {names[choice]} after {why}, Picard's rate {plan.rate:.4f}; foretold {listed}"
        notes = (*plan.notes, note) if plan.choice else (note,)
        solver = self.candidate(choice)
        calls = 1 + (solver.inner if isinstance(solver, NewtonKrylov) else 0)
        start, pace = _log_norm(eq, r), calls / counts[choice]
        return replace(plan, choice=choice, decision=4 * plan.decision, start=start, pace=pace, notes=notes)

    def _follow(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[Tensor, AutoState, int | Tensor]:
        """A step of the choice, which is dropped once it has fallen behind for some while."""
        steps, plan, inner = state.steps + 1, state.plan, state.inner
        left = len(self._candidates) - 1 - len(plan.dropped)
        due = steps * plan.pace
        if left > 1 and steps % 8 == 0 and due >= _PATIENCE and plan.start - _log_norm(eq, r) < _BEHIND * due:
            plan = self._chosen(eq, r, replace(plan, dropped=(*plan.dropped, plan.choice)))
            steps, inner = 0, self.candidate(plan.choice).init(eq, z, r)
        moved, inner, extra = self.candidate(plan.choice).step(eq, z, r, inner)
        return moved, AutoState(inner, (), steps, plan), extra


def _measured(eq: Equation, z: Tensor, norms: tuple[Tensor, ...], plan: Plan) -> Plan:
    """The plan with Picard's rate, and once with the seconds of an evaluation by every candidate."""
    seconds = (time.perf_counter() - plan.begun) / plan.decision
    rate = asymptotic_rate(np.array(torch.stack(norms).tolist()), plan.decision)
    if plan.costs:
        return replace(plan, rate=rate)
    begin = time.perf_counter()
    eq.flat(z.detach())
    operator = min(time.perf_counter() - begin, 0.9 * seconds)
    costs = tuple(c * operator + b * (seconds - operator) for c, b in zip(_CALLS, _BOOKKEEPING, strict=True))
    return replace(plan, rate=rate, costs=costs)


def asymptotic_rate(norms: np.ndarray, step: int) -> float:
    """Limit rho of ratios q_k = rho - c/k of successive residual norms (K, R), the last of them at that step.

    q_k is the largest ratio over the rows that still move; least squares in 1/k, within [last ratio, .9999].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num(norms[1:] / norms[:-1], nan=0.0, posinf=0.0)
    moving = np.where(ratios == 1.0, 0.0, ratios).max(1, initial=0.0)
    q, x = np.where(moving > 0, moving, 1.0), 1 / np.arange(step - len(ratios) + 1, step + 1)
    slope = ((x - x.mean()) * (q - q.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return min(max(float(q.mean() - slope * x.mean()), float(q[-1]), 1e-6), 0.9999)


def evaluations_per_efold(rate: float) -> tuple[float, float, float, float]:
    """Evaluations to reduce the residual by e: Picard, Aitken, Anderson(5), Newton-Krylov, at Picard's rate.

    The factors were fitted to symmetric spectra of radius .9 and .99 (`settle run solvers`).
    """
    krylov, gap = -1 / math.log(rate / (1 + math.sqrt(1 - rate * rate))), 1 - rate
    return -1 / math.log(rate), 1.13 * gap**-0.08 * krylov, 0.87 * gap**-0.22 * krylov, 0.95 * krylov


def _log_norm(eq: Equation, r: Tensor) -> float:
    norm = float(eq.norm(r.detach()).max()) if len(r) else 0.0
    return math.log(norm) if 0 < norm < math.inf else 0.0
