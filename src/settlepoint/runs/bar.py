"""The progress bar of a run on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from settlepoint.runs.record import Record


class Bar:
    """Shows the cell at work and how many are done; failures scroll by above the bar."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(escape(title), total=total, what="")
        self._cell = ""

    def begin(self, cell: str, seed: int) -> None:
        """A cell starts."""
        self._cell = f"{cell}, seed {seed}"
        self._progress.update(self._task, what=escape(self._cell))

    def note(self, text: str) -> None:
        """A cell says how far it is."""
        self._progress.update(self._task, what=escape(f"{self._cell}: {text}" if self._cell else text))

    def end(self, record: Record) -> None:
        """A cell has finished."""
        if record.error is not None:
            self._progress.console.print(f"[red]failed[/red] {escape(f'{record.cell}, seed {record.seed}')}")
            self._progress.console.print(escape(record.error), style="dim")
        self._progress.advance(self._task)


@contextmanager
def bar(title: str, total: int, out: TextIO) -> Iterator[Bar]:
    """A live bar on `out`, gone from the screen's last line when the block ends."""
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    more = (TimeRemainingColumn(), TextColumn("[dim]{task.fields[what]}"))
    with Progress(*columns, *more, console=Console(file=out), transient=True) as progress:
        yield Bar(progress, title, total)
