"""A user's Python file: loaded under a time limit, its errors told by their line, its names offered."""

from __future__ import annotations

import inspect
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from settlepoint.experiments import UsageError

IMPORT_SECONDS = 60.0
"""How long the import of a file may take, and a function in it that makes what is asked for."""

Offer = Callable[[Path, ModuleType], str]  # what a file has to offer, in one line


def named(text: str, offer: Offer, seconds: float = IMPORT_SECONDS) -> Any:
    """What FILE.py:NAME stands for; a function without arguments is called.

    Raises UsageError, naming what the file offers, and for a file that raises or takes longer than the limit.
    """
    path, _, name = text.rpartition(":")
    if text.endswith(".py"):
        raise UsageError(f"{text} needs a name, {text}:NAME; {offer(Path(text), loaded(Path(text), seconds))}")
    if not path.endswith(".py"):
        raise UsageError(f"{text} must be FILE.py:NAME, the name of something in a Python file")
    module = loaded(Path(path), seconds)
    if name not in vars(module):
        raise UsageError(f"{path} has no {name!r}; {offer(Path(path), module)}")
    found = vars(module)[name]
    if inspect.isfunction(found) and not needed(found):
        with blaming(text), time_limit(seconds, f"{text} took longer than {seconds:g} s to make what was asked for"):
            found = found()
    return found


def loaded(path: Path, seconds: float = IMPORT_SECONDS) -> ModuleType:
    """The file as a module, its folder importable as for a script."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    spec = spec_from_file_location(f"users.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    slow = f"{path} took longer than {seconds:g} s to import; what takes long belongs into a function"
    with blaming(f"{path}:"):
        try:
            with time_limit(seconds, slow):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[spec.name]
            raise
    return module


@contextmanager
def time_limit(seconds: float, message: str) -> Iterator[None]:
    """UsageError(message) after so many seconds; in the main thread, where the platform has alarms, else no limit."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise _OutOfTime(message)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _OutOfTime:
        raise UsageError(message) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _OutOfTime(BaseException):
    """Passes through `except Exception` of the file."""


@contextmanager
def blaming(text: str) -> Iterator[None]:
    """Errors that a user's file raises become one line with the place in the file; others of wrong input their own."""
    path = Path(text.rpartition(":")[0]) if ".py:" in text else None
    try:
        yield
    except (UsageError, KeyboardInterrupt):
        raise
    except BaseException as error:
        place = None if path is None else _place(error, path)
        if place is not None:
            raise UsageError(f"{path}, line {place}") from None
        if isinstance(error, ValueError | TypeError):
            raise UsageError(str(error)) from None
        raise


def needed(function: Any) -> list[str]:
    """The parameters of a function that have no default."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in kinds]


def _place(error: BaseException, path: Path) -> str | None:
    """The last line of the file that the error, or first what caused it, passed through, and what it says."""
    cause = error.__cause__ or error.__context__
    if cause is not None and (place := _place(cause, path)) is not None:
        return place
    here, told = path.resolve(), traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).resolve() == here:
        return f"{error.lineno}: {told}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == here]
    return f"{lines[-1]}: {told}" if lines else None
