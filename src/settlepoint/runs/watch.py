"""Watchers: what a person sees of a run while it runs; a bar on a terminal, one line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from settlepoint.runs.record import Record


class Watcher(Protocol):
    """Is told what happens; writes to standard error only."""

    def begin(self, cell: str, seed: int) -> None:
        """A cell starts."""

    def note(self, text: str) -> None:
        """A cell says how far it is."""

    def end(self, record: Record) -> None:
        """A cell has finished and its line is on disk."""


class Silent:
    """A watcher that says nothing."""

    def begin(self, cell: str, seed: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self, record: Record) -> None:
        """Nothing."""


class Lines:
    """At most one line a minute, and one for each failure."""

    def __init__(self, title: str, total: int, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._title, self._total, self._out, self._clock = title, total, out, clock
        self._done, self._now, self._said = 0, "", clock()

    def begin(self, cell: str, seed: int) -> None:
        """A cell starts."""
        self._now = f"{cell}, seed {seed}"
        self._say()

    def note(self, text: str) -> None:
        """A cell says how far it is."""
        self._say(f": {text}")

    def end(self, record: Record) -> None:
        """A cell has finished; a failure is told at once."""
        self._done += 1
        if record.error is not None:
            self._print(f"{record.cell}, seed {record.seed} failed: {record.error}")
        self._say()

    def _say(self, more: str = "") -> None:
        if self._clock() - self._said >= 60.0:
            self._said = self._clock()
            self._print(f"{self._done}/{self._total} done; {self._now}{more}")

    def _print(self, text: str) -> None:
        print(f"{self._title}: {text}", file=self._out, flush=True)


@contextmanager
def watching(title: str, total: int) -> Iterator[Watcher]:
    """A watcher fit for standard error: a progress bar on a terminal, else lines."""
    out = sys.stderr
    if not out.isatty():
        yield Lines(title, total, out)
        return
    from settlepoint.runs.bar import bar

    with bar(title, total, out) as watcher:
        yield watcher
