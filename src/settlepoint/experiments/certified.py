"""Certificates held against the truth: what is claimed of a value, and how far it is from every known fixed point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from settlepoint import Equation, Solver, certify, solve
from settlepoint.certify.certificate import Certificate, refused
from settlepoint.experiments import measuring
from settlepoint.experiments.experiment import curve
from settlepoint.experiments.planted import Cases
from settlepoint.experiments.theory_trials import length
from settlepoint.stop import Stop

METHODS = ("auto", *certify.METHODS)
_POINTS = 200  # of a cloud in a figure
_DEFECT = 1e-6  # by which rounding may move the eigenvalues of a J that is not diagonalisable


@dataclass(frozen=True)
class Found:
    """What a cell gives: metrics, curves and notes."""

    metrics: Mapping[str, float]
    curves: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Held:
    """A certificate of R values beside their distances to all known fixed points (R, n), inf where there is none.

    spectrum: the spectral radius of J at the values (R,), which no rate may be less than; None: not known. raised: why
    a method raised instead of refusing, else "".
    """

    found: Certificate
    distances: Tensor
    spectrum: Tensor | None = None
    raised: str = ""

    @classmethod
    def of(cls, eq: Equation, x: Tensor, method: str, distances: Tensor, spectrum: Tensor | None = None) -> Held:
        """What a method says of x. An exception counts as a refusal, and is reported."""
        try:
            return cls(certify.certificate(eq, x, method), distances, spectrum)
        except Exception as error:
            why = f"{method} raised {type(error).__name__}: {error}"
            return cls(refused(len(x), x, why, method), distances, spectrum, why)

    @property
    def nearest(self) -> Tensor:  # (R,)
        return self.distances.amin(1)

    @property
    def short(self) -> Tensor:  # (R,) bool
        """No fixed point within the radius."""
        return ~(self.nearest <= self.found.radius)

    @property
    def false(self) -> Tensor:  # (R,) bool
        """Proofs with no fixed point within the radius, two where one is said to be alone, or too low a rate."""
        crowded = (self.distances < self.found.unique_in[:, None]).sum(1) > 1
        slow = torch.zeros_like(crowded) if self.spectrum is None else self.found.rate < self.spectrum - _DEFECT
        return self.found.proved & (self.short | crowded | slow)

    @property
    def small(self) -> Tensor:  # (R,) bool
        """Estimates that are."""
        return self.found.estimated & self.short

    @property
    def closeness(self) -> Tensor:  # (R,)
        """Radius over distance."""
        return self.found.radius / self.nearest.clamp(min=1e-300)

    def metrics(self) -> dict[str, float]:
        """Shares of the rows in per cent, medians, and what is wrong."""
        f, share = self.found, lambda mask: 100 * float(mask.double().mean())
        return {
            "proved %": share(f.proved),
            "estimated %": share(f.estimated),
            "refused %": share(f.refused),
            "radius": float(f.radius.median()),
            "largest radius": float(f.radius.max()),
            "distance": float(self.nearest.median()),
            "closeness": float(self.closeness.median()),
            "unique_in": float(f.unique_in.median()),
            "rate": float(f.rate.median()),
            "false certificates": float(self.false.sum()),
            "small estimates": float(self.small.sum()),
            "raised": float(bool(self.raised)),
        }


def trusted(eq: Equation, x: Tensor, distances: Tensor) -> Tensor:  # (R,) bool
    """Rows whose residual, taken as the error, is less than the distance."""
    return length(eq.residual(x).double()) < distances.amin(1)  # type: ignore[union-attr]


def cloud(held: Sequence[Held]) -> dict[str, Any]:
    """Curve: radius over distance, against the distance, of some hundred rows; below 1 a claim is false."""
    near, ratio = (torch.cat([getattr(h, n) for h in held]) for n in ("nearest", "closeness"))
    shown = (ratio.isfinite() & near.isfinite() & (near > 0)).nonzero()[:_POINTS, 0]
    x, y = near[shown].log10().tolist(), ratio[shown].tolist()
    return curve(x, y, x_label="log10 of the true distance", y_label="radius over true distance", log_y=True)


def refined(eq: Equation, x: Tensor, steps: int = 4) -> Tensor:  # (R, W)
    """Newton's method with dense Jacobians in float64, to rounding."""
    bound, eye, step = eq.at(x), torch.eye(x.shape[1], dtype=x.dtype), x
    for _ in range(steps):
        step = torch.linalg.solve(eye - certify.jacobians(bound, x), bound.flat(x) - x)
        x = x + step
    if not bool((length(step) <= 1e-13 * (1 + length(x))).all()):
        raise ArithmeticError(f"Newton's method must reach 1e-13, got a last step of {float(length(step).max()):.1e}")
    return x


@dataclass(frozen=True)
class Posed:
    """An equation, where it starts, how it is solved, its value and its fixed point."""

    eq: Equation
    x0: Tensor
    solver: Solver
    stop: Stop
    value: Tensor
    exact: Tensor

    @property
    def distances(self) -> Tensor:  # (R, 1)
        """||x - x*||, as a table with one fixed point a row."""
        return length(self.value - self.exact)[:, None]

    def held(self, method: str) -> Held:
        """What a method says of the value."""
        return Held.of(self.eq, self.value, method, self.distances)

    @torch.no_grad()
    def cost(self, method: str, repeats: int) -> dict[str, float]:
        """CPU milliseconds a sample, and in per cent of the solve's: the least of interleaved rounds."""
        solving = lambda: solve(self.eq, self.x0, self.solver, self.stop)  # noqa: E731
        seconds = measuring.cpu_seconds({"solve": solving, "certificate": lambda: self.held(method)}, repeats)
        rows = len(self.value)
        return {
            "ms": 1e3 * seconds["certificate"] / rows,
            "solve ms": 1e3 * seconds["solve"] / rows,
            "cost %": 100 * seconds["certificate"] / seconds["solve"],
        }


def posed(eq: Equation, x0: Tensor, solver: Solver, stop: Stop, exact: Tensor | None = None) -> Posed:
    """Solved; exact: the fixed point, else by Newton's method."""
    value = solve(eq, x0, solver, stop).require().value
    assert isinstance(value, Tensor)
    return Posed(eq, x0, solver, stop, value, refined(eq, value) if exact is None else exact)


def tried(drawn: Sequence[Cases]) -> Found:
    """Every method on every case of a kind, and what comes of trusting the residual."""
    total, best, notes = Counter[str](), list[Held](), list[str]()
    for case in drawn:
        held = _each(case)
        total.update(_judged(case, held))
        best.append(held["auto"])
        notes += [h.raised for h in held.values() if h.raised]
    share = lambda name, whole: 100 * total[name] / total[whole] if total[whole] else 0.0  # noqa: E731
    ratios = torch.cat([h.closeness[h.found.proved] for h in best])
    shares = {f"{name} %": share(name, "cases") for name in ("proved", "estimated", "refused", "trust wrong")}
    shares |= {"small estimates %": share("small estimates", "estimates")}
    shares |= {"closeness": float(ratios.median())} if len(ratios) else {}
    return Found({**total, **shares}, {"points": cloud(best)}, tuple(dict.fromkeys(notes)))


def _each(case: Cases) -> dict[str, Held]:
    distances, spectrum = case.distances, torch.linalg.eigvals(case.jacobian).abs().amax(1)
    return {method: Held.of(case.eq, case.value, method, distances, spectrum) for method in METHODS}


def _judged(case: Cases, held: Mapping[str, Held]) -> dict[str, int]:
    """Counts: of auto by kind, of all methods by what is wrong."""
    auto, guess, can = held["auto"].found, held["newton-krylov"], case.certifiable
    masks = {
        "proved": auto.proved,
        "estimated": auto.estimated,
        "refused": auto.refused,
        "certifiable": can,
        "certified": can & auto.proved,
        "estimates": guess.found.estimated,
        "small estimates": guess.small,
        "trust wrong": trusted(case.eq, case.value, case.distances),
    }
    wrong = {"false certificates": sum(int(h.false.sum()) for h in held.values())}
    wrong |= {"raised": sum(bool(h.raised) for h in held.values()), "cases": len(case.value)}
    return {name: int(mask.sum()) for name, mask in masks.items()} | wrong
