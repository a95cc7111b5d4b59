"""What `learn.tune` found, as the columns, curves and run folder from which reports are made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from settlepoint.experiments.results import Check
from settlepoint.experiments.show import Column, Figure, Table, curve
from settlepoint.learn import Tuned
from settlepoint.runs import Record, RunFolder, plain
from settlepoint.runs.environment import environment

_SOLVING = (
    Column("mean", "mean", fmt=".2f", better="low"),
    Column("median", "median", fmt=".0f"),
    Column("p90", "90th percentile", fmt=".0f"),
    Column("worst", "worst", fmt=".0f"),
)
_STEPPING = (
    Column("gain", "gain", fmt=".3g", better="high"),
    Column("better", "share better", fmt=".3f", better="high"),
    Column("median", "median error", fmt=".2g", better="low"),
    Column("p90", "90th percentile", fmt=".2g"),
    Column("worst", "worst", fmt=".2g"),
    Column("evaluations", "evaluations", fmt=".0f"),
    Column("gain_at_twice_the_steps", "gain, twice the steps", fmt=".3g"),
)
_ALL = (
    Column("failures", "unsolved", fmt=".0f", better="low"),
    Column("seconds", "CPU, solving", "s", fmt=".2g"),
    Column("training_seconds", "CPU, training", "s", fmt=".2g"),
)
_BEYOND = 3.0  # curves end at so many times the least 90th percentile, so that slow contenders do not squeeze the plot


def columns(tuned: Tuned) -> Sequence[Column]:
    """Those of the table of all contenders."""
    return (*(_STEPPING if steps(tuned) else _SOLVING), *_ALL)


def steps(tuned: Tuned) -> bool:
    """Whether integrators were raced, by their errors."""
    return "gain" in tuned.table[0]


def guard(tuned: Tuned) -> Mapping[str, float] | None:
    """The bound of the guard on the held-out problems; None where nothing learned was returned."""
    return tuned.evidence.get("guard_on_held_out") if tuned.worth else None


def solved(tuned: Tuned) -> dict[str, dict[str, Any]]:
    """Name to the share of the held-out problems solved against evaluations, for all contenders that solved any."""
    rows = [row for row in tuned.table if row.get("cumulative")]
    reach = [float(row["p90"]) for row in rows if math.isfinite(row["p90"])]
    limit = _BEYOND * min(reach, default=math.inf)
    found = {row["name"]: [(x, y) for x, y in row["cumulative"] if x <= limit] for row in rows}
    return {name: _stairs(points, name, limit) for name, points in found.items() if points}


def _stairs(points: Sequence[tuple[float, float]], name: str, limit: float) -> dict[str, Any]:
    xs, ys = [points[0][0]], [0.0]
    for x, y in points:
        xs, ys = [*xs, x, x], [*ys, ys[-1], y]
    if math.isfinite(limit):
        xs, ys = [*xs, limit], [*ys, ys[-1]]
    return curve(xs, ys, y_label="share of the held-out problems solved", group=name)


def checks(tuned: Tuned) -> list[Check]:
    """What must hold of the solver that is returned."""
    rows = {row["name"]: row for row in tuned.table}
    classical = min(row["failures"] for row in tuned.table if row["kind"] == "classical")
    unsolved = rows[tuned.name]["failures"]
    found = [Check.at_most("unsolved by the winner", unsolved, classical, "the fewest of any classical contender")]
    bound = guard(tuned)
    if bound is not None:
        text = "share of the problems on which the winner costs at most max(1.1x, + one learned step) of the runner-up"
        found += [Check.at_least("within the bound of the guard", bound["within"], 1.0, text)]
        found += [Check.at_least("within 1.1x of the runner-up", bound["close"], 0.95, "share of the problems")]
    return found


def write_folder(tuned: Tuned, folder: Path, seconds: float) -> Path:
    """A run folder with a cell a contender, which `report.write` turns into a page. seconds: that all of it took.

    A run that lies there already is replaced, and nothing else. Raises RunError or WriteError.
    """
    run = RunFolder(folder)
    run.create()
    run.clear()
    run.write_json("spec.json", _spec(tuned))
    run.write_json("environment.json", {"sessions": [environment(torch.get_num_threads())]})
    keys = [column.key for column in columns(tuned)]
    curves = solved(tuned)
    for k, row in enumerate(tuned.table):
        cpu = float(row["seconds"]) + float(row["training_seconds"])
        name = row["name"]
        metrics = {key: float(row[key]) for key in keys}
        drawn = {"solved": curves[name]} if name in curves else {}
        notes = [row["note"]] * bool(row["note"]) + _left_out(tuned) * (k == 0)
        run.append(Record(name, 0, metrics, drawn, notes, None, None, cpu, 0.0 if k else seconds))  # the sum is shown
    run.write_json("checks.json", {"checks": [asdict(check) for check in checks(tuned)]})
    return folder


def _left_out(tuned: Tuned) -> list[str]:
    return [f"left out: {text}" for text in tuned.evidence.get("left_out", ())]


def _spec(tuned: Tuned) -> dict[str, Any]:
    evidence, name = tuned.evidence, tuned.evidence["family"]["name"]
    table = Table("All contenders on held-out problems", columns(tuned), caption=caption(tuned))
    bars = Figure("Error of Kutta-3 over this one's, at equal work", ("gain",), "Geometric means.", "bars")
    figure = bars if steps(tuned) else Figure("Share solved", ("solved",), _FIGURE)
    settings = {key: text(value) for key, value in evidence["family"].items() if key != "name"}
    spec = {
        "id": f"tune-{name}",
        "title": f"The cheapest solver for {name}",
        "claim": tuned.verdict,
        "source": "settle tune",
        "scale_name": "tune",
        "scale": {**settings, **evidence["budget"], "seed": evidence["seed"], "torch": evidence["torch"]},
        "scale_help": {},
        "scaled_down": "",
        "overrides": {},
        "cells": [row["name"] for row in tuned.table],
        "seeds": 1,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "tables": [asdict(table)],
        "figures": [asdict(figure)],
    }
    return json.loads(json.dumps(plain(spec)))


_FIGURE = (
    "Share of the held-out problems that a contender has solved after so many evaluations of P; "
    f"the axis ends at {_BEYOND:g} times the smallest 90th percentile."
)


def caption(tuned: Tuned) -> str:
    """What the columns mean."""
    if steps(tuned):
        return (
            f"Errors after {tuned.evidence['steps']} steps of Kutta-3, at {tuned.evidence['evaluations']} evaluations "
            "for everyone. gain: error of Kutta-3 over this one's, geometric mean; share better: of the problems, than "
            "Kutta-3."
        )
    tolerance = tuned.evidence["tolerance"]
    return f"Evaluations of P for a problem until |P(x) - x| <= {tolerance:g}; the mean is that of the solved ones."


def text(value: object) -> str:
    """A setting for a reader, cut where it is long."""
    shown = str(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
