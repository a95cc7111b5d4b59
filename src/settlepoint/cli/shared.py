"""What the commands share: options, refusals in one line, tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from settlepoint import data as sets
from settlepoint import report as reports
from settlepoint.experiments import UsageError
from settlepoint.experiments.launch import INCOMPLETE, USAGE, Request
from settlepoint.runs import RunError, WriteError

HELP = Request.help()

Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=HELP["settings"])]
DataDir = Annotated[Path | None, typer.Option(help=HELP["data_dir"])]
Json = Annotated[bool, typer.Option("--json", help="machine-readable results on standard output")]


@contextmanager
def refusals(data_code: int = USAGE) -> Iterator[None]:
    """Expected errors become one line on standard error and an exit code."""
    try:
        yield
    except (WriteError, reports.ReportWriteError) as error:
        raise refused(error, INCOMPLETE) from None
    except sets.DataError as error:
        raise refused(error, data_code) from None
    except (UsageError, RunError, reports.ReportError) as error:
        raise refused(error, USAGE) from None


def refused(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"settle: {error}", err=True)
    return typer.Exit(code)


def pairs_of(texts: Sequence[str]) -> dict[str, str]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise UsageError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    pairs = [text.split("=", 1) for text in texts]
    return {name.strip(): value.strip() for name, value in pairs}


def console() -> Console:
    """Standard output as wide as the terminal, and wide enough for a table elsewhere."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None)
    for i, head in enumerate(heads):
        table.add_column(head, overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    console().print(table)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
