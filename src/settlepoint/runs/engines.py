"""Engines: where the cells of a plan run; each yields records as they finish, in any order."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import Protocol

from settlepoint.runs.errors import MissingExtra, RunError
from settlepoint.runs.plan import Plan, Unit, measure
from settlepoint.runs.record import Record
from settlepoint.runs.watch import Watcher

Pairs = Sequence[tuple[str, int]]


class Engine(Protocol):
    """Runs the given pairs of a plan and yields one record each."""

    def run(self, plan: Plan, pairs: Pairs, watcher: Watcher) -> Iterator[Record]:
        """Yield the records; closing the iterator early cancels what has not started."""
        ...


@dataclass(frozen=True)
class Local:
    """This machine: one after the other in this process, or `jobs` fresh processes."""

    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise RunError(f"jobs must be at least 1, got {self.jobs}")

    def run(self, plan: Plan, pairs: Pairs, watcher: Watcher) -> Iterator[Record]:
        """See Engine."""
        return _here(plan, pairs, watcher) if self.jobs == 1 else _processes(plan, pairs, watcher, self.jobs)


@dataclass(frozen=True)
class Ray:
    """A ray cluster, or this machine when none is running; `jobs` cells at a time (extra `scale`)."""

    jobs: int = 1

    def run(self, plan: Plan, pairs: Pairs, watcher: Watcher) -> Iterator[Record]:
        """See Engine. Raises MissingExtra when ray is not installed."""
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingExtra('the engine ray needs: pip install "settlepoint[scale]"') from None
        if not ray.is_initialized():
            ray.init(num_cpus=self.jobs, include_dashboard=False, log_to_driver=False)
        remote = ray.remote(measure)
        watcher.note(f"{len(pairs)} cells on ray")
        waiting = [remote.remote(plan, cell, seeds) for cell, seeds in plan.units(pairs)]
        while waiting:
            done, waiting = ray.wait(waiting)
            for records in ray.get(done):
                yield from records


def _here(plan: Plan, pairs: Pairs, watcher: Watcher) -> Iterator[Record]:
    for cell, seeds in plan.units(pairs):
        watcher.begin(cell, seeds[0])
        yield from measure(plan, cell, seeds, watcher.note)


def _processes(plan: Plan, pairs: Pairs, watcher: Watcher, jobs: int) -> Iterator[Record]:
    """In spawned processes, for a forked torch inherits locked thread pools.

    A process that dies, killed for memory say, takes the whole pool with it; what was not finished then runs again,
    each cell in a process of its own, so that only the one that dies is a failure.
    """
    watcher.note(f"{len(pairs)} cells in {jobs} processes")
    unfinished = []
    for unit, records in _pool(plan, plan.units(pairs), jobs):
        if records is None:
            unfinished.append(unit)
        else:
            yield from records
    for cell, seeds in unfinished:
        watcher.begin(cell, seeds[0])
        for _, records in _pool(plan, [(cell, seeds)], 1):
            died = "its process died without a word; was it short of memory?"
            yield from records or [Record(cell, seed, error=died) for seed in seeds]


def _pool(plan: Plan, units: Sequence[Unit], jobs: int) -> Iterator[tuple[Unit, list[Record] | None]]:
    """Each unit with its records, None when the pool broke before it was done; leaving early ends the processes."""
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_deaf)
    try:
        futures = {pool.submit(measure, plan, cell, seeds): (cell, seeds) for cell, seeds in units}
        for future in as_completed(futures):
            broken = isinstance(future.exception(), BrokenProcessPool)
            yield futures[future], None if broken else future.result()
    except BaseException:
        for child in set(active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _deaf() -> None:
    """A worker leaves Ctrl-C to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
