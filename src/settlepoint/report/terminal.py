"""The tables and checks of a run for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from settlepoint.report.load import RunFiles
from settlepoint.report.page import measured_text, verdict
from settlepoint.report.tables import Sheet, sheets

_COLOURS = {
    "good": "green",
    "bad": "red",
    "warn": "yellow",
    "best": "bold",
    "failed": "red",
    "paper": "dim",
    "command": "dim",
    "": "",
}
_GAP = 2  # characters between two columns


def show(run: RunFiles, console: Console) -> None:
    """Print every table, every check and the verdict."""
    for sheet in sheets(run):
        for table in _tables(sheet, console.width):
            console.print(table)
    if run.checks:
        console.print(_checks(run))
    said = verdict(run)
    console.print(Text(said["text"], style=f"bold {_COLOURS[said['kind']]}"))
    if said["advice"]:
        console.print(Text(said["advice"]))


def _tables(sheet: Sheet, width: int) -> Iterator[Table]:
    """The sheet in as many tables, one below the other, as it takes to cut no number short."""
    columns = list(range(len(sheet.heads)))
    names = max(len(name) for name in ("Cell", *(n for n, _ in sheet.rows)))
    first = True
    while columns or first:
        count = _fitting([_width(sheet, i) for i in columns], width - names - _GAP)
        shown, columns = columns[:count], columns[count:]
        yield _table(sheet, shown, title=sheet.title if first else "", caption="" if columns else sheet.caption)
        first = False


def _fitting(widths: list[int], room: int) -> int:
    """How many of the columns find room; one at least."""
    for count, width in enumerate(widths):
        room -= width + _GAP
        if room < 0:
            return max(1, count)
    return len(widths)


def _width(sheet: Sheet, i: int) -> int:
    """Characters that column i needs: its longest entry, or the longest word of its head."""
    words = sheet.heads[i].split() or [""]
    return max(len(text) for text in (*words, *(entries[i].text for _, entries in sheet.rows)))


def _table(sheet: Sheet, columns: list[int], *, title: str, caption: str) -> Table:
    table = _empty(title, caption)
    table.add_column("Cell", width=max(len(name) for name in ("Cell", *(n for n, _ in sheet.rows))))
    for i in columns:
        table.add_column(Text(sheet.heads[i]), justify="right", width=_width(sheet, i))
    for name, entries in sheet.rows:
        table.add_row(Text(name), *(Text(entries[i].text, style=_COLOURS[entries[i].kind]) for i in columns))
    return table


def _checks(run: RunFiles) -> Table:
    table = _empty("Checks", "")
    table.add_column("Check")
    table.add_column("Measured", justify="right")
    table.add_column("Target", justify="right")
    table.add_column("Verdict")
    for check in run.checks:
        word = Text("passed", style="green") if check["passed"] else Text("failed", style="red")
        detail = f"\n{check['detail']}" if check["detail"] else ""
        name = Text(check["name"]) + Text(detail, style="dim")
        table.add_row(name, measured_text(check["measured"]), Text(str(check["target"])), word)
    return table


def _empty(title: str, caption: str) -> Table:
    return Table(
        title=Text(title) if title else None,
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        box=None,
    )
