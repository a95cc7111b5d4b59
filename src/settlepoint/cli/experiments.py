"""The commands that run experiments and report on them: demo, list, run, bench, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from settlepoint import report as reports
from settlepoint.cli.shared import (
    HELP,
    DataDir,
    Json,
    Settings,
    console,
    pairs_of,
    print_json,
    print_table,
    refusals,
)
from settlepoint.experiments import REGISTRY, Experiment, Registry, UsageError
from settlepoint.experiments.campaign import campaign, demo, verdict
from settlepoint.experiments.launch import Launched, Request

Name = Annotated[str, typer.Argument(help="id of an experiment, or all")]
Scale = Annotated[str, typer.Option(help=HELP["scale"])]
Seeds = Annotated[int | None, typer.Option(min=1, help=HELP["seeds"])]
Jobs = Annotated[int, typer.Option(min=1, help=HELP["jobs"])]
Engine = Annotated[Literal["local", "ray"], typer.Option(help=HELP["engine"])]
Resume = Annotated[bool, typer.Option("--resume", help=HELP["mode"])]
Select = Annotated[bool, typer.Option("--select", help=HELP["select"])]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help=HELP["device"])]
Threads = Annotated[int, typer.Option(min=1, help=HELP["threads"])]
Out = Annotated[Path | None, typer.Option(help=HELP["out"])]


def demo_command(context: typer.Context, out: Out = Path("runs/demo"), jobs: Jobs = 1, as_json: Json = False) -> None:
    """A first look in under two minutes: a few experiments at their smallest scale and one report."""
    out = out or Path("runs/demo")
    with refusals():
        done = list(demo(out, jobs, _registry(context)))
        page = reports.write([run.ran.folder.path for run in done], out / "report.html", "settlepoint demo")
    _finish(done, page, as_json)


def list_command(context: typer.Context, as_json: Json = False) -> None:
    """The experiments: what each claims, and its scales."""
    experiments = list(_loadable(_registry(context)))
    if as_json:
        keys = ("id", "title", "claim", "source")
        rows = [{k: str(v) for k, v in zip(keys, (e.id, e.title, e.claim, e.source), strict=True)} for e in experiments]
        print_json([{**row, "scales": list(e.scales)} for row, e in zip(rows, experiments, strict=True)])
        return
    rows = [(e.id, ", ".join(e.scales), f"{e.title}. {e.claim} ({e.source})") for e in experiments]
    print_table(("id", "scales", "what it claims"), rows)


def run_command(
    context: typer.Context,
    name: Name,
    scale: Scale = Request.scale,
    seeds: Seeds = Request.seeds,
    settings: Settings = None,
    jobs: Jobs = Request.jobs,
    engine: Engine = Request.engine,
    resume: Resume = False,
    select: Select = False,
    data_dir: DataDir = Request.data_dir,
    device: Device = "cpu",
    threads: Threads = Request.threads,
    out: Out = Request.out,
    as_json: Json = False,
) -> None:
    """Run an experiment into a folder, check its claims, and write its report."""
    with refusals():
        request = Request(
            scale=scale,
            seeds=seeds,
            settings=pairs_of(settings or ()),
            jobs=jobs,
            engine=engine,
            mode="resume" if resume else "new",
            select=select,
            data_dir=data_dir,
            device=device,
            threads=threads,
            out=out,
        )
        _carry_out(name, request, context, as_json)


def bench_command(context: typer.Context, scale: Scale = "cpu", out: Out = None, as_json: Json = False) -> None:
    """Speed and memory beside outside peers, on one thread; wants a quiet machine."""
    with refusals():
        request = Request(scale=scale, mode="replace", out=out or Path("runs/bench"))
        _carry_out("bench", request, context, as_json)


def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of runs")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the page to write")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write one self-contained page on any number of runs, from their files alone."""
    with refusals():
        page = reports.write(folders, out)
    print_json({"report": str(page)}) if as_json else typer.echo(page)


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


def _carry_out(name: str, request: Request, context: typer.Context, as_json: bool) -> None:
    done, page = [], None
    for run in campaign(name, request, _registry(context)):
        folder = run.ran.folder.path
        page = reports.write([folder], folder / "report.html")
        done.append(run)
        if not as_json:
            reports.show(reports.read(folder), console())
            typer.echo(page)
    _finish(done, page if as_json else None, as_json)


def _finish(done: Sequence[Launched], page: Path | None, as_json: bool) -> None:
    """Notes to standard error, then the results, then the exit code."""
    for run in done:
        for note in [*run.ran.notes, *_how_to_go_on(run)]:
            typer.echo(f"settle: {note}", err=True)
    if as_json:
        print_json({"exit_code": verdict(done), "report": str(page), "runs": [run.summary() for run in done]})
    elif page is not None:
        for run in done:
            reports.show(reports.read(run.ran.folder.path), console())
        typer.echo(page)
    raise typer.Exit(verdict(done))


def _how_to_go_on(run: Launched) -> list[str]:
    if run.ran.complete:
        return []
    why = "interrupted" if run.ran.interrupted else f"{len(run.ran.failed)} cells and seeds raised an error"
    return [f"{why}; {run.ran.folder.path} keeps what is done, the same command with --resume goes on"]
