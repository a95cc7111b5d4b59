"""Plan: what a run is to do, as a value; measure: one unit of it, wherever it runs."""

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
Together = Callable[[str, Sequence[int], Say], Sequence[Mapping[str, Any]]]
Unit = tuple[str, Sequence[int]]

DECIDES = ("id", "scale_name", "scale", "cells", "seeds", "device", "threads", "recorded")
"""The entries of a spec on which the numbers depend; a resumed run must agree on them."""


@dataclass(frozen=True)
class Plan:
    """spec: everything that spec.json holds, with the entries of DECIDES. work(cell, seed, say): runs one cell; it is
    sent to other processes, so it must be importable there. together(cell, seeds, say): all seeds of a cell at once,
    for an experiment that trains them side by side."""

    spec: Mapping[str, Any]
    work: Work
    together: Together | None = None

    @property
    def pairs(self) -> Sequence[tuple[str, int]]:
        """All (cell, seed), cell by cell."""
        return [(cell, seed) for cell in self.spec["cells"] for seed in range(self.spec["seeds"])]

    def units(self, pairs: Sequence[tuple[str, int]]) -> Sequence[Unit]:
        """What runs as one: each pair, or, together, all seeds of a cell of which one is missing.

        All of them again, so that a resumed run draws what an uninterrupted one draws.
        """
        if self.together is None:
            return [(cell, (seed,)) for cell, seed in pairs]
        return [(cell, tuple(range(self.spec["seeds"]))) for cell in dict.fromkeys(cell for cell, _ in pairs)]


def measure(plan: Plan, cell: str, seeds: Sequence[int], say: Say = lambda text: None) -> list[Record]:
    """Run one unit with torch's generator and thread count fixed; an exception becomes failed records.

    Seeds that ran together share the seconds in equal parts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.spec["threads"])
    cpu, wall = time.process_time(), time.perf_counter()
    found: Sequence[Mapping[str, Any]] = [{}] * len(seeds)
    error = trace = None
    try:
        with seeded(plan.spec["id"], cell, *(seeds if plan.together is None else ())):
            found = [_checked(one) for one in _outcomes(plan, cell, seeds, say)]
    except Exception as raised:
        error, trace = f"{type(raised).__name__}: {raised}", traceback.format_exc()
    finally:
        torch.set_num_threads(threads)
    cpu, wall = (time.process_time() - cpu) / len(seeds), (time.perf_counter() - wall) / len(seeds)
    shared = {"error": error, "traceback": trace, "cpu_seconds": cpu, "wall_seconds": wall}
    return [Record(cell, seed, **one, **shared) for seed, one in zip(seeds, found, strict=True)]


def _outcomes(plan: Plan, cell: str, seeds: Sequence[int], say: Say) -> Sequence[Mapping[str, Any]]:
    if plan.together is None:
        return [plan.work(cell, seed, say) for seed in seeds]
    found = plan.together(cell, seeds, say)
    if len(found) != len(seeds):
        raise ValueError(f"an experiment must give one outcome a seed, {len(seeds)}, got {len(found)}")
    return found


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
