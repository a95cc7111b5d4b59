"""`settle solve`: a saved solver on fresh problems of a family."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from settlepoint import learn
from settlepoint.cli.families import family_of
from settlepoint.cli.files import blaming
from settlepoint.cli.shared import Json, pairs_of, print_json, print_table, refusals
from settlepoint.cli.tuning import FamilyName, Fields
from settlepoint.experiments import UsageError
from settlepoint.experiments.launch import DONE, OFF
from settlepoint.learn.trial import Trial, fresh, trial
from settlepoint.problems import Family
from settlepoint.runs import plain


def solve_command(
    family: FamilyName,
    solver: Annotated[Path, typer.Option("--solver", help="a file that settle tune wrote")],
    problems: Annotated[int, typer.Option(min=1, help="how many fresh problems")] = 5,
    seed: Annotated[int, typer.Option(help="of the problems")] = 1,
    tolerance: Annotated[float | None, typer.Option(help="on |P(x) - x|; that of the file when not given")] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="steps a problem may take")] = 300,
    steps: Annotated[int, typer.Option(min=1, help="steps of size h, for families of form rhs")] = 50,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="write the solutions as .npz")] = None,
    settings: Fields = None,
    as_json: Json = False,
) -> None:
    """Solve fresh problems with a saved solver; exit code 1 when one is not solved."""
    with refusals():
        chosen = family_of(family, pairs_of(settings or ()))
        _check_out(out)
        loaded, header = _read(solver)
        _warn(chosen, header)
        if tolerance is None:
            tolerance = float(header["evidence"].get("tolerance", 1e-8))
        with blaming(family):
            batch = fresh(chosen, problems, seed)
            found = trial(loaded, chosen, batch, steps if chosen.form == "rhs" else evaluations, tolerance)
        if out is not None:
            _write(found, out)
    rows, counts = _rows(found), {status: found.status.count(status) for status in sorted(set(found.status))}
    code = DONE if bool(found.good.all()) else OFF
    if as_json:
        print_json(
            plain({"exit_code": code, "counts": counts, "problems": rows, "out": None if out is None else str(out)})
        )
    else:
        print_table(("problem", *rows[0]), [(str(i), *map(_text, row.values())) for i, row in enumerate(rows)])
        typer.echo(f"\n{', '.join(f'{n} {status}' for status, n in counts.items())}")
        if out is not None:
            typer.echo(out)
    raise typer.Exit(code)


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """The solver and its header; a file that is none is refused in one line."""
    try:
        return learn.load(path), learn.evidence(path)
    except (learn.SolverFileError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None


def _warn(family: Family, header: dict[str, Any]) -> None:
    """A solver tuned for another family still gives true statuses, but not the cost that its evidence shows."""
    tuned = header["evidence"].get("family", {}).get("name", family.name)
    if tuned != family.name:
        typer.echo(f"settle: the solver was tuned for {tuned}, not {family.name}", err=True)


def _rows(found: Trial) -> list[dict[str, Any]]:
    """One entry a problem: status, residual or error, evaluations."""
    key, sizes = ("residual", found.residual) if found.error is None else ("error", found.error)
    columns = zip(found.status, sizes.tolist(), found.evals.tolist(), strict=True)
    return [{"status": status, key: size, "evaluations": evals} for status, size, evals in columns]


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _check_out(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix != ".npz":
        raise UsageError(f"-o must name a .npz file, got {out}")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for {out.name}")
    if out.exists() and not _ours(out):
        raise UsageError(f"{out} exists and holds no solutions of ours; choose another name")


def _ours(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return {"value.npy", "status.npy", "residual.npy"} <= set(file.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _write(found: Trial, out: Path) -> None:
    """Arrays with one leading entry a problem."""
    arrays = {"x0": found.batch.x0, "value": found.value, "residual": found.residual, "evaluations": found.evals}
    arrays |= {f"parameter_{name}": value for name, value in found.batch.parameters.items()}
    arrays |= {} if found.error is None else {"error": found.error}
    arrays |= {} if found.batch.h is None else {"h": found.batch.h}
    with zipfile.ZipFile(out, "w") as file:  # what numpy.savez writes; a parameter may have any name here
        for name, array in {"status": np.array(found.status), **{k: v.numpy() for k, v in arrays.items()}}.items():
            with file.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
