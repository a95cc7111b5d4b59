"""What a person sees of a run: at most one line a minute, and failures at once."""

from __future__ import annotations

import io

from settlepoint.runs import Record
from settlepoint.runs.bar import bar
from settlepoint.runs.watch import Lines, Silent, Watcher


def drive(watcher: Watcher, clock: list[float]) -> None:
    for seed in range(4):
        clock[0] += 25.0
        watcher.begin("cell", seed)
        watcher.note("half")
        watcher.end(Record("cell", seed, error="boom [x]" if seed == 3 else None))


def test_one_line_a_minute_and_failures_at_once() -> None:
    out, clock = io.StringIO(), [0.0]
    drive(Lines("toy", 4, out, lambda: clock[0]), clock)
    assert out.getvalue().splitlines() == ["toy: 2/4 done; cell, seed 2", "toy: cell, seed 3 failed: boom [x]"]


def test_the_bar_shows_failures_and_takes_any_text() -> None:
    out = io.StringIO()
    with bar("toy [bold]", 4, out) as watcher:
        drive(watcher, [0.0])
    assert "boom [x]" in out.getvalue()


def test_silence() -> None:
    drive(Silent(), [0.0])
