"""The commands on data sets: list, verify, fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from settlepoint import data as sets
from settlepoint.cli.shared import DataDir, Json, print_json, print_table, refusals
from settlepoint.experiments.launch import INCOMPLETE, OFF


def data_list(data_dir: DataDir = None, as_json: Json = False) -> None:
    """The data sets, their size and licence, and how many of their files are there."""
    folder = _folder_or_none(data_dir)
    entries = [(entry, None if folder is None else sets.present(folder, entry)) for entry in sets.datasets().values()]
    if as_json:
        keys = ("name", "what", "source", "licence", "size", "files", "present")
        print_json(
            [
                dict(zip(keys, (e.name, e.what, e.source, e.licence, e.size, len(e.files), n), strict=True))
                for e, n in entries
            ]
        )
        return
    rows = [(e.name, f"{e.size / 1e6:.1f} MB", f"{_count(n)} of {len(e.files)}", e.licence, e.what) for e, n in entries]
    print_table(("name", "size", "files there", "licence", "what"), rows)
    if folder is None:
        typer.echo("No data folder: give --data-dir DIR or set SETTLEPOINT_DATA.", err=True)


def data_verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="data sets; those that are there when none is named")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare the SHA-256 of every file; exit code 1 when one is corrupt or a named one is missing."""
    with refusals():
        folder = sets.data_dir(data_dir)
        wanted = [sets.dataset(name) for name in names or sets.datasets()]
    wanted = [entry for entry in wanted if names or sets.present(folder, entry)]
    found = [state for entry in wanted for state in sets.states(folder, entry)]
    problems = [state.problem for state in found if state.state != "ok"]
    if as_json:
        print_json([{"file": s.file.path, "state": s.state, "sha256": s.file.sha256, "found": s.found} for s in found])
    else:
        typer.echo(f"{len(found) - len(problems)} of {len(found)} files are whole")
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(OFF if problems else 0)


def data_fetch(name: str, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Download what is missing of a data set; each file is verified before it gets its name."""
    with refusals():
        sets.dataset(name)
        folder = sets.data_dir(data_dir, name)
    with refusals(INCOMPLETE):
        fetched = [str(path) for path in sets.fetch(folder, name)]
    if as_json:
        print_json({"fetched": fetched})
    else:
        typer.echo("\n".join(fetched) or f"{name} is whole already")


def _folder_or_none(option: Path | None) -> Path | None:
    try:
        return sets.data_dir(option)
    except sets.DataError:
        if option is not None:
            raise typer.BadParameter(f"the data folder {option} does not exist") from None
        return None


def _count(present: int | None) -> str:
    return "?" if present is None else str(present)
