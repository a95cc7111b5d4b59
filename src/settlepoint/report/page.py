"""The report: any number of runs on one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from math import fsum
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from settlepoint.report.draw import drawings, save
from settlepoint.report.load import ReportError, ReportWriteError, RunFiles, number, read
from settlepoint.report.tables import everything, one, sheets


def write(folders: Sequence[Path], out: Path, title: str = "") -> Path:
    """Write one self-contained HTML page on these run folders, and the figures of each into its folder.

    Raises ReportError when a folder holds no run, ReportWriteError when a file cannot be written.
    """
    if not folders:
        raise ReportError("a report needs at least one run folder")
    runs = [read(folder) for folder in folders]
    try:
        views = [_view(run, index) for index, run in enumerate(runs)]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_render(views, title or _title(views)), encoding="utf-8")
    except OSError as error:
        raise ReportWriteError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
    return out


def _title(runs: Sequence[Mapping[str, Any]]) -> str:
    return runs[0]["title"] if len(runs) == 1 else f"{len(runs)} experiments"


def _render(runs: Sequence[Mapping[str, Any]], title: str) -> str:
    loader = PackageLoader("settlepoint.report", "")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    css = files("settlepoint.report").joinpath("page.css").read_text(encoding="utf-8")
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page.get_template("page.html.jinja").render(runs=runs, css=css, when=when, title=title)


def _view(run: RunFiles, index: int) -> dict[str, Any]:
    """What the template prints of one run."""
    drawn = drawings(run)
    save(run, drawn)
    spec = run.spec
    return {
        **{key: spec[key] for key in ("id", "title", "claim", "source", "scale_name", "scaled_down")},
        "anchor": f"run-{index + 1}",
        "folder": run.path.name,
        "facts": _facts(run),
        "verdict": verdict(run),
        "checks": [{**check, "measured": measured_text(check["measured"])} for check in run.checks],
        "failures": run.failures,
        "sheets": sheets(run),
        "everything": everything(run) if spec["tables"] and run.metrics else None,
        "averaging": _averaging(spec["seeds"]),
        "drawings": drawn,
        "scale": _scale(spec),
        "sessions": [_session(session) for session in run.sessions],
        "notes": [f"{x['cell']}, seed {x['seed']}: {note}" for x in run.lines for note in x["notes"]],
    }


def verdict(run: RunFiles) -> dict[str, str]:
    """The run in one line: incomplete, some checks failed, or all passed. kind: "good", "bad" or "warn"."""
    failed = sum(not check["passed"] for check in run.checks)
    held = f"{len(run.checks) - failed} of {len(run.checks)} checks passed"
    advice = []
    if run.missing:
        advice.append(f"{run.missing} cells and seeds have not run; go on with --resume.")
    if run.failures:
        advice.append(f"{len(run.failures)} cells and seeds raised an error; they are listed below.")
    if failed:
        return {"kind": "bad", "text": held, "advice": " ".join(advice)}
    if advice:
        return {
            "kind": "warn",
            "text": f"Incomplete: {held}" if run.checks else "Incomplete",
            "advice": " ".join(advice),
        }
    text = f"All {len(run.checks)} checks passed" if len(run.checks) > 1 else "The check passed"
    return {"kind": "good", "text": text, "advice": ""} if run.checks else _unchecked()


def _unchecked() -> dict[str, str]:
    return {
        "kind": "warn",
        "text": "Nothing was checked",
        "advice": "This scale is too small for the claim to be judged.",
    }


def _facts(run: RunFiles) -> list[tuple[str, str]]:
    """The first numbers a reader wants."""
    cpu, wall = (fsum(number(line[key]) for line in run.lines) for key in ("cpu_seconds", "wall_seconds"))
    seeds = run.spec["seeds"]
    evals = fsum(value for cell in run.spec["cells"] for value in run.values(cell, "evals"))
    facts = [("Cells", str(len(run.spec["cells"]))), ("Seeds each", str(seeds))]
    facts += [("Operator evaluations", one(evals, ",.0f"))] if evals else []
    facts += [("CPU time", _duration(cpu)), ("Time", _duration(wall)), ("Device", run.spec["device"])]
    return [*facts, ("Threads", str(run.spec["threads"]))]


def _duration(seconds: float) -> str:
    """A time for a reader.

    >>> _duration(0.25), _duration(75.0), _duration(7300.0)
    ('0.25 s', '1 min 15 s', '2 h 1 min')
    """
    if not seconds >= 60:
        return f"{one(seconds, '.2f' if seconds < 10 else '.1f')} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _averaging(seeds: int) -> str:
    return "One seed." if seeds == 1 else f"Mean ± standard deviation over {seeds} seeds."


def measured_text(measured: Any) -> str:
    """What a check measured, for a reader: a number in four digits, or its own words."""
    if isinstance(measured, str) and measured not in ("nan", "inf", "-inf"):
        return measured
    return one(number(measured))


def _scale(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every field of the scale with its sentence; changed marks what --set or --seeds replaced."""
    return [
        {"name": n, "value": _value(v), "help": spec["scale_help"].get(n, ""), "changed": n in spec["overrides"]}
        for n, v in spec["scale"].items()
    ]


def _value(value: Any) -> str:
    return ", ".join(_value(entry) for entry in value) if isinstance(value, list) else str(value) or "–"


def _session(session: Mapping[str, Any]) -> list[tuple[str, str]]:
    packages = [(name, version) for name, version in session["packages"].items() if version]
    git = session["git"]
    rows = [
        ("started", session["started"]),
        ("processor", f"{session['processor']}, {session['cores']} cores"),
        ("GPU", session["gpu"] or "none"),
        ("platform", session["platform"]),
        ("Python", session["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in packages)),
    ]
    return [*rows, ("commit", git["commit"][:12] + (" with changes" if git["changed"] else ""))] if git else rows
