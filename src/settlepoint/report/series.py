"""Series: the curves of all seeds of a cell, and their median, ready to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from settlepoint.report.load import RunFiles, number

Points = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Series:
    """One legend entry. group: what decides its colour; seeds: a curve a seed; median: over the seeds."""

    label: str
    group: str
    cell: str
    curve: str
    seeds: Sequence[Points]
    median: Points
    labels: tuple[str, str]
    log_y: bool


def series(run: RunFiles, spec: Mapping[str, Any]) -> list[Series]:
    """The series of a figure: one a cell, curve name and group, in the order of the cells."""
    cells = [cell for cell in run.spec["cells"] if not spec["rows"] or cell in spec["rows"]]
    found = [entry for cell in cells for name in spec["curves"] if (entry := _one(run, cell, name)) is not None]
    return _labelled(_across(found) if spec["kind"] == "across" else found, len(spec["curves"]))


def _one(run: RunFiles, cell: str, name: str) -> Series | None:
    curves = [line["curves"][name] for line in run.of(cell) if name in line["curves"]]
    curves = [curve for curve in curves if curve["x"]]
    if not curves:
        return None
    first = curves[0]
    seeds = [(_array(curve["x"]), _array(curve["y"])) for curve in curves]
    labels = (first.get("x_label", ""), first.get("y_label", name))
    group = first.get("group") or cell
    return Series(group, group, cell, name, seeds, median(seeds), labels, bool(first.get("log_y")))


def _across(found: Sequence[Series]) -> list[Series]:
    """One series a group and curve, the points of all its cells in order of x."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for entry in found:
        groups.setdefault((entry.group, entry.curve), []).append(entry)
    return [_joined(entries) for entries in groups.values()]


def _joined(entries: Sequence[Series]) -> Series:
    count = max(len(entry.seeds) for entry in entries)
    seeds = [_sorted([entry.seeds[k] for entry in entries if k < len(entry.seeds)]) for k in range(count)]
    return replace(entries[0], seeds=seeds, median=_sorted([entry.median for entry in entries]))


def _sorted(parts: Sequence[Points]) -> Points:
    x, y = (np.concatenate([part[axis] for part in parts]) for axis in (0, 1))
    order = np.argsort(x, kind="stable")
    return x[order], y[order]


def _labelled(found: Sequence[Series], names: int) -> list[Series]:
    """Labels that tell the entries apart: the group, with cell or curve added where it is not enough."""
    if names > 1:
        found = [
            replace(entry, label=entry.group if entry.group == entry.curve else f"{entry.group}, {entry.curve}")
            for entry in found
        ]
    count = Counter(entry.label for entry in found)
    return [replace(e, label=f"{e.label} ({e.cell})") if count[e.label] > 1 else e for e in found]


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array([number(value) for value in values], dtype=float)


def median(seeds: Sequence[Points]) -> Points:
    """The median over seeds at every x that occurs, as long as at least half of the seeds have begun and not ended.

    Between its points and after its end a seed keeps its last value, so that a seed that has settled still counts.
    """
    if len(seeds) == 1:
        return seeds[0]
    grid = np.unique(np.concatenate([x for x, _ in seeds]))
    running = sum((grid >= x.min()) & (grid <= x.max()) for x, _ in seeds)
    table = np.stack([_held(x, y, grid) for x, y in seeds])
    shown = (2 * running >= len(seeds)) & np.isfinite(table).any(axis=0)
    return grid[shown], np.nanmedian(table[:, shown], axis=0)


def _held(x: np.ndarray, y: np.ndarray, grid: np.ndarray) -> np.ndarray:
    order = np.argsort(x, kind="stable")
    index = np.searchsorted(x[order], grid, side="right") - 1
    return np.where(index >= 0, y[order][np.maximum(index, 0)], np.nan)
