"""What `examine` found as a run folder, from which the report is made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from settlepoint.experiments.check_words import advice, checks, median, plain_name, quantile, sentence
from settlepoint.experiments.checking import Examination
from settlepoint.experiments.show import Column, Figure, Table, curve
from settlepoint.runs import Record, RunFolder, plain
from settlepoint.runs.environment import environment

_SORTED = "share of the samples (%)"


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
    metrics["residual at the depth"] = median(found.verdict.residual[found.verdict.depth])
    for name, v in found.rates.items():
        metrics |= {f"{name} median": median(v), f"{name} p95": quantile(v, 0.95)}
    spent = sum(found.seconds.get(part, 0.0) for part in _LOOKING)
    return _record("model", metrics, spent, curves=curves(found), notes=[advice(found), *found.told], wall=seconds)


_LOOKING = ("the first pass", "behind the depth of training", "rates")


def curves(found: Examination) -> dict[str, Any]:
    """What the figures show, one curve a name."""
    said = found.verdict
    drawn = {f"residual {name}": _course(said.residual, name, q) for name, q in _SHARES.items()}
    if levels := [y for drawn_one in drawn.values() for y in drawn_one["y"]]:
        drawn["training depth"] = _residuals([said.depth] * 2, [min(levels), max(levels)], "training depth")
    if said.scores:
        drawn["score"] = curve(said.multiples, said.scores, x_label="multiple of the training depth", y_label="score")
    drawn["radius"] = _sorted(found.certificate.radius, "radius")
    drawn["residual"] = _sorted(found.best.residual.double(), "residual")
    for name, v in found.rates.items():
        drawn[name] = _sorted(v, name, "factor a step", log_y=False)
    return drawn


_SHARES = {"median": 0.5, "5 %": 0.05, "95 %": 0.95}


def _course(residual: Tensor, name: str, q: float) -> dict[str, Any]:
    """A quantile over the samples after 0, 1, ... steps, as long as it is a number above 0."""
    points = enumerate(quantile(row, q) for row in residual)
    kept = [(k, v) for k, v in points if math.isfinite(v) and v > 0]
    return _residuals([k for k, _ in kept], [v for _, v in kept], f"residual {name}")


def _residuals(x: Sequence[float], y: Sequence[float], group: str) -> dict[str, Any]:
    return curve(x, y, x_label="iterations", y_label="residual", log_y=True, group=group)


def _sorted(values: Tensor, group: str, y_label: str = "distance, residual", *, log_y: bool = True) -> dict[str, Any]:
    """Values from small to large in five digits, those that are finite and can be shown."""
    v = values.detach().cpu()
    v = v[torch.isfinite(v) & ((v > _NOTHING) | (not log_y))].sort().values
    share = [100 * (i + 1) / len(values) for i in range(len(v))]
    rounded = [float(f"{one:.5g}") for one in v.tolist()]  # equal values shall look equal
    return curve(share, rounded, x_label=_SORTED, y_label=y_label, log_y=log_y, group=group)


_NOTHING = 1e-100  # distances below it are exact zeros, rounded outward


def _certificates(found: Examination) -> list[Record]:
    """One a kind and method; all refusals together."""
    c = found.certificate
    labels = [k if k == "refused" else f"{k} by {m}" for k, m in zip(c.kind, c.method, strict=True)]
    spent, records = found.seconds.get("certificates", 0.0), list[Record]()
    for label in dict.fromkeys(labels):
        rows = torch.tensor([one == label for one in labels])
        values = {"radius": c.radius, "unique": c.unique_in, "contraction": c.rate}
        metrics = {"count": float(rows.sum())} | {name: median(v.cpu()[rows]) for name, v in values.items()}
        notes = dict.fromkeys(r for r, one in zip(c.reason, labels, strict=True) if one == label)
        records.append(_record(label, metrics, 0.0 if records else spent, notes=list(notes)[:_REASONS]))
    return records


_REASONS = 8  # of one kind that the notes hold


def _race(found: Examination) -> list[Record]:
    return [
        _record(
            r.name,
            {"converged": float(r.converged), "mean": r.mean, "p95": r.p95},
            r.seconds,
            notes=[r.raised] if r.raised else [],
        )
        for r in found.race
    ]


def _grades(found: Examination) -> list[Record]:
    return [
        _record(f"rtol {g.rtol:g}", {"grade p95": g.p95, "grade score": g.score, "change": g.change}, g.seconds)
        for g in found.grades
    ]


def _spec(found: Examination, cells: list[str]) -> dict[str, Any]:
    spec = {
        "id": "check", "title": found.name or "A model under examination", "claim": sentence(found),
        "source": "settle check", "scale_name": "sample",
        "scale": {"depth": found.verdict.depth, "rtol": found.tolerance.rtol, "rows": len(found.best.status),
                  "solver": repr(found.posed.solver)},
        "scale_help": {"depth": "iterations of training", "rtol": "what rows are solved to, relative",
                       "rows": "samples examined", "solver": "of the model"},
        "scaled_down": "", "overrides": {}, "cells": cells, "seeds": 1, "device": str(found.best.residual.device),
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
            f"What a tolerance buys, by {plain_name(found.recommended.name)}",
            _GRADED if any(math.isfinite(g.score) for g in found.grades) else _GRADED[:2],
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
    "A fixed point lies within the radius, and no other within the second number. The rate is that of Picard's "
    "iteration near it, from above; beyond 1 nothing says that Picard finds it. The notes hold the reasons."
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
        Column("residual at the depth", "residual at the depth, median", fmt=".1e"),
        *(Column(f"{n} {q}", f"{n}, {t}", fmt=".3g") for n, q, t in rates),
    )


def _about(found: Examination) -> str:
    return (
        f"Verdicts behind the depth of {found.verdict.depth}; statuses of the model's own solver at a relative "
        f"residual of {found.tolerance.rtol:g}; factors a step by the trace, by the Jacobian at the solution "
        f"(Arnoldi), and by iterates on the way (mode decomposition). {advice(found)}"
    )


def _race_caption(found: Examination) -> str:
    return f"To a relative residual of {found.tolerance.rtol:g}, {found.tolerance.max_steps} evaluations at most."


def _figures(found: Examination) -> list[Figure]:
    said, raced = found.verdict, tuple(r.name for r in found.race if r.converged)
    model = ("model",)
    course = (*(f"residual {name}" for name in _SHARES), "training depth")
    rates = tuple(found.rates)
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
