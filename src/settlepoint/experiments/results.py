"""Results: the records of a run as an experiment's checks read them; Check: one claim, measured against its target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from settlepoint.runs import Record


@dataclass(frozen=True)
class Check:
    """One claim of an experiment: what was measured, what was promised, whether it holds."""

    name: str
    passed: bool
    measured: float | str
    target: float | str
    detail: str = ""

    @classmethod
    def at_least(cls, name: str, measured: float, target: float, detail: str = "") -> Check:
        """measured >= target; nan fails.

        >>> Check.at_least("accuracy", 97.0, 96.0).passed, Check.at_least("accuracy", float("nan"), 96.0).passed
        (True, False)
        """
        return cls(name, bool(measured >= target), float(measured), f"≥ {target:g}", detail)

    @classmethod
    def at_most(cls, name: str, measured: float, target: float, detail: str = "") -> Check:
        """measured <= target; nan fails."""
        return cls(name, bool(measured <= target), float(measured), f"≤ {target:g}", detail)

    @classmethod
    def within(cls, name: str, measured: float, low: float, high: float, detail: str = "") -> Check:
        """low <= measured <= high; nan fails."""
        return cls(name, bool(low <= measured <= high), float(measured), f"{low:g} to {high:g}", detail)


@dataclass(frozen=True)
class Results:
    """All records of a run, in order of cells and seeds. scale_name: "smoke", "cpu", ...; scale: its fields."""

    scale_name: str
    scale: Any
    records: Sequence[Record]

    @property
    def cells(self) -> list[str]:
        """The cells of which at least one seed finished, in order."""
        return list(dict.fromkeys(record.cell for record in self.records if record.error is None))

    def of(self, cell: str) -> list[Record]:
        """The records of one cell, one a seed, without those that failed."""
        return [record for record in self.records if record.cell == cell and record.error is None]

    def values(self, cell: str, metric: str) -> list[float]:
        """The metric of one cell, one number a seed; empty when it was never measured."""
        return [float(record.metrics[metric]) for record in self.of(cell) if metric in record.metrics]

    def mean(self, cell: str, metric: str) -> float:
        """The mean over seeds, nan when there is none (so that a check on it fails)."""
        values = self.values(cell, metric)
        return fmean(values) if values else math.nan

    def total(self, metric: str) -> float:
        """The sum over all cells and seeds in which the metric was measured."""
        return math.fsum(value for cell in self.cells for value in self.values(cell, metric))


def above_trivial(
    results: Results, metric: str, trivial: float | str, *, predictor: str, lower: bool = False
) -> list[Check]:
    """One check a cell: the mean of `metric` is better than that of the trivial predictor.

    trivial: its number, or the name of the metric that holds it. predictor: what it is, such as "majority class".
    lower: smaller is better (an error instead of an accuracy). Cells without the metric, or
    without that of the trivial predictor, such as its own row, are not compared.
    """
    asked = (metric, trivial) if isinstance(trivial, str) else (metric,)
    cells = [cell for cell in results.cells if all(results.values(cell, name) for name in asked)]
    return [_beats(results, cell, metric, trivial, predictor, lower) for cell in cells]


def _beats(results: Results, cell: str, metric: str, trivial: float | str, predictor: str, lower: bool) -> Check:
    measured = results.mean(cell, metric)
    bar = results.mean(cell, trivial) if isinstance(trivial, str) else trivial
    passed = measured < bar if lower else measured > bar
    name = f"{cell}: {metric} better than the {predictor}"
    return Check(name, bool(passed), measured, f"{'<' if lower else '>'} {bar:g}")
