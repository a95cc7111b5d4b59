"""`settle tune`: the cheapest solver for a family, with its evidence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from settlepoint import learn
from settlepoint import report as reports
from settlepoint.cli.families import family_of
from settlepoint.cli.files import blaming
from settlepoint.cli.live import live
from settlepoint.cli.shared import Json, pairs_of, print_json, print_table, refusals
from settlepoint.experiments import UsageError
from settlepoint.experiments.contest import caption, columns, guard, write_folder
from settlepoint.experiments.launch import DONE, INCOMPLETE, OFF
from settlepoint.runs import plain

FamilyName = Annotated[
    str, typer.Argument(metavar="FAMILY|FILE.py:NAME", help="a family of the library, or one in a file of yours")
]
Fields = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="replace a field of the family: --set c=0.99")
]
_TITLE = b"\xc2\xb7 settlepoint</title>"  # what every page of ours holds


def tune_command(
    family: FamilyName,
    out: Annotated[Path, typer.Option("-o", "--out", help="the file to write")] = Path("solver.safetensors"),
    tolerance: Annotated[float, typer.Option(help="on |P(x) - x|, absolute")] = 1e-8,
    evaluations: Annotated[int, typer.Option(help="of one problem before a solver counts as failing")] = 300,
    seconds: Annotated[float | None, typer.Option(help="for training; looked at between contenders")] = None,
    training: Annotated[int, typer.Option(help="problems that weights are fitted on")] = 500,
    held_out: Annotated[int, typer.Option(help="problems that the evidence comes from")] = 500,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    by: Annotated[Literal["evaluations", "seconds"], typer.Option(help="what counts as cheap")] = "evaluations",
    settings: Fields = None,
    as_json: Json = False,
) -> None:
    """Race classical and learned solvers on a family of problems; write the winner, guarded, and a report.

    Exit code 1, and no solver, when none solves a single problem.
    """
    begin = time.monotonic()
    page, folder = out.with_suffix(".html"), out.with_name(f"{out.stem}-tune")
    with refusals():
        chosen = family_of(family, pairs_of(settings or ()))
        _check_out(out, page)
        try:
            with blaming(family), live(f"tune {chosen.name}") as report:
                budget = learn.Budget(evaluations, seconds, training, held_out=held_out)
                tuned = learn.tune(chosen, budget, tolerance, seed=seed, by=by, progress=report)
        except KeyboardInterrupt:
            typer.echo("settle: interrupted, nothing was written", err=True)
            raise typer.Exit(INCOMPLETE) from None
        if solved := _solved(tuned):
            learn.save(tuned.solver, out, tuned.evidence)
        reports.write([write_folder(tuned, folder, time.monotonic() - begin)], page)
    if as_json:
        files = {"solver": str(out) if solved else None, "report": str(page), "run": str(folder)}
        said = {"winner": tuned.name, "worth": tuned.worth, "verdict": tuned.verdict, "guard": guard(tuned)}
        print_json(
            plain(
                {
                    "exit_code": DONE if solved else OFF,
                    **files,
                    **said,
                    "table": tuned.table,
                    "evidence": _short(tuned.evidence),
                }
            )
        )
        raise typer.Exit(DONE if solved else OFF)
    print_table(*_table(tuned))
    typer.echo("\n".join((caption(tuned), "", tuned.verdict, *_remarks(tuned), "")))
    if not solved:
        typer.echo(f"solver: none was written\nreport: {page}\nrun:    {folder}")
        raise typer.Exit(OFF)
    typer.echo(f"solver: {out}\nreport: {page}\nrun:    {folder}\n\n{_use(out, tolerance, chosen.form)}")


def _solved(tuned: learn.Tuned) -> bool:
    """Whether the winner solves any of the held-out problems."""
    row = next(row for row in tuned.table if row["name"] == tuned.name)
    return row["failures"] < row["problems"]


def _short(evidence: dict[str, Any]) -> dict[str, Any]:
    """The evidence without the table, which stands beside it."""
    return {key: value for key, value in evidence.items() if key != "table"}


def _check_out(out: Path, page: Path) -> None:
    """Refuse, before minutes of work, what could not be written or would destroy something else."""
    if out.suffix != ".safetensors":
        raise UsageError(f"-o must name a .safetensors file, got {out}")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for {out.name}")
    if out.exists():
        try:
            learn.evidence(out)
        except (learn.SolverFileError, OSError):
            raise UsageError(f"{out} exists and is no solver file of this version; choose another name") from None
    if page.exists() and _TITLE not in page.read_bytes()[:100_000]:
        raise UsageError(f"{page} exists and is no report of ours; choose another name for {out.name}")


def _table(tuned: learn.Tuned) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of all contenders."""
    shown = columns(tuned)
    heads = ["contender", "kind", *(f"{c.label} ({c.unit})" if c.unit else c.label for c in shown)]
    numbers = [[format(row[c.key], c.fmt) for c in shown] for row in tuned.table]
    pairs = zip(tuned.table, numbers, strict=True)
    return heads, [[row["name"], row["kind"], *texts] for row, texts in pairs]


def _remarks(tuned: learn.Tuned) -> list[str]:
    """The notes of the contenders, the bound of the guard, and what was left out."""
    bound, left_out = guard(tuned), tuned.evidence["left_out"]
    found = [f"{row['name']}: {row['note']}" for row in tuned.table if row["note"]]
    if bound is not None:
        found.append(
            f"The guard: on {100 * bound['within']:.4g} % of the held-out problems it costs at most max(1.1x, + one "
            f"learned step) of {tuned.evidence['runner_up']}, on {100 * bound['close']:.4g} % at most 1.1x."
        )
    if left_out:
        found.append(f"Left out: {len(left_out)} trainings, which the report names.")
    return found


def _use(out: Path, tolerance: float, form: str) -> str:
    stop = "sp.FixedSteps(50)" if form == "rhs" else f"sp.Tolerance({tolerance:g})"
    return (
        "import settlepoint as sp\n"
        "from settlepoint import learn\n"
        f"solution = sp.solve(family.equation(batch), batch.x0, learn.load({str(out)!r}), {stop})"
    )
