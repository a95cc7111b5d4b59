"""What `examine` found, as a sentence, checks, and a run folder that the report shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from settlepoint.experiments.checking import Examination
from settlepoint.experiments.results import Check
from settlepoint.experiments.show import Column, Figure, Table, curve
from settlepoint.runs import Record, RunFolder, plain
from settlepoint.runs.environment import environment

_SORTED = "share of the samples (%)"


def sentence(found: Examination) -> str:
    """The verdict in one sentence, its word first."""
    said = found.verdict
    counts = sorted(said.counts().items(), key=lambda pair: pair[0] != said.overall)
    told = ", ".join(f"{n} {kind}" for kind, n in counts)
    lost = "; the score falls" if said.overall not in said.counts() else ""
    course = f"behind the depth of {said.depth}, of {len(said.kind)} samples {told}{lost}"
    parts = [f"{course} (median factor {_median(said.rate):.3g} a step)", _claims(found), _solvers(found)]
    return f"{said.overall.upper()}: {'; '.join(part for part in parts if part)}."


def _claims(found: Examination) -> str:
    kinds = found.certificate.counts()
    told = [f"{n} {kind}" for kind, n in kinds.items()]
    certain = ~found.certificate.refused
    if bool(certain.any()):
        far = float(found.certificate.radius[certain].max())
        return f"{', '.join(told)}, within {far:.2g} of a fixed point where there is a claim"
    if found.drift is not None:
        return f"no fixed point: every point is moved by about {_median(found.drift):.3g}"
    return ", ".join(told)


def _solvers(found: Examination) -> str:
    best, own = found.recommended, next(r for r in found.race if r.name.startswith("own"))
    if not best.converged:
        return "no solver converged"
    least = f"{best.name} takes {best.mean:.3g} evaluations to a relative residual of {found.tolerance.rtol:g}"
    if best is own:
        return f"{least}, and no other takes fewer"
    reached = f"takes {own.mean:.3g}" if own.converged else "does not get there"
    return f"{least}, where the model's {reached}"


def advice(found: Examination) -> str:
    """What to set."""
    if not found.recommended.converged:
        return "Nothing to recommend: no solver converged. Damp, contract (certify.contractive), or train to settle."
    name, most = found.recommended.name.removeprefix("own: "), max(10, 2 * found.iterations)
    return (
        f"Take sp.{name} with sp.Tolerance(0, {found.rtol:g}, max_steps={most}): nothing that counts changes at finer "
        f"tolerances, and 95 % of the samples take {found.iterations} evaluations. Iterations pay until "
        f"{found.verdict.pays_until:g} times the depth."
    )


def checks(found: Examination) -> list[Check]:
    """What must hold for a model to be trusted."""
    rows, converged = len(found.best.status), int(found.best.converged.sum())
    certain = int((found.best.converged & ~found.certificate.refused.to(found.best.converged.device)).sum())
    kinds = ", ".join(f"{n} {kind}" for kind, n in found.verdict.counts().items())
    return [
        Check("verdict", found.verdict.overall == "settling", found.verdict.overall, "settling", kinds),
        Check.at_least("samples that converge, best solver", converged, rows, str(found.best.counts())),
        Check.at_least("converged samples with a certificate", certain, converged, _reasons(found)),
    ]


def _reasons(found: Examination) -> str:
    """The distinct reasons of refusals."""
    refused = {r for r, kind in zip(found.certificate.reason, found.certificate.kind, strict=True) if kind == "refused"}
    return "; ".join(sorted(refused))[:600]


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
        "multiples": found.verdict.multiples,
        "scores": found.verdict.scores,
        "pays_until": found.verdict.pays_until,
        "rates": {name: {"median": _median(v), "p95": _quantile(v, 0.95)} for name, v in found.rates.items()},
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
    }


def write_folder(found: Examination, folder: Path, seconds: float) -> Path:
    """A run folder with the model, its certificates, solvers and tolerances as cells, for `report.write`.

    A run that lies there already is replaced, and nothing else. Raises RunError or WriteError.
    """
    run = RunFolder(folder)
    run.create()
    run.clear()
    records = [_model(found, seconds), *_certificates(found), *_race(found), *_grades(found)]
    run.write_json("spec.json", _spec(found, [r.cell for r in records]))
    run.write_json("environment.json", {"sessions": [environment(torch.get_num_threads())]})
    for record in records:
        run.append(record)
    run.write_json("checks.json", {"checks": [asdict(check) for check in checks(found)]})
    return folder


def _record(cell: str, metrics: Mapping[str, float], cpu: float = 0.0, **more: Any) -> Record:
    return Record(
        cell, 0, dict(metrics), more.get("curves", {}), more.get("notes", []), None, None, cpu, more.get("wall", 0.0)
    )


def _model(found: Examination, seconds: float) -> Record:
    metrics = {f"rows {name}": float(n) for name, n in found.solution.counts().items()}
    metrics |= {f"verdict {name}": float(n) for name, n in found.verdict.counts().items()}
    for name, v in found.rates.items():
        metrics |= {f"{name} median": _median(v), f"{name} p95": _quantile(v, 0.95)}
    notes = [advice(found), *found.told]
    return _record("model", metrics, curves=curves(found), notes=notes, wall=seconds)


def curves(found: Examination) -> dict[str, Any]:
    said = found.verdict
    steps = range(len(said.residual))
    drawn = {}
    for name, q in (("median", 0.5), ("5 %", 0.05), ("95 %", 0.95)):
        y = torch.nanquantile(said.residual.double(), q, dim=1).tolist()
        kept = [(k, v) for k, v in zip(steps, y, strict=True) if math.isfinite(v) and v > 0]
        drawn[f"residual {name}"] = curve(
            [k for k, _ in kept], [v for _, v in kept], x_label=f"iterations (trained with {said.depth})",
            y_label="residual", log_y=True, group=f"residual {name}",
        )  # fmt: skip
    if said.scores:
        drawn["score"] = curve(said.multiples, said.scores, x_label="multiple of the depth", y_label="score")
    drawn["radius"] = _sorted(found.certificate.radius, "radius")
    drawn["residual"] = _sorted(found.best.residual.double(), "residual")
    for name, v in found.rates.items():
        drawn[f"rate, {name}"] = _sorted(v, f"rate, {name}", "factor a step", log_y=False)
    return drawn


def _sorted(values: Tensor, group: str, y_label: str = "distance, residual", *, log_y: bool = True) -> dict[str, Any]:
    """Values from small to large, those that are finite."""
    v = values.detach().cpu()
    v = v[torch.isfinite(v) & ((v > 0) | (not log_y))].sort().values
    share = [100 * (i + 1) / len(values) for i in range(len(v))]
    return curve(share, v.tolist(), x_label=_SORTED, y_label=y_label, log_y=log_y, group=group)


def _certificates(found: Examination) -> list[Record]:
    c, records = found.certificate, []
    for name in dict.fromkeys(zip(c.kind, c.method, strict=True)):
        rows = torch.tensor([pair == name for pair in zip(c.kind, c.method, strict=True)])
        reason = next(r for r, yes in zip(c.reason, rows.tolist(), strict=True) if yes)
        metrics = {"count": float(rows.sum()), "radius": _median(c.radius[rows]), "unique": _median(c.unique_in[rows])}
        label = name[0] if name[0] == "refused" else f"{name[0]} by {name[1]}"
        records.append(_record(label, metrics | {"contraction": _median(c.rate[rows])}, notes=[reason]))
    return records


def _race(found: Examination) -> list[Record]:
    return [
        _record(
            r.name, {"converged": float(r.converged), "mean": r.mean, "p95": r.p95, "seconds": r.seconds}, r.seconds
        )
        for r in found.race
    ]


def _grades(found: Examination) -> list[Record]:
    return [
        _record(f"rtol {g.rtol:g}", {"grade p95": g.p95, "grade score": g.score, "change": g.change})
        for g in found.grades
    ]


def _spec(found: Examination, cells: list[str]) -> dict[str, Any]:
    spec = {
        "id": "check", "title": found.name or "A model under examination", "claim": sentence(found),
        "source": "settle check", "scale_name": "check",
        "scale": {"depth": found.verdict.depth, "rtol": found.tolerance.rtol, "rows": len(found.best.status),
                  "solver": repr(found.posed.solver)},
        "scale_help": {"depth": "iterations of training", "rtol": "what rows are solved to, relative",
                       "rows": "samples examined", "solver": "of the model"},
        "scaled_down": "", "overrides": {}, "cells": cells, "seeds": 1, "device": "cpu",
        "threads": torch.get_num_threads(), "tables": [asdict(t) for t in _tables(found, cells)],
        "figures": [asdict(f) for f in _figures(found)],
    }  # fmt: skip
    return json.loads(json.dumps(plain(spec)))


def _tables(found: Examination, cells: list[str]) -> list[Table]:
    certified = tuple(c for c in cells if c.startswith(("proved", "estimated", "refused")))
    return [
        Table("Samples by verdict and by status, and how fast they settle", _kinds(found), ("model",), _about(found)),
        Table("Certificates", _CERTIFIED, certified, _CERTIFIED_CAPTION),
        Table("Solvers on the same samples", _RACED, tuple(r.name for r in found.race), _race_caption(found)),
        Table(
            "What a tolerance buys, best solver",
            _GRADED if found.verdict.scores else _GRADED[:2],
            tuple(c for c in cells if c.startswith("rtol ")),
            "Against the tightest tolerance.",
        ),
    ]


_CERTIFIED = (
    Column("count", "samples", fmt=".0f"),
    Column("radius", "radius, median", fmt=".2g"),
    Column("unique", "unique within, median", fmt=".2g"),
    Column("contraction", "rate, median", fmt=".3g"),
)
_CERTIFIED_CAPTION = (
    "A fixed point lies within the radius, and no other within the second number; the rate is at most that of Picard's "
    "iteration near it. The notes hold the reasons."
)
_RACED = (
    Column("converged", "converged", fmt=".0f", better="high"),
    Column("mean", "evaluations, mean", fmt=".4g", better="low"),
    Column("p95", "95 %", fmt=".4g"),
)
_GRADED = (
    Column("grade p95", "evaluations, 95 %", fmt=".0f"),
    Column("change", "relative change of the state, 95 %", fmt=".2g"),
    Column("grade score", "score", fmt=".5g"),
)


def _kinds(found: Examination) -> tuple[Column, ...]:
    """Samples by verdict and status, then the rates."""
    rates = [(n, q, t) for n in found.rates for q, t in (("median", "median"), ("p95", "95 %"))]
    return (
        *(Column(f"verdict {n}", n, fmt=".0f") for n in found.verdict.counts()),
        *(Column(f"rows {n}", n, fmt=".0f") for n in found.solution.counts()),
        *(Column(f"{n} {q}", f"{n}, {t}", fmt=".3g") for n, q, t in rates),
    )


def _about(found: Examination) -> str:
    return (
        f"Verdicts behind the depth of {found.verdict.depth}; statuses of the model's own solver at a relative "
        f"residual of {found.tolerance.rtol:g}; factors a step by the trace, by the Jacobian at the solution, and by "
        f"the iterates (dynamic mode decomposition). {advice(found)}"
    )


def _race_caption(found: Examination) -> str:
    return f"To a relative residual of {found.tolerance.rtol:g}, {found.tolerance.max_steps} evaluations at most."


def _figures(found: Examination) -> list[Figure]:
    said, raced = found.verdict, tuple(r.name for r in found.race if r.converged)
    model = ("model",)
    course = ("residual median", "residual 5 %", "residual 95 %")
    rates = tuple(f"rate, {n}" for n in found.rates)
    depth = f"Over the samples; trained with {said.depth} iterations."
    apart = "Each sorted over the samples. The residual is no bound of the distance; the radius is."
    figures = [
        Figure("Residuals from the start to four times the depth", course, depth, rows=model),
        Figure("The task behind the depth of training", ("score",), "Larger is better.", rows=model),
        Figure("Distance to a fixed point, and residual", ("radius", "residual"), apart, rows=model),
        Figure("Factor a step", rates, "Each sorted over the samples.", rows=model),
        Figure("Evaluations by solver", ("mean",), "Mean over converged samples.", "bars", raced),
    ]
    wanted = [True, bool(said.scores), True, True, bool(raced)]
    return [figure for figure, yes in zip(figures, wanted, strict=True) if yes]


def _median(values: Tensor) -> float:
    return _quantile(values, 0.5)


def _quantile(values: Tensor, q: float) -> float:
    """Of those that are numbers; nan when there are none. Infinities count."""
    v = values.double()[~torch.isnan(values)].sort().values
    return float(v[min(len(v) - 1, round(q * (len(v) - 1)))]) if len(v) else math.nan
