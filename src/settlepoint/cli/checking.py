"""`settle check`: whether a model of the user's settles, and whether that can be trusted."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from settlepoint import report as reports
from settlepoint.certify import Refused, Subject
from settlepoint.cli.files import IMPORT_SECONDS, blaming, loaded, named
from settlepoint.cli.live import live
from settlepoint.cli.shared import Json, print_json, print_table, refusals
from settlepoint.experiments import UsageError
from settlepoint.experiments.checking import examine
from settlepoint.experiments.checkup import advice, checks, sentence, summary, table, write_folder
from settlepoint.experiments.launch import DONE, INCOMPLETE, OFF
from settlepoint.runs import plain

Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:NAME",
        help="a certify.Subject, a function that returns one, or (module, inputs): see examples/check_operator.py",
    ),
]
_TITLE = b"\xc2\xb7 settlepoint</title>"  # what every page of ours holds


def check_command(
    target: Target,
    weights: Annotated[Path | None, typer.Option(help="a .safetensors file for the model's state_dict")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="the report to write")] = Path("check.html"),
    tolerance: Annotated[float | None, typer.Option(help="relative, on |P(x) - x|; by dtype when not given")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="iterations of training, instead of the subject's")] = None,
    rows: Annotated[int, typer.Option(min=1, help="samples that are examined at most")] = 256,
    import_seconds: Annotated[float, typer.Option(help="how long the file may take to import")] = IMPORT_SECONDS,
    as_json: Json = False,
) -> None:
    """Does a model settle, and can that be trusted: verdict, rates, certificates, the solver to take, and a report.

    Exit code 0 when it settles and every converged sample has a certificate, else 1.
    """
    begin = time.monotonic()
    folder = out.with_name(f"{out.stem}-check")
    with refusals():
        _check_out(out)
        subject = _subject(target, import_seconds)
        if weights is not None:
            _load(subject, weights)
        try:
            with blaming(target), live(f"check {subject.name}") as report:
                found = examine(subject, tolerance=tolerance, depth=depth, rows=rows, say=report)
        except Refused as error:
            raise UsageError(str(error)) from None
        except KeyboardInterrupt:
            typer.echo("settle: interrupted, nothing was written", err=True)
            raise typer.Exit(INCOMPLETE) from None
        reports.write([write_folder(found, folder, time.monotonic() - begin)], out)
    code = DONE if all(check.passed for check in checks(found)) else OFF
    if as_json:
        files = {"exit_code": code, "report": str(out), "run": str(folder), "said": sentence(found)}
        print_json(plain({**files, "advice": advice(found), **summary(found)}))
        raise typer.Exit(code)
    typer.echo(sentence(found) + "\n")
    print_table(*table(found))
    typer.echo("\n".join(("", advice(found), *_marks(found), *found.told, "")))
    typer.echo(f"report: {out}\nrun:    {folder}")
    raise typer.Exit(code)


def _marks(found: Any) -> list[str]:
    """The checks that failed."""
    wrong = [check for check in checks(found) if not check.passed]
    return [f"{c.name}: {c.measured}, wanted {c.target}. {c.detail}" for c in wrong]


def _subject(target: str, seconds: float) -> Subject:
    found = named(target, _offer, seconds)
    with blaming(target):
        if isinstance(found, tuple) and len(found) == 2 and callable(found[0]) and isinstance(found[1], tuple):
            found = Subject(*found)
    if not isinstance(found, Subject):
        path = Path(target.rpartition(":")[0])
        rule = "must be a certify.Subject, a function without arguments that returns one, or (module, inputs)"
        raise UsageError(f"{target} {rule}, got {type(found).__name__}; {_offer(path, loaded(path, seconds))}")
    return found if found.name else Subject(**{**vars(found), "name": target.rpartition(":")[2]})


def _offer(path: Path, module: ModuleType) -> str:
    names = [n for n, v in vars(module).items() if isinstance(v, Subject) and not n.startswith("_")]
    own = {n: v for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__}
    names += [n for n, v in own.items() if "Subject" in str(getattr(v, "__annotations__", {}).get("return"))]
    if names:
        return f"its subjects are {', '.join(names)}"
    return f"{path.name} defines no certify.Subject(model, inputs); see examples/check_operator.py"


def _load(subject: Subject, path: Path) -> None:
    """Weights by name and shape, from a file that is read and never run."""
    if not isinstance(subject.model, nn.Module):
        raise UsageError("--weights needs a model that is an nn.Module, got a function")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no whole safetensors file: {str(error).splitlines()[0]}") from None
    wanted = subject.model.state_dict()
    missing, extra = [n for n in wanted if n not in tensors], [n for n in tensors if n not in wanted]
    if missing or extra:
        told = [f"lacks {', '.join(missing[:3])}"] * bool(missing) + [f"has also {', '.join(extra[:3])}"] * bool(extra)
        raise UsageError(f"{path} does not fit the model: it {' and '.join(told)}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(wanted[name].shape)}, got {tuple(tensor.shape)}"
            raise UsageError(f"{path} does not fit the model: {name} must have shape {shapes}")
    subject.model.load_state_dict(tensors)


def _check_out(page: Path) -> None:
    """Refuse, before any work, what could not be written or would destroy something else."""
    if page.suffix != ".html":
        raise UsageError(f"-o must name an .html file, got {page}")
    if not page.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {page.parent} for {page.name}")
    if page.exists() and _TITLE not in page.read_bytes()[:100_000]:
        raise UsageError(f"{page} exists and is no report of ours; choose another name")
