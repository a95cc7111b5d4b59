"""The tables and checks of a run for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from settlepoint.report.load import RunFiles
from settlepoint.report.page import measured_text, verdict
from settlepoint.report.tables import Sheet, sheets

_COLOURS = {"good": "green", "bad": "red", "warn": "yellow", "best": "bold", "failed": "red", "paper": "dim", "": ""}


def show(run: RunFiles, console: Console) -> None:
    """Print every table, every check and the verdict."""
    for sheet in sheets(run):
        console.print(_table(sheet))
    if run.checks:
        console.print(_checks(run))
    said = verdict(run)
    console.print(Text(said["text"], style=f"bold {_COLOURS[said['kind']]}"))
    if said["advice"]:
        console.print(Text(said["advice"]))


def _table(sheet: Sheet) -> Table:
    table = _empty(sheet.title, sheet.caption)
    table.add_column("Cell")
    for head in sheet.heads:
        table.add_column(Text(head), justify="right")
    for name, entries in sheet.rows:
        table.add_row(Text(name), *(Text(entry.text, style=_COLOURS[entry.kind]) for entry in entries))
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
        title=Text(title),
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        box=None,
    )
