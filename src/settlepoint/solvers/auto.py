"""Auto: watches the first residuals, times the operator once, and takes the solver that should be cheapest here."""

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from settlepoint.equation import Equation
from settlepoint.solvers.aitken import Aitken
from settlepoint.solvers.anderson import Anderson
from settlepoint.solvers.newton_krylov import NewtonKrylov
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.solver import Solver, State

_EFOLDS = 14.0  # a reduction by 1e6 is assumed to be wanted
_MARGIN = 2.0  # Picard is left only for a gain of this factor: early rates are uncertain, and rather too high
_BEHIND = 0.4  # a choice that reaches less than this share of the foretold reduction is dropped
_BOOKKEEPING = (1.0, 4.2, 9.6, 16.0)  # of a step, in units of Picard's, measured at 1 to 64 rows of 64 unknowns
_CALLS = (1.0, 1.0, 1.0, 2.5)  # time of an evaluation, in units of P: Jacobian-vector products cost more


@dataclass(frozen=True)
class AutoState(State):
    """What has been seen; all but inner and norm are host values shared by the rows.

    choice: index into the candidates; inner: its state; ratios: of successive Picard residuals, slowest row; norm:
    (R,), last residual norm; clock: when the last step ended; seconds: fastest Picard iteration; operator: seconds of P;
    dropped: candidates that fell behind; since, start, pace: steps and log residual since the choice, and its foretold
    e-folds a step.
    """

    inner: State
    norm: Tensor
    choice: int = 0
    ratios: tuple[float, ...] = ()
    clock: float = 0.0
    seconds: float = math.inf
    operator: float = math.inf
    dropped: tuple[int, ...] = ()
    since: int = 0
    start: float = 0.0
    pace: float = 0.0
    notes: tuple[str, ...] = ()


class Auto(Solver):
    """Picard for `probe` steps, then whichever of Picard, Aitken, Anderson, Newton-Krylov should take least time.

    The rate rho of Picard is the limit of the ratios of successive residuals, fitted as rho - c/k. It gives evaluations
    per e-fold: Picard 1/log(1/rho); Krylov 1/log(1/s), s = rho/(1 + sqrt(1 - rho^2)), as for a symmetric spectrum in
    [-rho, rho]; Aitken and Anderson fitted multiples of that. The operator is timed once, on the problem itself.

    While Picard goes on, the choice is looked at again at every doubling of its steps; a choice that falls behind what
    was foretold gives way to the next best. All depends on the clock and on the slowest row: pin the solver named in
    Solution.notes where runs must repeat bit for bit. Auto reads on the host, so it is not for fullgraph compilation.
    """

    def __init__(self, probe: int = 8):
        super().__init__()
        if isinstance(probe, bool) or not isinstance(probe, int) or probe < 4:
            raise ValueError(f"probe must be an integer >= 4, got {probe!r}")
        self.probe = probe
        self._candidates = nn.ModuleList((Picard(), Aitken(), Anderson(), NewtonKrylov()))

    def __repr__(self) -> str:
        return f"Auto(probe={self.probe})"

    def candidate(self, choice: int) -> Solver:
        """The solver of that index."""
        solver = self._candidates[choice]
        assert isinstance(solver, Solver)
        return solver

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> AutoState:
        return AutoState(self.candidate(0).init(eq, z, r), eq.norm(r.detach()), clock=time.perf_counter())

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[Tensor, AutoState, int | Tensor]:
        state, calls = self._probed(eq, z, r, state) if state.choice == 0 else self._followed(eq, z, r, state)
        moved, inner, extra = self.candidate(state.choice).step(eq, z, r, state.inner)
        return moved, replace(state, inner=inner, clock=time.perf_counter()), calls + extra

    def _probed(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[AutoState, int]:
        """Note one Picard step, and decide at every doubling of their number."""
        now, norm = time.perf_counter(), eq.norm(r.detach())
        ratios = (*state.ratios, slowest_ratio(_host(norm), _host(state.norm)))
        seconds = min(state.seconds, now - state.clock) if state.ratios else math.inf
        state = replace(state, ratios=ratios, norm=norm, seconds=seconds)
        doublings = math.log2(max(len(ratios) - 1, 1) / self.probe)
        if doublings < 0 or not doublings.is_integer():
            return state, 0
        return self._decided(eq, z, r, state)

    def _decided(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[AutoState, int]:
        timed = math.isinf(state.operator)
        if timed:
            begin = time.perf_counter()
            eq.flat(z.detach())
            state = replace(state, operator=time.perf_counter() - begin)
        return self._chosen(eq, z, r, state), int(timed)

    def _chosen(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> AutoState:
        """The state with the candidate of least foretold time."""
        rate = asymptotic_rate(state.ratios)
        counts = evaluations_per_efold(rate)
        overhead = max(state.seconds - state.operator, 0.1 * state.seconds)
        costs = [c * state.operator + b * overhead for c, b in zip(_CALLS, _BOOKKEEPING, strict=True)]
        times = [_EFOLDS * n * cost for n, cost in zip(counts, costs, strict=True)]
        times = [math.inf if i in state.dropped else t for i, t in enumerate(times)]
        choice = min(range(len(times)), key=times.__getitem__)
        if state.choice == 0 and 0 not in state.dropped and _MARGIN * times[choice] > times[0]:
            choice = 0
        listed = ", ".join(f"{type(c).__name__} {1e3 * t:.3g} ms" for c, t in zip(self._candidates, times, strict=True))
        name = type(self._candidates[choice]).__name__
        note = f"Auto: {name} after {len(state.ratios)} Picard steps, Picard's rate {rate:.4f}; foretold {listed}"
        if choice == 0:
            return replace(state, notes=(note,))
        inner, start = self.candidate(choice).init(eq, z, r), _log(_host(state.norm).max())
        pace = (1 + self._inner_calls(choice)) / counts[choice]
        return replace(
            state, choice=choice, inner=inner, since=0, start=start, pace=pace, notes=(*state.notes[:1], note)
        )

    def _followed(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[AutoState, int]:
        """Count a step of the choice, and drop it once it has fallen behind for some while."""
        state = replace(state, since=state.since + 1)
        if state.since * state.pace < 3.0 or state.since % 4:
            return state, 0
        norm = eq.norm(r.detach())
        gained = state.start - _log(_host(norm).max())
        left = set(range(len(self._candidates))) - {*state.dropped, state.choice}
        if gained >= _BEHIND * state.since * state.pace or not left:
            return state, 0
        return self._chosen(eq, z, r, replace(state, norm=norm, dropped=(*state.dropped, state.choice))), 0

    def _inner_calls(self, choice: int) -> int:
        solver = self._candidates[choice]
        return solver.inner if isinstance(solver, NewtonKrylov) else 0


def slowest_ratio(new: np.ndarray, old: np.ndarray) -> float:
    """Largest ratio of residual norms over the rows that still move; 1 when none does."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(new / old, nan=0.0, posinf=0.0)
    moving = ratio[ratio != 1.0]
    return float(moving.max()) if moving.size else 1.0


def asymptotic_rate(ratios: tuple[float, ...]) -> float:
    """Limit rho of ratios q_k = rho - c/k, by least squares over the later half, within [last ratio, .9999]."""
    start = len(ratios) // 2
    q, x = np.array(ratios[start:]), 1 / np.arange(start + 1, len(ratios) + 1)
    slope = ((x - x.mean()) * (q - q.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return min(max(float(q.mean() - slope * x.mean()), float(q[-1]), 1e-6), 0.9999)


def evaluations_per_efold(rate: float) -> tuple[float, float, float, float]:
    """Evaluations to reduce the residual by e: Picard, Aitken, Anderson(5), Newton-Krylov, at Picard's rate.

    The factors were fitted to symmetric spectra of radius .9 and .99 (`settle run solvers`).
    """
    krylov, gap = -1 / math.log(rate / (1 + math.sqrt(1 - rate * rate))), 1 - rate
    return -1 / math.log(rate), 1.13 * gap**-0.08 * krylov, 0.87 * gap**-0.22 * krylov, 0.95 * krylov


def _host(norm: Tensor) -> np.ndarray:
    return np.array(norm.tolist())


def _log(x: float) -> float:
    return math.log(x) if 0 < x < math.inf else 0.0
