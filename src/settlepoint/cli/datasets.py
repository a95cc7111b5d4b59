"""The commands on data sets: list, verify, fetch, superpixels, navier-stokes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from settlepoint import data as sets
from settlepoint.cli.live import live
from settlepoint.cli.shared import DataDir, Json, print_json, print_table, refusals
from settlepoint.data.fluid import Flow
from settlepoint.data.integrators import SCHEMES
from settlepoint.experiments import UsageError
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


def data_superpixels(
    images: Annotated[Path, typer.Argument(help="a folder of images, or one image")],
    masks: Annotated[Path, typer.Argument(help="a folder of masks of the same names, or one mask")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the file to write; an existing one is not touched")],
    void: Annotated[int | None, typer.Option(min=0, help="the number in a mask that is no class")] = None,
    void_to: Annotated[int | None, typer.Option(min=0, help="the class void gets instead of none")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="refuse numbers from this one on, void aside")] = None,
    segments: Annotated[int, typer.Option(min=1, help="the most superpixels of an image")] = sets.Recipe.segments,
    compactness: Annotated[float, typer.Option(help="weight of place against colour")] = sets.Recipe.compactness,
    only: Annotated[Path | None, typer.Option(help="a text file of names to take, one a line, in its order")] = None,
    as_json: Json = False,
) -> None:
    """Turn images and their masks into graphs of superpixels, as PascalVOC-SP has them; goes on when called again."""
    with refusals():
        recipe, labels = _choices(segments, compactness, classes, void, void_to)
        sets.new_file(out)
        found = sets.pairs(images, masks, None if only is None else _names(only))
    with refusals(INCOMPLETE), _interruptible(out), live("superpixels") as report:
        written = sets.write_image_graphs(found, out, recipe, labels, report)
    if as_json:
        print_json({**vars(written), "path": str(written.path)})
        return
    kept = f", {written.reused} of them kept from before" if written.reused else ""
    typer.echo(f"{written.path}: {written.graphs} graphs{kept}, {written.nodes} nodes, {written.edges} edges")
    typer.echo(f"{written.classes} classes, {written.unscored} nodes without one")


def data_navier_stokes(
    out: Annotated[Path, typer.Option("-o", "--out", help="the file to write; an existing one is not touched")],
    count: Annotated[int, typer.Option("--n", min=1, help="trajectories")] = 1000,
    size: Annotated[int, typer.Option(help="points a side, even")] = 64,
    time: Annotated[float, typer.Option(help="time of the last frame; the first is at 0")] = 50.0,
    every: Annotated[float, typer.Option(help="time between two frames")] = 1.0,
    viscosity: Annotated[float, typer.Option(help="nu")] = 1e-3,
    dt: Annotated[float, typer.Option(help="time step")] = Flow.dt,
    scheme: Annotated[str, typer.Option(help=", ".join(SCHEMES))] = Flow.scheme,
    seed: Annotated[int, typer.Option(help="of the fields at time 0")] = 0,
    as_json: Json = False,
) -> None:
    """Vorticities of the Navier-Stokes equations on a torus, to learn operators from; goes on when called again."""
    with refusals():
        try:
            flow = Flow(viscosity=viscosity, size=size, dt=dt, scheme=scheme)  # type: ignore[arg-type]
            wanted = sets.Trajectories(count=count, until=time, every=every, seed=seed, flow=flow)
        except ValueError as error:
            raise UsageError(str(error)) from None
        sets.new_file(out)
    with refusals(INCOMPLETE), _interruptible(out), live("navier-stokes") as report:
        sets.write_trajectories(out, wanted, report)
    digest = sets.sha256(out)
    if as_json:
        print_json({"path": str(out), "sha256": digest, **asdict(wanted)})
        return
    typer.echo(f"{out}: {count} trajectories of {wanted.frames} frames of {size} x {size}, SHA-256 {digest}")


def _choices(
    segments: int, compactness: float, classes: int | None, void: int | None, void_to: int | None
) -> tuple[sets.Recipe, sets.Labels]:
    try:
        return sets.Recipe(segments, compactness), sets.Labels(classes, void, void_to)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--only takes a text file of names, got {path}: {error}") from None
    if not names:
        raise UsageError(f"--only takes a text file of names, one a line, got {path} without any")
    return names


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        text = f"interrupted; {sets.kept_in(out)} keeps what is done, the same command goes on"
        typer.echo(f"settle: {text}", err=True)
        raise typer.Exit(INCOMPLETE) from None


def _folder_or_none(option: Path | None) -> Path | None:
    try:
        return sets.data_dir(option)
    except sets.DataError:
        if option is not None:
            raise typer.BadParameter(f"the data folder {option} does not exist") from None
        return None


def _count(present: int | None) -> str:
    return "?" if present is None else str(present)
