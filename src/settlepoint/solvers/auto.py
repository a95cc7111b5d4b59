"""Auto: watches the first residuals, measures what a step costs here, and takes the solver that should be cheapest."""

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.aitken import Aitken
from settlepoint.solvers.anderson import Anderson
from settlepoint.solvers.newton_krylov import NewtonKrylov
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.solver import Solver, State

_EFOLDS = 14.0  # reduction by 1e6 is assumed to be wanted


@dataclass(frozen=True)
class AutoState(State):
    """choice: index into Auto.candidates, shared; inner: its state; ratios: of successive residual norms, slowest row, shared;
    last: (R,), the residual norm before; started: host time of the last step, shared; seconds: fastest Picard step seen.
    """

    choice: int
    inner: State
    ratios: tuple[float, ...]
    last: Tensor
    started: float
    seconds: float
    notes: tuple[str, ...] = ()


class Auto(Solver):
    """Picard for `probe` steps, then whichever of Picard, Aitken, Anderson, Newton-Krylov is foretold to take least time.

    The rate rho of Picard is the limit of the ratios of successive residuals, fitted as rho - c/k. From it the
    evaluations per e-fold: Picard 1/log(1/rho); GMRES 1/log(1/s), s = rho/(1 + sqrt(1 - rho^2)) as for a symmetric spectrum in
    [-rho, rho]; Anderson and Aitken fitted multiples of that. The time of one step is measured on the problem itself. The
    decision is looked at again after twice as many Picard steps. It depends on the clock: pin the solver it names in
    `Solution.notes` where runs must repeat bit for bit. Reads on the host, so it is not for fullgraph compilation.
    """

    def __init__(self, probe: int = 8):
        super().__init__()
        if isinstance(probe, bool) or not isinstance(probe, int) or probe < 4:
            raise ValueError(f"probe must be an integer >= 4, got {probe!r}")
        self.probe = probe
        self.candidates = torch.nn.ModuleList((Picard(), Aitken(), Anderson(), NewtonKrylov()))

    def extra_repr(self) -> str:
        return f"probe={self.probe}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> AutoState:
        picard = self.candidates[0].init(eq, z, r)
        return AutoState(0, picard, (), eq.norm(r.detach()), time.perf_counter(), math.inf)

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[Tensor, AutoState, int | Tensor]:
        state = self._watched(eq, r, state)
        extra = 0
        if state.choice == 0 and len(state.ratios) >= self.probe and _power_of_two(len(state.ratios) / self.probe):
            state, extra = self._decided(eq, z, r, state)
        moved, inner, more = self.candidates[state.choice].step(eq, z, r, state.inner)
        return moved, replace(state, inner=inner), extra + more

    def _watched(self, eq: Equation, r: Tensor, state: AutoState) -> AutoState:
        """Note the slowest row's ratio and the time of the last Picard step."""
        if state.choice:
            return state
        now, norm = time.perf_counter(), eq.norm(r.detach())
        ratio = (norm / state.last).nan_to_num(0.0, 0.0).max() if norm.numel() else norm.new_zeros(())
        seconds = min(state.seconds, now - state.started) if state.ratios else math.inf
        return replace(
            state, ratios=(*state.ratios, float(ratio)), last=norm, started=time.perf_counter(), seconds=seconds
        )

    def _decided(self, eq: Equation, z: Tensor, r: Tensor, state: AutoState) -> tuple[AutoState, int]:
        """The state of the candidate whose foretold time is least; trials cost evaluations, which are counted."""
        rate = asymptotic_rate(state.ratios)
        counts = evaluations_per_efold(rate)
        calls, seconds = 0, [state.seconds]
        for solver in self.candidates[1:]:
            cost, extra, spent = _timed(solver, eq, z, r)
            seconds.append((cost + state.seconds) / (1 + extra))
            calls += spent
        times = [n * s * _EFOLDS for n, s in zip(counts, seconds, strict=True)]
        choice = min(range(len(times)), key=times.__getitem__)
        names = [type(c).__name__ for c in self.candidates]
        foretold = ", ".join(f"{n} {1e3 * t:.3g} ms" for n, t in zip(names, times, strict=True))
        note = f"Auto: {names[choice]} after {len(state.ratios)} Picard steps, rate {rate:.4f}; foretold {foretold}"
        inner = state.inner if choice == 0 else self.candidates[choice].init(eq, z, r)
        return replace(state, choice=choice, inner=inner, notes=(note,)), calls


def asymptotic_rate(ratios: tuple[float, ...]) -> float:
    """Limit of ratios q_k = rho - c/k, by least squares over the later half; at least the last ratio, below 1."""
    start = len(ratios) // 2
    ks = torch.arange(start, len(ratios), dtype=torch.float64) + 1
    q = torch.tensor(ratios[start:], dtype=torch.float64)
    x = 1 / ks
    slope = ((x - x.mean()) * (q - q.mean())).sum() / ((x - x.mean()) ** 2).sum()
    limit = float(q.mean() - slope * x.mean())
    return min(max(limit, float(q[-1]), 1e-6), 0.9999)


def evaluations_per_efold(rate: float) -> tuple[float, float, float, float]:
    """Evaluations to reduce the residual by e: Picard, Aitken, Anderson(5), Newton-Krylov, at Picard rate `rate`."""
    krylov = 1 / -math.log(rate / (1 + math.sqrt(1 - rate * rate)))
    stretch = (1 - rate) ** -0.15
    return 1 / -math.log(rate), 1.3 * krylov * stretch, 1.2 * krylov * stretch, 1.1 * krylov


def _timed(solver: Solver, eq: Equation, z: Tensor, r: Tensor) -> tuple[float, int, int]:
    """Seconds and operator calls of a trial step (the faster of two), and the calls both took."""
    calls, seconds = 0, math.inf
    for _ in range(2):
        state = solver.init(eq, z, r)
        begin = time.perf_counter()
        extra = solver.step(eq, z, r, state)[2]
        seconds = min(seconds, time.perf_counter() - begin)
        calls += extra if isinstance(extra, int) else int(extra.max())
    return seconds, calls // 2, calls


def _power_of_two(x: float) -> bool:
    return x >= 1 and math.log2(x).is_integer()
