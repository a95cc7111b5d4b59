"""Tables of a run as rows of text: mean ± std over seeds, the paper beside ours, evaluations and seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from settlepoint.report.load import RunFiles, number


@dataclass(frozen=True)
class Entry:
    """One cell of a table as it is printed. kind: "", "best", "paper", "failed" or "command"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table ready to print: one head a column, and rows of (name, entries)."""

    title: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Entry]]]


EVALS = {"key": "evals", "label": "Evaluations", "unit": "", "fmt": ",.0f", "paper": {}, "better": ""}
SECONDS = {"key": "cpu_seconds", "label": "CPU", "unit": "s", "fmt": ".3f", "paper": {}, "better": ""}


def sheets(run: RunFiles) -> list[Sheet]:
    """The declared tables; without any, one table of all metrics."""
    return [_sheet(run, spec) for spec in run.spec["tables"]] or [everything(run)]


def everything(run: RunFiles) -> Sheet:
    """One table of every metric that was measured."""
    columns = [_column(name) for name in run.metrics if name != "evals"]
    return _sheet(run, {"title": "All metrics", "caption": "", "rows": [], "columns": columns})


def _column(name: str) -> dict[str, Any]:
    return {"key": name, "label": name, "unit": "", "fmt": ".4g", "paper": {}, "better": ""}


def _sheet(run: RunFiles, spec: Mapping[str, Any]) -> Sheet:
    shown = {column["key"] for column in spec["columns"]}
    work = [c for c in (EVALS, SECONDS) if c["key"] not in shown and (c is SECONDS or "evals" in run.metrics)]
    columns = [*_shown(run, spec["columns"]), *work]
    cells = [cell for cell in (spec["rows"] or run.spec["cells"]) if cell in run.spec["cells"]]
    heads = [head for column in columns for head in _heads(column)]
    best = {column["key"]: _best(run, cells, column) for column in columns}
    rows = [(cell, [*_row(run, cell, columns, best), *_command(run, spec, cell)]) for cell in cells]
    return Sheet(spec["title"], spec["caption"], [*heads, "Seeds", *(["Command"] if spec.get("command") else [])], rows)


def _command(run: RunFiles, spec: Mapping[str, Any], cell: str) -> list[Entry]:
    """How to run the row alone, for a table that says so."""
    if not spec.get("command"):
        return []
    words = {"cell": cell, "scale": run.spec["scale_name"], "seeds": run.spec["seeds"]}
    return [Entry(spec["command"].format(**words), "command")]


def _shown(run: RunFiles, columns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The columns without those that a complete run was too small to measure."""
    if run.failures or run.missing:
        return list(columns)
    return [column for column in columns if column["key"] in (*run.metrics, "cpu_seconds") or column["paper"]]


def _heads(column: Mapping[str, Any]) -> list[str]:
    label = f"{column['label']} ({column['unit']})" if column["unit"] else column["label"]
    return [label, "Paper"] if column["paper"] else [label]


def _row(run: RunFiles, cell: str, columns: Sequence[Mapping[str, Any]], best: Mapping[str, str | None]) -> list[Entry]:
    entries = [entry for column in columns for entry in _entries(run, cell, column, best[column["key"]] == cell)]
    done, wanted = len(run.of(cell)), run.spec["seeds"]
    return [*entries, Entry(str(done)) if done == wanted else Entry(f"{done} of {wanted}", "failed")]


def _entries(run: RunFiles, cell: str, column: Mapping[str, Any], best: bool) -> list[Entry]:
    values = measured(run, cell, column["key"])
    failed = not values and any(line["cell"] == cell for line in run.failures)
    ours = Entry("failed", "failed") if failed else Entry(summary(values, column["fmt"]), "best" if best else "")
    if not column["paper"]:
        return [ours]
    paper = column["paper"].get(cell)
    text = paper if isinstance(paper, str) else "" if paper is None else one(number(paper), column["fmt"])
    return [ours, Entry(text, "paper")]


def measured(run: RunFiles, cell: str, key: str) -> list[float]:
    """A metric or, by its name, the CPU seconds of a cell, one number a seed."""
    if key == "cpu_seconds" and key not in run.metrics:
        return [number(line["cpu_seconds"]) for line in run.of(cell)]
    return run.values(cell, key)


def _best(run: RunFiles, cells: Sequence[str], column: Mapping[str, Any]) -> str | None:
    means = {cell: fmean(v) for cell in cells if (v := measured(run, cell, column["key"]))}
    means = {cell: mean for cell, mean in means.items() if math.isfinite(mean)}
    if not column["better"] or len(means) < 2:
        return None
    sign = 1.0 if column["better"] == "high" else -1.0
    return max(means, key=lambda cell: sign * means[cell])


def summary(values: Sequence[float], fmt: str) -> str:
    """mean ± std (n - 1) of the seeds; one number alone; a dash for none.

    >>> summary([96.0, 97.0, 98.0], ".1f"), summary([0.5], ".2f"), summary([], ".2f")
    ('97.0 ± 1.0', '0.50', '–')
    """
    if not values:
        return "–"
    if len(values) == 1 or not all(math.isfinite(value) for value in values):
        return one(fmean(values), fmt)
    return f"{one(fmean(values), fmt)} ± {one(stdev(values), fmt)}"


def one(value: float, fmt: str = ".4g") -> str:
    """One number for a reader.

    >>> one(float("inf")), one(float("nan")), one(1234.5, ",.0f")
    ('∞', 'nan', '1,234')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return "nan" if math.isnan(value) else format(value, fmt)
