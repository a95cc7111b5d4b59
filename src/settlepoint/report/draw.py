"""The figures of a run as SVG text that suits a light and a dark page, each with the table of numbers behind it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from settlepoint.report.figures import bars, canvas, columns, lines
from settlepoint.report.load import RunFiles
from settlepoint.report.series import Series, series
from settlepoint.report.style import INK


@dataclass(frozen=True)
class Drawing:
    """One drawn figure: its SVG and CSV text, empty when no cell measured what it shows."""

    title: str
    caption: str
    name: str
    svg: str
    csv: str


def drawings(run: RunFiles) -> list[Drawing]:
    """All figures of a run, in order."""
    return [_drawing(run, spec) for spec in run.spec["figures"]]


def save(run: RunFiles, found: Sequence[Drawing]) -> None:
    """Write figures/*.svg and the *.csv behind each into the run's folder."""
    folder = run.path / "figures"
    for drawing in found:
        if drawing.svg:
            folder.mkdir(exist_ok=True)
            _write(folder / f"{drawing.name}.svg", drawing.svg)
            _write(folder / f"{drawing.name}.csv", drawing.csv)


def _rc(salt: str) -> dict[Any, Any]:
    """Text as text, and every colour of the page as INK. salt: keeps the ids of two figures on a page apart."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "font.size": 10,
        "axes.unicode_minus": False,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _drawing(run: RunFiles, spec: Mapping[str, Any]) -> Drawing:
    name = re.sub(r"[^a-z0-9]+", "-", spec["title"].lower()).strip("-")
    with matplotlib.rc_context(_rc(f"{run.spec['id']} {run.spec['scale_name']} {name}")):
        figure, table = {"bars": _bars, "images": _images}.get(spec["kind"], _lines)(run, spec)
        svg = "" if figure is None else _svg(figure, f"{spec['title']}. {spec['caption']}")
    return Drawing(spec["title"], spec["caption"], name, svg, table)


def _lines(run: RunFiles, spec: Mapping[str, Any]) -> tuple[Figure | None, str]:
    found = series(run, spec)
    if not found:
        return None, ""
    figure, axes = canvas(3.9 if len(found) <= 12 else 0.24 * len(found) + 1.0)
    lines(axes, found, joined=spec["kind"] != "points")
    return figure, _series_csv(found)


def _images(run: RunFiles, spec: Mapping[str, Any]) -> tuple[Figure | None, str]:
    found = series(run, spec)
    if not found:
        return None, ""
    stacks = [entry.seeds[0][1].reshape(entry.seeds[0][0].astype(int)) for entry in found]
    rows = [
        (entry.cell, entry.curve, *map(int, place), int(value))
        for entry, stack in zip(found, stacks, strict=True)
        for place, value in zip(np.ndindex(stack.shape), stack.ravel(), strict=True)
    ]
    head = ("cell", "curve", "image", "channel", "row", "column", "level")
    return columns([entry.group for entry in found], stacks), _csv(head, rows)


def _bars(run: RunFiles, spec: Mapping[str, Any]) -> tuple[Figure | None, str]:
    cells = [cell for cell in run.spec["cells"] if not spec["rows"] or cell in spec["rows"]]
    shown = [(cell, name, v) for cell in cells for name in spec["curves"] if (v := run.values(cell, name))]
    if not shown:
        return None, ""
    several = len(spec["curves"]) > 1
    figure, axes = canvas(0.34 * len(shown) + 1.1)
    bars(axes, [f"{c}, {n}" if several else c for c, n, _ in shown], [v for _, _, v in shown], _names(run, spec))
    rows = [(cell, name, seed, value) for cell, name, v in shown for seed, value in enumerate(v)]
    return figure, _csv(("cell", "metric", "seed", "value"), rows)


def _names(run: RunFiles, spec: Mapping[str, Any]) -> str:
    """The metrics of a bar chart by the labels that the tables give them."""
    columns = {column["key"]: column for table in run.spec["tables"] for column in table["columns"]}
    names = [_with_unit(columns[key]) if key in columns else key for key in spec["curves"]]
    return ", ".join(names)


def _with_unit(column: Mapping[str, Any]) -> str:
    return f"{column['label']} ({column['unit']})" if column["unit"] else column["label"]


def _series_csv(found: Sequence[Series]) -> str:
    rows = [
        (entry.cell, entry.curve, entry.group, which, float(a), float(b))
        for entry in found
        for which, (x, y) in [*enumerate(entry.seeds), ("median", entry.median)]
        for a, b in zip(x, y, strict=True)
    ]
    return _csv(("cell", "curve", "group", "seed", "x", "y"), rows)


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()


def _svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element without ids that could meet those of another, in the colours of the page."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, sans-serif", text)
    text = text.replace(INK, "currentColor")
    label = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
