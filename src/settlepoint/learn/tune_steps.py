"""tune for initial-value families: the integrator with the smallest error at equal work."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from settlepoint.learn.draws import Draws
from settlepoint.learn.fit import fit
from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.objective import Relative, rollout
from settlepoint.learn.tuned import Budget, Report, Tuned
from settlepoint.problems import Batch, Family
from settlepoint.solvers import R2N2, tableaus
from settlepoint.solvers.solver import Solver

STEPS = 50  # of three evaluations, over which integrators are compared
_STAGES = 3
_PEER = "Kutta-3"
_ADAPTIVE = 40  # problems on which SciPy's adaptive pairs are run, one by one
_CARRIED = (0, 1, 2, 3)  # stage vectors of the last step that learned ones may use
_WORTH = 0.9  # a learned integrator must have at most this share of the best classical error

CLASSICAL: Mapping[str, tableaus.Tableau] = {
    "Heun": tableaus.HEUN, "Ralston": tableaus.RALSTON, _PEER: tableaus.KUTTA3, "SSP-RK3": tableaus.SSPRK3,
    "Bogacki-Shampine": tableaus.BOGACKI_SHAMPINE, "RK4": tableaus.RK4,
}  # fmt: skip


@dataclass(frozen=True)
class Flight:
    """Problems to integrate over STEPS h: the peer's and the exact ends, and the exact path."""

    family: Family
    batch: Batch
    path: Tensor  # (n, 2 STEPS, m)
    peer: Tensor  # (n,), error of the peer after STEPS steps


@dataclass(frozen=True)
class Pilot:
    """An integrator and its name in tables. training: seconds."""

    name: str
    solver: Solver
    kind: str = "classical"
    training: float = 0.0


@dataclass(frozen=True)
class Landing:
    """Errors of one integrator at the end of the flight. beyond: gain over the peer after twice as many steps."""

    pilot: Pilot
    errors: Tensor  # (n,)
    peer: Tensor  # (n,)
    evaluations: float
    seconds: float = 0.0
    beyond: float = float("nan")
    note: str = ""

    @property
    def failures(self) -> int:
        """Ends that are not finite."""
        return int((~torch.isfinite(self.errors)).sum())

    @property
    def gain(self) -> float:
        """Geometric mean of the peer's error over this one's; of the finite ones."""
        ratio = (self.peer / self.errors.clamp(min=1e-300)).log()
        return float(ratio[torch.isfinite(ratio)].mean().exp())

    @property
    def tail(self) -> float:
        """90th percentile of the errors, failures counted as inf."""
        ordered = self.errors.nan_to_num(torch.inf).sort().values
        return float(ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))])

    def first(self, count: int) -> Landing:
        """On the first so many problems alone."""
        return replace(self, errors=self.errors[:count], peer=self.peer[:count])

    def row(self) -> dict[str, Any]:
        """As a line of a table. ..._beside_scipy: on the problems that SciPy's pairs run."""
        finite, first = self.errors[torch.isfinite(self.errors)], self.first(_ADAPTIVE)
        spread = [float(finite.quantile(q)) if len(finite) else float("inf") for q in (0.5, 0.9, 1.0)]
        return {
            "name": self.pilot.name, "kind": self.pilot.kind, "gain": self.gain,
            "gain_beside_scipy": first.gain, "p90_beside_scipy": first.tail,
            "better": float((self.errors < self.peer).double().mean()),
            "median": spread[0], "p90": spread[1], "worst": spread[2],
            "failures": self.failures, "problems": len(self.errors), "evaluations": self.evaluations,
            "gain_at_twice_the_steps": self.beyond, "seconds": self.seconds,
            "training_seconds": self.pilot.training, "note": self.note,
        }  # fmt: skip


def tune_steps(
    family: Family,
    budget: Budget,
    *,
    seed: int = 0,
    trainer: LevenbergMarquardt | None = None,
    progress: Report | None = None,
) -> Tuned:
    """Races explicit Runge-Kutta methods and learned ones: the error after 50 steps of size h, at 150 evaluations.

    A method of s stages takes 150/s steps over the same time. Learned ones are R2N2 of three stages that begin as
    Kutta's method, with carry = 0, 1, 2, 3 stage vectors of the last step, fitted by `Relative`. SciPy's RK23 and RK45
    choose their steps, at the tightest tolerance that stays within 150 evaluations, on the first 40 held-out problems.
    The learned step is returned as it is: an explicit step has no residual to guard it by; for
    error control see `compat.scipy.LearnedRK` (carry = 0).
    """
    draws = Draws.of(family, budget, seed)
    training = draws.training
    validation, held_out = (_flight(family, batch) for batch in (draws.validation, draws.held_out))
    report = progress or (lambda what, done, of: None)
    pupils, left_out = _train_all(family, training, trainer, seed, budget.seconds, report)
    report("held-out problems", 0, 1)
    known = [Pilot(name, R2N2.from_tableau(tableau)) for name, tableau in CLASSICAL.items()]
    entries = {p.name: _landed(p, held_out) for p in (*known, *pupils)}
    adaptive = [_adaptive(method, held_out) for method in ("RK23", "RK45")]
    classic = min((_landed(p, validation) for p in known), key=_rank)
    best = min((_landed(p, validation) for p in pupils), key=_rank, default=None)
    worth = best is not None and best.failures <= classic.failures and classic.gain <= _WORTH * best.gain
    chosen = best.pilot if worth and best is not None else classic.pilot
    found = None if best is None else entries[best.pilot.name]
    verdict = _verdict(found, entries[classic.pilot.name], adaptive, worth) + draws.warning
    table = [e.row() for e in sorted([*entries.values(), *adaptive], key=_rank)]
    evidence = {
        "family": family.settings(), "held_out_seen": draws.seen,
        "steps": STEPS, "evaluations": STEPS * _STAGES, "budget": asdict(budget),
        "seed": seed, "winner": chosen.name, "worth": worth, "verdict": verdict, "table": table,
        "left_out": left_out, "torch": torch.__version__,
    }  # fmt: skip
    return Tuned(chosen.solver, chosen.name, worth, verdict, table, evidence)


def _rank(landing: Landing) -> tuple[int, float]:
    return landing.failures, -landing.gain


def _train_all(
    family: Family, batch: Batch, trainer: LevenbergMarquardt | None, seed: int, limit: float | None, report: Report
) -> tuple[list[Pilot], list[str]]:
    """The learned integrators, and what was left out of them for want of seconds or because it failed."""
    begun, pupils, left_out = time.monotonic(), [], []
    for k, carry in enumerate(_CARRIED):
        name = f"R2N2({_STAGES}{f', carry={carry}' if carry else ''})"
        report(f"training {name}", k, len(_CARRIED))
        if limit is not None and time.monotonic() - begun > limit:
            left_out.append(name)
            continue
        begin = time.process_time()
        try:
            solver = _trained(family, batch, carry, trainer, seed)
        except (ValueError, RuntimeError) as error:
            left_out.append(f"{name}: {str(error)[:200]}")
            continue
        pupils.append(Pilot(name, solver, "learned", time.process_time() - begin))
    return pupils, left_out


def _trained(family: Family, batch: Batch, carry: int, trainer: LevenbergMarquardt | None, seed: int) -> Solver:
    """Kutta's method with memory of weight 0, trained on STEPS steps."""
    peer = R2N2.from_tableau(tableaus.KUTTA3)
    memory = torch.zeros(_STAGES * carry, dtype=torch.float64)
    start = R2N2(_STAGES, carry=carry, theta=torch.cat((peer.theta, memory)))
    rule = trainer or LevenbergMarquardt(starts=3, iterations=50, spread=0.03, gain=1e-5)
    looks = tuple(max(1, round(share * STEPS)) for share in (0.1, 0.3, 0.6, 1.0))
    return fit(start, family, STEPS, Relative(peer, looks), rule, seed=seed, samples=batch).solver


def _flight(family: Family, batch: Batch) -> Flight:
    path = family.trajectory(batch, 2 * STEPS)
    known = torch.isfinite(path).flatten(1).all(1)
    batch, path = batch.rows(known), path[known]
    flight = Flight(family, batch, path, path[:, 0, 0])
    peer, _ = _errors(R2N2.from_tableau(tableaus.KUTTA3), flight, STEPS)
    return replace(flight, peer=peer)


@torch.no_grad()
def _errors(solver: Solver, flight: Flight, steps: int) -> tuple[Tensor, float]:
    """Errors after `steps` steps of the peer, at the same number of evaluations, and the CPU seconds."""
    stages = 1 + solver.calls
    taken = steps * _STAGES // stages
    assert flight.batch.h is not None
    batch = replace(flight.batch, h=flight.batch.h * (steps / taken))
    eq = flight.family.equation(batch).at(batch.x0)
    begin = time.process_time()
    end = rollout(solver, eq, batch.x0, taken, check=False).iterates[-1]
    return (end - flight.path[:, steps - 1]).norm(dim=1), time.process_time() - begin


def _landed(pilot: Pilot, flight: Flight) -> Landing:
    errors, seconds = _errors(pilot.solver, flight, STEPS)
    twice, _ = _errors(pilot.solver, flight, 2 * STEPS)
    peer, _ = _errors(R2N2.from_tableau(tableaus.KUTTA3), flight, 2 * STEPS)
    evaluations = STEPS * _STAGES // (1 + pilot.solver.calls) * (1 + pilot.solver.calls)
    beyond = Landing(pilot, twice, peer, evaluations).gain
    return Landing(pilot, errors, flight.peer, evaluations, seconds, beyond)


def _adaptive(method: str, flight: Flight) -> Landing:
    """SciPy's pair on single problems, at the tightest of 8 tolerances found by bisection that keeps the work.

    Problems on which no tolerance keeps it count as failures, with all of the work spent.
    """
    count = min(_ADAPTIVE, len(flight.batch))
    begin = time.process_time()
    pairs = [_bisected(method, flight, i) for i in range(count)]
    errors = torch.tensor([error for error, _ in pairs], dtype=torch.float64)
    calls = float(np.mean([n for _, n in pairs]))
    pilot = Pilot(f"SciPy {method}", R2N2.from_tableau(tableaus.BOGACKI_SHAMPINE), "adaptive")
    note = f"adaptive, {count} problems, one by one, through NumPy"
    return Landing(pilot, errors, flight.peer[:count], calls, time.process_time() - begin, note=note)


def _bisected(method: str, flight: Flight, i: int) -> tuple[float, int]:
    one = flight.batch.rows(slice(i, i + 1))
    assert one.h is not None
    best, low, high = (float("inf"), STEPS * _STAGES), -9.0, 0.0  # log10 of the tolerance
    for _ in range(8):
        middle = (low + high) / 2
        slope, begin = _Slope(flight.family, one, STEPS * _STAGES), one.x0[0].numpy()
        try:
            found = solve_ivp(slope, (0.0, float(STEPS)), begin, method, rtol=10**middle, atol=10**middle)
        except _Spent:
            low = middle
            continue
        high = middle
        best = float(np.linalg.norm(found.y[:, -1] - flight.path[i, STEPS - 1].numpy())), found.nfev
    return best


class _Spent(Exception):
    """The evaluations are used up."""


class _Slope:
    """h f(x) for a single problem, in the time t/h, so many times."""

    def __init__(self, family: Family, one: Batch, most: int):
        self.eq, self.left = family.equation(one).at(one.x0), most

    def __call__(self, _: float, x: np.ndarray) -> np.ndarray:
        if not self.left:
            raise _Spent
        self.left -= 1
        with torch.no_grad():
            z = torch.from_numpy(x)[None]
            return (self.eq.flat(z) - z)[0].numpy()


def _verdict(found: Landing | None, classic: Landing, adaptive: list[Landing], worth: bool) -> str:
    """Geometric means over all; beside SciPy on the same problems, where the tail is told too."""
    count, known = len(classic.errors), f"{classic.pilot.name} {classic.gain:.3g}"
    scope = f"after {STEPS} steps, {STEPS * _STAGES} evaluations; geometric means, {count} held-out problems"
    if found is None:
        return f"Nothing was learned. How many times smaller errors are than those of {_PEER}: {known} ({scope})."
    text = f"{found.pilot.name} has an error {found.gain:.3g} times smaller than {_PEER}; {known} ({scope})"
    first = [found.first(_ADAPTIVE), *adaptive]
    pairs = ", ".join(f"{e.pilot.name} {e.gain:.3g}, {e.tail:.2g}" for e in first)
    beside = f" On {len(first[0].errors)} of them, that mean and the 90th percentile of the error: {pairs}."
    return (f"Worth it: {text}." if worth else f"Not worth it: {text}; the classical method is returned.") + beside
