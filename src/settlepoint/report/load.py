"""RunFiles: the files of one run folder, read and nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORDS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
Lines = Sequence[Mapping[str, Any]]


class ReportError(Exception):
    """A folder cannot be reported on; the message names the file."""


class ReportWriteError(ReportError):
    """The report or a figure could not be written; the results are untouched."""


@dataclass(frozen=True)
class RunFiles:
    """What lies in a run folder. lines: the newest result line of each cell and seed, in the order of the spec."""

    path: Path
    spec: Mapping[str, Any]
    sessions: Sequence[Mapping[str, Any]]
    lines: Lines
    checks: Sequence[Mapping[str, Any]]

    def of(self, cell: str) -> Lines:
        """The lines of one cell that have a result."""
        return [line for line in self.lines if line["cell"] == cell and line["error"] is None]

    def values(self, cell: str, metric: str) -> list[float]:
        """A metric of one cell, one number a seed."""
        return [number(line["metrics"][metric]) for line in self.of(cell) if metric in line["metrics"]]

    @property
    def failures(self) -> Lines:
        """The lines of cells that raised."""
        return [line for line in self.lines if line["error"] is not None]

    @property
    def missing(self) -> int:
        """How many cells and seeds have no line."""
        return len(self.spec["cells"]) * self.spec["seeds"] - len(self.lines)

    @property
    def metrics(self) -> list[str]:
        """All metrics that any cell measured, in order of appearance."""
        return list(dict.fromkeys(name for line in self.lines for name in line["metrics"]))


def read(folder: Path) -> RunFiles:
    """Read a run folder. A last line torn by a kill is left out. Raises ReportError for a folder without a run."""
    spec = _json(folder / "spec.json")
    sessions = _json(folder / "environment.json")["sessions"]
    checks = _json(folder / "checks.json")["checks"] if (folder / "checks.json").exists() else []
    return RunFiles(folder, spec, sessions, _lines(folder / "result.jsonl", spec), checks)


def number(value: Any) -> float:
    """A number as the files hold it: "nan", "inf" and "-inf" are words there."""
    return _WORDS[value] if isinstance(value, str) else float(value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{path.parent} is not the folder of a run: it has no {path.name}") from None
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from None


def _lines(path: Path, spec: Mapping[str, Any]) -> Lines:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for index, row in enumerate(text.split("\n")[:-1], start=1):
        try:
            line = json.loads(row)
            found[(line["cell"], line["seed"])] = line
        except (ValueError, TypeError, KeyError) as error:
            raise ReportError(f"line {index} of {path} is not a result: {error}") from None
    order = [(cell, seed) for cell in spec["cells"] for seed in range(spec["seeds"])]
    return [found[pair] for pair in order if pair in found]
