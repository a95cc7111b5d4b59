"""Engines: where the cells of a plan run; each yields records as they finish, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol

from settlepoint.runs.errors import MissingExtra, RunError
from settlepoint.runs.plan import Plan, measure
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
        waiting = [remote.remote(plan, cell, seed) for cell, seed in pairs]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)


def _here(plan: Plan, pairs: Pairs, watcher: Watcher) -> Iterator[Record]:
    for cell, seed in pairs:
        watcher.begin(cell, seed)
        yield measure(plan, cell, seed, watcher.note)


def _processes(plan: Plan, pairs: Pairs, watcher: Watcher, jobs: int) -> Iterator[Record]:
    """Spawned, not forked: a forked torch inherits locked thread pools."""
    watcher.note(f"{len(pairs)} cells in {jobs} processes")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[Record], tuple[str, int]] = {
            pool.submit(measure, plan, cell, seed): (cell, seed) for cell, seed in pairs
        }
        try:
            for future in as_completed(futures):
                yield _answer(future, *futures[future])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _answer(future: Future[Record], cell: str, seed: int) -> Record:
    """The record of a worker; a worker that died (killed for memory, say) becomes a failed record."""
    error = future.exception()
    return future.result() if error is None else Record(cell, seed, error=f"{type(error).__name__}: {error}")
