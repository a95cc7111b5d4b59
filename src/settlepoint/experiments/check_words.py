"""What `examine` found, in words and numbers: the verdict as a sentence, the advice, the checks, the summary."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from settlepoint.experiments.check_race import OWN
from settlepoint.experiments.checking import Examination
from settlepoint.experiments.results import Check

_MANY = 600  # characters of reasons that a check shows
_FEW = 0.05  # share of the samples that may drift without deciding the verdict


def sentence(found: Examination) -> str:
    """The verdict in one sentence, its word first."""
    parts = [f"{found.verdict.overall.upper()}: {_course(found)}", _claims(found), _solvers(found)]
    return "; ".join(part for part in parts if part) + "."


_GOES_ON = {"settling": "go on to contract", "marginal": "neither contract nor drift", "drifting": "drift away"}


def _course(found: Examination) -> str:
    """How all samples go on, what decided the verdict first."""
    said = found.verdict
    kinds = sorted(said.counts(), key=lambda kind: kind != said.overall)
    first, *others = (f"{said.counts()[kind]} {{}}{_GOES_ON[kind]}{{}} ({_rate(found, kind)})" for kind in kinds)
    told = first.format(f"of {len(said.kind)} samples ", f" behind the training depth of {said.depth}")
    told = ", ".join((told, *(other.format("", "") for other in others)))
    by_score = said.overall == "drifting" and said.counts().get("drifting", 0) <= _FEW * len(said.kind)
    return f"{_score(found)}, though {told}" if by_score else told


def _score(found: Examination) -> str:
    """How the score goes on, where it decided the verdict."""
    said, last = found.verdict, found.verdict.scores[-1]
    late = f"{said.multiples[-1]:g} times the training depth of {said.depth}"
    if not math.isfinite(last):
        return f"the score is {last:g} at {late}"
    return f"the score falls from {said.scores[0]:.5g} at the training depth to {last:.5g} at {late}"


def _rate(found: Examination, kind: str) -> str:
    """The median factor a step of the samples of a kind."""
    rows = torch.tensor([k == kind for k in found.verdict.kind])
    rate = median(found.verdict.rate[rows])
    return f"rate {rate:.3g} a step" if math.isfinite(rate) else "until values overflow"


def _claims(found: Examination) -> str:
    if found.drift is not None:
        near = "" if found.excluded is None else f", and none is nearer than {float(found.excluded.min()):.3g}"
        return f"no fixed point: every point is moved by about {median(found.drift):.3g}{near}"
    c = found.certificate
    told = []
    for kind, n in c.counts().items():
        rows = torch.tensor([k == kind for k in c.kind])
        within = f" within {float(c.radius.cpu()[rows].max()):.2g} of a fixed point"
        told.append(f"{n} {kind}{within if kind != 'refused' else ' a certificate'}")
    return ", ".join(told)


def _solvers(found: Examination) -> str:
    best, own, rows = found.recommended, found.own, len(found.best.status)
    if not best.converged:
        return "no solver converged"
    where = "" if best.converged == rows else f" on the {best.converged} of {rows} samples that converge"
    goal = f"takes {best.mean:.3g} evaluations to a relative residual of {found.tolerance.rtol:g}{where}"
    if best is own:
        return f"its own {plain_name(best.name)} {goal}, and no other takes fewer"
    reached = f"takes {own.mean:.3g}" if own.converged == best.converged else f"settles {own.converged or 'none'}"
    return f"{best.name} {goal}, where the model's own {plain_name(own.name)} {reached}"


def plain_name(name: str) -> str:
    """A contender as one would write it.

    >>> plain_name("own: Picard()")
    'Picard()'
    """
    return name.removeprefix(OWN)


def advice(found: Examination) -> str:
    """What to set."""
    if not found.recommended.converged:
        return "Nothing to recommend: no solver converged. Damp, contract (certify.contractive), or train to settle."
    most = max(10, 2 * found.iterations)
    return (
        f"Take sp.{plain_name(found.recommended.name)} with sp.Tolerance(0, {found.rtol:g}, max_steps={most}): nothing "
        f"that counts changes at finer tolerances, and 95 % of the samples take at most {found.iterations} "
        f"evaluations. Iterations pay until {found.verdict.pays_until:g} times the depth."
    )


def checks(found: Examination) -> list[Check]:
    """What must hold for a model to be trusted."""
    rows, converged = len(found.best.status), int(found.best.converged.sum())
    certain = int((found.best.converged.cpu() & ~found.certificate.refused.cpu()).sum())
    ended = ", ".join(f"{n} {status}" for status, n in found.best.counts().items())
    kinds = ", ".join(f"{n} {kind}" for kind, n in found.verdict.counts().items())
    return [
        Check("verdict", found.verdict.overall == "settling", found.verdict.overall, "settling", kinds),
        Check.at_least("samples that converge, best solver", converged, rows, ended),
        Check.at_least("converged samples with a certificate", certain, converged, _reasons(found)),
    ]


def _reasons(found: Examination) -> str:
    """The distinct reasons of refusals."""
    refused = {r for r, kind in zip(found.certificate.reason, found.certificate.kind, strict=True) if kind == "refused"}
    text = "; ".join(sorted(refused))
    return text if len(text) <= _MANY else f"{text[: _MANY - 3]}..."


def table(found: Examination) -> tuple[list[str], list[list[str]]]:
    """The race, for a terminal."""
    heads = ["solver", "converged", "evaluations, mean", "95 %", "CPU s"]
    rows = [[r.name, str(r.converged), f"{r.mean:.4g}", f"{r.p95:.4g}", f"{r.seconds:.2g}"] for r in found.race]
    return heads, rows


def summary(found: Examination) -> dict[str, Any]:
    """All numbers, for --json."""
    return {
        "verdict": found.verdict.overall,
        "rows_by_verdict": found.verdict.counts(),
        "rows_by_status": found.solution.counts(),
        "rows_by_certificate": found.certificate.counts(),
        "depth": found.verdict.depth,
        "residual_at_the_depth": median(found.verdict.residual[found.verdict.depth]),
        "multiples": found.verdict.multiples,
        "scores": found.verdict.scores,
        "pays_until": found.verdict.pays_until,
        "rates": {name: {"median": median(v), "p95": quantile(v, 0.95)} for name, v in found.rates.items()},
        "radius": found.certificate.radius.tolist(),
        "unique_in": found.certificate.unique_in.tolist(),
        "kind": found.certificate.kind,
        "method": found.certificate.method,
        "reasons": sorted(set(found.certificate.reason)),
        "race": [asdict(r) for r in found.race],
        "tolerances": [asdict(g) for g in found.grades],
        "recommended": {"solver": found.recommended.name, "rtol": found.rtol, "evaluations": found.iterations},
        "excluded": None if found.excluded is None else found.excluded.tolist(),
        "displacement": None if found.drift is None else found.drift.tolist(),
        "told": found.told,
        "seconds": found.seconds,
    }


def median(values: Tensor) -> float:
    """The lower one of two in the middle, of those that are numbers."""
    return quantile(values, 0.5)


def quantile(values: Tensor, q: float) -> float:
    """Of those that are numbers; nan when there are none. Infinities count.

    >>> quantile(torch.tensor([1.0, float("nan"), 2.0, float("inf")]), 0.95)
    inf
    """
    v = values.double()[~torch.isnan(values)].sort().values
    return float(v[min(len(v) - 1, round(q * (len(v) - 1)))]) if len(v) else math.nan
