"""Plan: what a run is to do, as a value; measure: one cell and seed of it, wherever it runs."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from settlepoint.runs.record import Record
from settlepoint.runs.seeds import seeded

Say = Callable[[str], None]
Work = Callable[[str, int, Say], Mapping[str, Any]]

DECIDES = ("id", "scale_name", "scale", "cells", "seeds", "device", "threads")
"""The entries of a spec on which the numbers depend; a resumed run must agree on them."""


@dataclass(frozen=True)
class Plan:
    """spec: everything that spec.json holds, with the entries of DECIDES. work(cell, seed, say): runs one cell; it is
    sent to other processes, so it must be importable there."""

    spec: Mapping[str, Any]
    work: Work

    @property
    def pairs(self) -> Sequence[tuple[str, int]]:
        """All (cell, seed), cell by cell."""
        return [(cell, seed) for cell in self.spec["cells"] for seed in range(self.spec["seeds"])]


def measure(plan: Plan, cell: str, seed: int, say: Say = lambda text: None) -> Record:
    """Run one cell with torch's generator and thread count fixed; an exception becomes a failed record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.spec["threads"])
    cpu, wall = time.process_time(), time.perf_counter()
    found: Mapping[str, Any] = {}
    error = trace = None
    try:
        with seeded(plan.spec["id"], cell, seed):
            found = _checked(plan.work(cell, seed, say))
    except Exception as raised:
        error, trace = f"{type(raised).__name__}: {raised}", traceback.format_exc()
    finally:
        torch.set_num_threads(threads)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Record(cell, seed, **found, error=error, traceback=trace, cpu_seconds=cpu, wall_seconds=wall)


def _checked(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outcome as it will be read back from disk. Raises ValueError for what a record cannot hold."""
    unknown = set(found) - {"metrics", "curves", "notes"}
    if unknown:
        raise ValueError(f"an outcome holds metrics, curves and notes, got {sorted(unknown)}")
    read = Record.from_line(Record("", 0, **found).to_line())
    for name, value in read.metrics.items():
        if not isinstance(value, int | float):
            raise ValueError(f"the metric {name!r} must be a number, got {value!r:.60}")
    return {"metrics": read.metrics, "curves": read.curves, "notes": read.notes}
