"""`settle`: parses, calls the library, prints. Results go to standard output, progress and errors to standard error.

Typer reads options from signatures, so that `run` has more parameters than a function of the library would.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from settlepoint import data as sets
from settlepoint import report as reports
from settlepoint.experiments import REGISTRY, Experiment, Registry, UsageError
from settlepoint.experiments.campaign import campaign, demo, verdict
from settlepoint.experiments.launch import INCOMPLETE, OFF, USAGE, Launched, Request
from settlepoint.runs import RunError, WriteError

HELP = Request.help()
app = typer.Typer(
    name="settle", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data", help="The data sets: list, verify, fetch.")

Name = Annotated[str, typer.Argument(help="id of an experiment, or all")]
Scale = Annotated[str, typer.Option(help=HELP["scale"])]
Seeds = Annotated[int | None, typer.Option(min=1, help=HELP["seeds"])]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=HELP["settings"])]
Jobs = Annotated[int, typer.Option(min=1, help=HELP["jobs"])]
Engine = Annotated[Literal["local", "ray"], typer.Option(help=HELP["engine"])]
Resume = Annotated[bool, typer.Option("--resume", help=HELP["mode"])]
DataDir = Annotated[Path | None, typer.Option(help=HELP["data_dir"])]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help=HELP["device"])]
Threads = Annotated[int, typer.Option(min=1, help=HELP["threads"])]
Out = Annotated[Path | None, typer.Option(help=HELP["out"])]
Json = Annotated[bool, typer.Option("--json", help="machine-readable results on standard output")]


@app.callback()
def settle() -> None:
    """Make any network or equation iterate until it settles, and know whether to trust where it settled."""


@app.command("demo", epilog="Example: settle demo --out runs/demo")
def demo_command(context: typer.Context, out: Out = Path("runs/demo"), jobs: Jobs = 1, as_json: Json = False) -> None:
    """A first look in under two minutes: a few experiments at their smallest scale and one report."""
    out = out or Path("runs/demo")
    with _refusals():
        done = list(demo(out, jobs, _registry(context)))
        page = reports.write([run.ran.folder.path for run in done], out / "report.html", "settlepoint demo")
    _finish(done, page, as_json)


@app.command("list", epilog="Example: settle list --json")
def list_command(context: typer.Context, as_json: Json = False) -> None:
    """The experiments: what each claims, and its scales."""
    experiments = list(_loadable(_registry(context)))
    if as_json:
        keys = ("id", "title", "claim", "source")
        rows = [{k: str(v) for k, v in zip(keys, (e.id, e.title, e.claim, e.source), strict=True)} for e in experiments]
        _print_json([{**row, "scales": list(e.scales)} for row, e in zip(rows, experiments, strict=True)])
        return
    rows = [(e.id, ", ".join(e.scales), f"{e.title}. {e.claim} ({e.source})") for e in experiments]
    _print_table(("id", "scales", "what it claims"), rows)


@app.command("run", epilog="Example: settle run digits --scale cpu --seeds 3 --set units=50")
def run_command(
    context: typer.Context,
    name: Name,
    scale: Scale = Request.scale,
    seeds: Seeds = Request.seeds,
    settings: Settings = None,
    jobs: Jobs = Request.jobs,
    engine: Engine = Request.engine,
    resume: Resume = False,
    data_dir: DataDir = Request.data_dir,
    device: Device = "cpu",
    threads: Threads = Request.threads,
    out: Out = Request.out,
    as_json: Json = False,
) -> None:
    """Run an experiment into a folder, check its claims, and write its report."""
    with _refusals():
        request = Request(
            scale=scale,
            seeds=seeds,
            settings=_settings(settings or ()),
            jobs=jobs,
            engine=engine,
            mode="resume" if resume else "new",
            data_dir=data_dir,
            device=device,
            threads=threads,
            out=out,
        )
        _carry_out(name, request, context, as_json)


@app.command("bench", epilog="Example: settle bench --scale smoke")
def bench_command(context: typer.Context, scale: Scale = "cpu", out: Out = None, as_json: Json = False) -> None:
    """Speed and memory beside outside peers, on one thread; wants a quiet machine."""
    with _refusals():
        request = Request(scale=scale, mode="replace", out=out or Path("runs/bench"))
        _carry_out("bench", request, context, as_json)


@app.command("report", epilog="Example: settle report runs/digits-cpu runs/solvers-cpu -o report.html")
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the page to write")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write one self-contained page on any number of runs, from their files alone."""
    with _refusals():
        page = reports.write(folders, out)
    _print_json({"report": str(page)}) if as_json else typer.echo(page)


@data.command("list", epilog="Example: settle data list --data-dir data")
def data_list(data_dir: DataDir = None, as_json: Json = False) -> None:
    """The data sets, their size and licence, and how many of their files are there."""
    folder = _folder_or_none(data_dir)
    entries = [(entry, None if folder is None else sets.present(folder, entry)) for entry in sets.datasets().values()]
    if as_json:
        keys = ("name", "what", "source", "licence", "size", "files", "present")
        _print_json(
            [
                dict(zip(keys, (e.name, e.what, e.source, e.licence, e.size, len(e.files), n), strict=True))
                for e, n in entries
            ]
        )
        return
    rows = [(e.name, f"{e.size / 1e6:.1f} MB", f"{_count(n)} of {len(e.files)}", e.licence, e.what) for e, n in entries]
    _print_table(("name", "size", "files there", "licence", "what"), rows)
    if folder is None:
        typer.echo("No data folder: give --data-dir DIR or set SETTLEPOINT_DATA.", err=True)


@data.command("verify", epilog="Example: settle data verify planetoid-cora --data-dir data")
def data_verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="data sets; those that are there when none is named")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare the SHA-256 of every file; exit code 1 when one is corrupt or a named one is missing."""
    with _refusals():
        folder = sets.data_dir(data_dir)
        wanted = [sets.dataset(name) for name in names or sets.datasets()]
    wanted = [entry for entry in wanted if names or sets.present(folder, entry)]
    found = [state for entry in wanted for state in sets.states(folder, entry)]
    problems = [state.problem for state in found if state.state != "ok"]
    if as_json:
        _print_json([{"file": s.file.path, "state": s.state, "sha256": s.file.sha256, "found": s.found} for s in found])
    else:
        typer.echo(f"{len(found) - len(problems)} of {len(found)} files are whole")
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(OFF if problems else 0)


@data.command("fetch", epilog="Example: settle data fetch planetoid-cora --data-dir data")
def data_fetch(name: str, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Download what is missing of a data set; each file is verified before it gets its name."""
    with _refusals():
        sets.dataset(name)
        folder = sets.data_dir(data_dir, name)
    with _refusals(INCOMPLETE):
        fetched = [str(path) for path in sets.fetch(folder, name)]
    if as_json:
        _print_json({"fetched": fetched})
    else:
        typer.echo("\n".join(fetched) or f"{name} is whole already")


def main() -> None:
    """The entry point of the program."""
    app(prog_name="settle")


def _registry(context: typer.Context) -> Registry:
    """The experiments of the package, unless a test passes its own."""
    return context.obj or REGISTRY


def _loadable(registry: Registry) -> Iterator[Experiment]:
    """Every experiment whose packages are there; the others are named on standard error."""
    for name in registry.modules:
        try:
            yield registry.load(name)
        except UsageError as error:
            typer.echo(f"settle: {error}", err=True)


@contextmanager
def _refusals(data_code: int = USAGE) -> Iterator[None]:
    """Expected errors become one line on standard error and an exit code."""
    try:
        yield
    except (WriteError, reports.ReportWriteError) as error:
        raise _refused(error, INCOMPLETE) from None
    except sets.DataError as error:
        raise _refused(error, data_code) from None
    except (UsageError, RunError, reports.ReportError) as error:
        raise _refused(error, USAGE) from None


def _refused(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"settle: {error}", err=True)
    return typer.Exit(code)


def _settings(texts: Sequence[str]) -> dict[str, str]:
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise UsageError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    pairs = [text.split("=", 1) for text in texts]
    return {name.strip(): value.strip() for name, value in pairs}


def _carry_out(name: str, request: Request, context: typer.Context, as_json: bool) -> None:
    done, page = [], None
    for run in campaign(name, request, _registry(context)):
        folder = run.ran.folder.path
        page = reports.write([folder], folder / "report.html")
        done.append(run)
        if not as_json:
            reports.show(reports.read(folder), _console())
            typer.echo(page)
    _finish(done, page if as_json else None, as_json)


def _finish(done: Sequence[Launched], page: Path | None, as_json: bool) -> None:
    """Notes to standard error, then the results, then the exit code."""
    for run in done:
        for note in [*run.ran.notes, *_how_to_go_on(run)]:
            typer.echo(f"settle: {note}", err=True)
    if as_json:
        _print_json({"exit_code": verdict(done), "report": str(page), "runs": [run.summary() for run in done]})
    elif page is not None:
        for run in done:
            reports.show(reports.read(run.ran.folder.path), _console())
        typer.echo(page)
    raise typer.Exit(verdict(done))


def _how_to_go_on(run: Launched) -> list[str]:
    if run.ran.complete:
        return []
    why = "interrupted" if run.ran.interrupted else f"{len(run.ran.failed)} cells and seeds raised an error"
    return [f"{why}; {run.ran.folder.path} keeps what is done, the same command with --resume goes on"]


def _folder_or_none(option: Path | None) -> Path | None:
    try:
        return sets.data_dir(option)
    except sets.DataError:
        if option is not None:
            raise typer.BadParameter(f"the data folder {option} does not exist") from None
        return None


def _count(present: int | None) -> str:
    return "?" if present is None else str(present)


def _console() -> Console:
    """Standard output as wide as the terminal, and wide enough for a table elsewhere."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    _console().print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
