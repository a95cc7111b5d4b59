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

from settlepoint.learn.fit import fit, generator
from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.objective import Relative, rollout
from settlepoint.problems import Batch, Family
from settlepoint.solvers import R2N2, tableaus
from settlepoint.solvers.solver import Solver

STEPS = 50  # of three evaluations, over which integrators are compared
_STAGES = 3
_PEER = "Kutta-3"
_ADAPTIVE = 40  # problems on which SciPy's adaptive pairs are run, one by one
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
class Landing:
    """Errors of one integrator at the end of the flight. beyond: gain over the peer after twice as many steps."""

    name: str
    kind: str
    errors: Tensor  # (n,)
    peer: Tensor  # (n,)
    evaluations: float
    seconds: float = 0.0
    training: float = 0.0
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

    def row(self) -> dict[str, Any]:
        """As a line of a table."""
        finite = self.errors[torch.isfinite(self.errors)]
        spread = [float(finite.quantile(q)) if len(finite) else float("inf") for q in (0.5, 0.9, 1.0)]
        return {
            "name": self.name, "kind": self.kind, "gain": self.gain,
            "better": float((self.errors < self.peer).double().mean()),
            "median": spread[0], "p90": spread[1], "worst": spread[2],
            "failures": self.failures, "problems": len(self.errors), "evaluations": self.evaluations,
            "gain_at_twice_the_steps": self.beyond, "seconds": self.seconds,
            "training_seconds": self.training, "note": self.note,
        }  # fmt: skip


def tune_steps(family: Family, budget, tolerance: float, *, seed: int, trainer: LevenbergMarquardt | None, progress):
    """Races explicit Runge-Kutta methods and learned ones: the error after 50 steps of size h, at 150 evaluations.

    A method of s stages takes 150/s steps over the same time. Learned ones are R2N2 of three stages that begin as
    Kutta's method, with carry = 0, 1, 2, 3 stage vectors of the last step, fitted by `Relative`. SciPy's RK23 and RK45
    choose their steps, at the tightest tolerance that stays within 150 evaluations, on the first 40 held-out problems.
    tolerance plays no part. The learned step is returned as it is: an explicit step has no residual to guard it by; for
    error control see `compat.scipy.LearnedRK` (carry = 0).
    """
    from settlepoint.learn.tune import Tuned  # which calls this

    begun = time.monotonic()
    report = progress or (lambda what, done, of: None)
    sizes = (budget.training, budget.validation, budget.held_out)
    batches = [family.sample(n, generator(seed, 10 + i)) for i, n in enumerate(sizes)]
    validation, held_out = (_flight(family, batch) for batch in batches[1:])
    solvers: dict[str, tuple[Solver, float]] = {}
    left_out = []
    for k, carry in enumerate((0, 1, 2, 3)):
        name = f"R2N2({_STAGES}{f', carry={carry}' if carry else ''})"
        report(f"training {name}", k, 4)
        if budget.seconds is not None and time.monotonic() - begun > budget.seconds:
            left_out.append(name)
            continue
        begin = time.process_time()
        try:
            solvers[name] = _trained(family, batches[0], carry, trainer, seed), time.process_time() - begin
        except (ValueError, RuntimeError) as error:
            left_out.append(f"{name}: {str(error)[:200]}")
    report("held-out problems", 0, 1)
    learned = [_landed(name, "learned", s, validation, t) for name, (s, t) in solvers.items()]
    best = min(learned, key=lambda e: (e.failures, -e.gain), default=None)
    known = {name: R2N2.from_tableau(tableau) for name, tableau in CLASSICAL.items()}
    entries = [_landed(name, "classical", s, held_out) for name, s in known.items()]
    entries += [_landed(name, "learned", s, held_out, t) for name, (s, t) in solvers.items()]
    adaptive = [_adaptive(method, held_out) for method in ("RK23", "RK45")]
    classic = min((e for e in entries if e.kind == "classical"), key=lambda e: (e.failures, -e.gain))
    found = None if best is None else next(e for e in entries if e.name == best.name)
    worth = found is not None and found.failures <= classic.failures and classic.gain <= _WORTH * found.gain
    chosen = found if worth and found is not None else classic
    solver = solvers[chosen.name][0] if worth else known[chosen.name]
    table = [e.row() for e in sorted([*entries, *adaptive], key=lambda e: (e.failures, -e.gain))]
    verdict = _verdict(found, classic, adaptive, worth)
    evidence = {
        "family": family.settings(), "steps": STEPS, "evaluations": STEPS * _STAGES, "budget": asdict(budget),
        "seed": seed, "winner": chosen.name, "worth": worth, "verdict": verdict, "table": table,
        "left_out": left_out, "torch": torch.__version__,
    }  # fmt: skip
    return Tuned(solver, chosen.name, worth, verdict, table, evidence)


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


def _landed(name: str, kind: str, solver: Solver, flight: Flight, training: float = 0.0) -> Landing:
    errors, seconds = _errors(solver, flight, STEPS)
    twice, _ = _errors(solver, flight, 2 * STEPS)
    peer, _ = _errors(R2N2.from_tableau(tableaus.KUTTA3), flight, 2 * STEPS)
    beyond = Landing(name, kind, twice, peer, 0.0).gain
    evaluations = STEPS * _STAGES // (1 + solver.calls) * (1 + solver.calls)
    return Landing(name, kind, errors, flight.peer, evaluations, seconds, training, beyond)


def _adaptive(method: str, flight: Flight) -> Landing:
    """SciPy's pair on single problems, at the tightest of 8 tolerances found by bisection that keeps the work."""
    count = min(_ADAPTIVE, len(flight.batch))
    begin = time.process_time()
    pairs = [_bisected(method, flight, i) for i in range(count)]
    errors = torch.tensor([error for error, _ in pairs], dtype=torch.float64)
    calls = float(np.mean([n for _, n in pairs]))
    name, note = f"SciPy {method}", f"adaptive, {count} problems, one by one, through NumPy"
    return Landing(name, "adaptive", errors, flight.peer[:count], calls, time.process_time() - begin, note=note)


def _bisected(method: str, flight: Flight, i: int) -> tuple[float, int]:
    one = flight.batch.rows(slice(i, i + 1))
    assert one.h is not None
    best, low, high = (float("inf"), 0), -9.0, 0.0  # log10 of the tolerance
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
    known = f"{classic.name}, the best classical one, {classic.gain:.3g} times"
    scipy = ", ".join(f"{e.name} {e.gain:.3g} times" for e in adaptive)
    scope = (
        f"after {STEPS} steps, {STEPS * _STAGES} evaluations; geometric means, {len(classic.errors)} held-out problems"
    )
    if found is None:
        return f"Nothing was learned: the error of {_PEER} is {known} that of the others, {scope}."
    text = f"{found.name} has an error {found.gain:.3g} times smaller than {_PEER}; {known}, {scipy} ({scope})"
    return f"Worth it: {text}." if worth else f"Not worth it: {text}; the classical method is returned."
