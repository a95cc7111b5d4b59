"""How far a contest is: a bar on a terminal, one line a minute elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Report = Callable[[str, int, int], None]  # what is at work, how many are done, of how many


@contextmanager
def live(title: str) -> Iterator[Report]:
    """A report fit for standard error."""
    if not sys.stderr.isatty():
        yield lines(title, lambda text: print(text, file=sys.stderr, flush=True))
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    what = TextColumn("[dim]{task.fields[what]}")
    with Progress(*columns, what, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(escape(title), total=None, what="")
        yield lambda text, done, of: progress.update(task, completed=done, total=of, what=escape(text))


def lines(title: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Report:
    """A report that says at most one line a minute."""
    said = clock()

    def report(what: str, done: int, of: int) -> None:
        nonlocal said
        if clock() - said >= 60.0:
            said = clock()
            say(f"{title}: {what} ({done} of {of})")

    return report
