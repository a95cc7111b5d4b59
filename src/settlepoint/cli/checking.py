"""`settle check`: whether a model of the user's settles, and whether that can be trusted."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from settlepoint import report as reports
from settlepoint.certify import Refused, Subject
from settlepoint.cli.files import IMPORT_SECONDS, blaming, loaded, named, needed
from settlepoint.cli.live import live
from settlepoint.cli.shared import Json, print_json, print_table, refusals
from settlepoint.experiments import UsageError
from settlepoint.experiments.check_words import advice, checks, sentence, summary, table
from settlepoint.experiments.checking import Examination, examine
from settlepoint.experiments.checkup import write_folder
from settlepoint.experiments.launch import DONE, INCOMPLETE, OFF
from settlepoint.runs import plain

Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:NAME",
        help="a model and sample inputs for it in a file of yours: see examples/check_operator.py",
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
    import_seconds: Annotated[
        float, typer.Option(min=0.01, help="how long the file may take to import, and its function to make the model")
    ] = IMPORT_SECONDS,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch; more than one slows small matrices down")] = 1,
    as_json: Json = False,
) -> None:
    """Does a model settle, and can that be trusted: verdict, rates, certificates, the solver to take, and a report.

    NAME is a certify.Subject(model, inputs, depth=, score=), a function without arguments that returns one, or a tuple
    (module, inputs). Exit code 0 when it settles and every sample converges and has a certificate, else 1; 2 when it
    cannot be examined.
    """
    begin = time.monotonic()
    folder = out.with_name(f"{out.stem}-run")
    with refusals(), _interrupts():
        _check_out(out, folder)
        torch.set_num_threads(threads)
        subject = _subject(target, import_seconds)
        if weights is not None:
            _load(subject, weights)
        try:
            with blaming(target), live(f"check {subject.name}") as report:
                found = examine(subject, tolerance=tolerance, depth=depth, rows=rows, say=report)
        except Refused as error:
            raise UsageError(str(error)) from None
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


@contextmanager
def _interrupts() -> Iterator[None]:
    """An interrupt is exit code 3."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("settle: interrupted, nothing was written", err=True)
        raise typer.Exit(INCOMPLETE) from None


def _marks(found: Examination) -> list[str]:
    """The checks that failed."""
    wrong = [check for check in checks(found) if not check.passed]
    return [f"{c.name}: {c.measured}, wanted {c.target}. {c.detail}" for c in wrong]


def _subject(target: str, seconds: float) -> Subject:
    """The subject that the name stands for, with a name of its own."""
    found = named(target, _offer, seconds)
    with blaming(target):
        if _is_pair(found):
            found = Subject(*found)
    if not isinstance(found, Subject):
        path = Path(target.rpartition(":")[0])
        rule = "must be a certify.Subject, a function without arguments that returns one, or (module, inputs)"
        raise UsageError(f"{target} {rule}, got {type(found).__name__}; {_offer(path, loaded(path, seconds))}")
    return found if found.name else replace(found, name=target.rpartition(":")[2])


def _is_pair(value: object) -> bool:
    """Whether it is (module, inputs)."""
    return isinstance(value, tuple) and len(value) == 2 and callable(value[0]) and isinstance(value[1], tuple)


def _offer(path: Path, module: ModuleType) -> str:
    """The subjects and pairs in a file, and its functions without arguments, which may return one."""
    shown = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    names = [n for n, v in shown.items() if isinstance(v, Subject) or _is_pair(v)]
    own = {n: v for n, v in shown.items() if inspect.isfunction(v) and v.__module__ == module.__name__}
    names += [n for n, v in own.items() if not needed(v)]
    if names:
        return f"it offers {', '.join(names)}"
    return f"{path.name} defines no certify.Subject(model, inputs); see examples/check_operator.py"


def _load(subject: Subject, path: Path) -> None:
    """Weights by name and shape, from a file that is read and never run."""
    if not isinstance(subject.model, nn.Module):
        raise UsageError("--weights needs a model that is an nn.Module, got a function")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no whole safetensors file: {str(error).splitlines()[0]}") from None
    wanted = subject.model.state_dict()
    if told := _unlike(tensors, wanted):
        raise UsageError(f"{path} does not fit the model: {told}")
    subject.model.load_state_dict(tensors, strict=False)  # what is left out shares its memory with what is there


def _unlike(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first differences in names, shapes and kinds of numbers; weights that are tied may stand there once."""
    there = {tensor.data_ptr() for name, tensor in wanted.items() if name in given and tensor.numel()}
    missing = [n for n, tensor in wanted.items() if n not in given and tensor.data_ptr() not in there]
    extra = [n for n in given if n not in wanted]
    if missing or extra:
        told = [f"lacks {', '.join(missing[:3])}"] * bool(missing) + [f"has also {', '.join(extra[:3])}"] * bool(extra)
        return f"it {' and '.join(told)}"
    for name, tensor in given.items():
        like = wanted[name]
        if tensor.shape != like.shape:
            return f"{name} must have shape {tuple(like.shape)}, got {tuple(tensor.shape)}"
        if tensor.is_floating_point() != like.is_floating_point():
            return f"{name} must be of {like.dtype}, got {tensor.dtype}"
    return ""


def _check_out(page: Path, folder: Path) -> None:
    """Refuse, before any work, what could not be written or would destroy something else."""
    if page.suffix != ".html":
        raise UsageError(f"-o must name an .html file, got {page}")
    if not page.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {page.parent} for {page.name}")
    if page.exists() and not (page.is_file() and _TITLE in page.read_bytes()[:100_000]):
        raise UsageError(f"{page} exists and is no report of ours; choose another name")
    if folder.exists() and not _replaceable(folder):
        raise UsageError(f"{folder} exists and holds no run of settle check; choose another name than {page.name}")


def _replaceable(folder: Path) -> bool:
    """Whether a folder is empty, or that of an earlier check."""
    if not folder.is_dir():
        return False
    spec = folder / "spec.json"
    return not any(folder.iterdir()) or (spec.is_file() and b'"source": "settle check"' in spec.read_bytes())
