"""Families by name, or from a user's file."""

from __future__ import annotations

import ast
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from settlepoint.experiments import UsageError
from settlepoint.problems import FAMILIES, Family
from settlepoint.problems.custom import CustomFixedPoint, CustomInitialValue


def family_of(text: str, settings: Mapping[str, str]) -> Family:
    """The family that FAMILY or FILE.py:NAME stands for, with the settings applied.

    Raises UsageError, naming what is valid, and for a file that raises its line and error.
    """
    path, _, name = text.rpartition(":")
    if text.endswith(".py"):
        raise UsageError(f"{text} needs a name, {text}:NAME; {_offer(Path(text), _loaded(Path(text)))}")
    if path.endswith(".py"):
        return _set(_named(Path(path), name), settings)
    if text not in FAMILIES:
        raise UsageError(f"no family {text!r}; the families are {', '.join(FAMILIES)}, or FILE.py:NAME for your own")
    return _set(FAMILIES[text](), settings)


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


def _named(path: Path, name: str) -> Family:
    module = _loaded(path)
    if name not in vars(module):
        raise UsageError(f"{path} has no {name!r}; {_offer(path, module)}")
    found = vars(module)[name]
    if inspect.isfunction(found) and not _needed(found):
        with blaming(f"{path}:{name}"):
            found = found()
    if not isinstance(found, Family):
        rule = "must be a Family, or a function without arguments that returns one"
        raise UsageError(f"{path}:{name} {rule}, got {type(found).__name__}; {_offer(path, module)}")
    return found


def _loaded(path: Path) -> ModuleType:
    """The file as a module, its folder importable as for a script."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    spec = spec_from_file_location(f"families.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with blaming(f"{path}:"):
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[spec.name]
            raise
    return module


def _offer(path: Path, module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Family) and not name.startswith("_")]
    own = {n: v for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__}
    names += [n for n, v in own.items() if "Family" in str(v.__annotations__.get("return"))]
    return (
        f"its families are {', '.join(names)}"
        if names
        else f"{path.name} defines no family; see problems.from_callable"
    )


def _needed(function: Any) -> list[str]:
    """The parameters without a default."""
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


def _set(family: Family, settings: Mapping[str, str]) -> Family:
    """family with fields replaced by values read from text."""
    if not settings:
        return family
    hints = _settable(family)
    unknown = [name for name in settings if name not in hints]
    if unknown:
        known = f"its fields are {', '.join(hints)}" if hints else "it has none; its numbers stand in its file"
        raise UsageError(f"the family {family.name} has no field {unknown[0]!r} to set; {known}")
    values = {name: _read(name, text, hints[name]) for name, text in settings.items()}
    try:
        return replace(family, **values)  # pyright: ignore[reportArgumentType]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{family.name}: {error}") from None


def _settable(family: Family) -> dict[str, Any]:
    """Field to type; families made of functions hold nothing to set."""
    if not is_dataclass(family) or isinstance(family, CustomFixedPoint | CustomInitialValue):
        return {}
    hints = get_type_hints(type(family))
    return {field.name: hints[field.name] for field in fields(family)}


def _read(name: str, text: str, hint: Any) -> object:
    """text as a value of the type: "0.99", "0.5, 0.9", or as Python writes it, "((1, 0), (0, 1))"."""
    try:
        raw: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raw = text
    try:
        return TypeAdapter(hint).validate_python(raw)
    except ValidationError as error:
        raise UsageError(f"{name} must be {hint}, got {text!r}: {error.errors()[0]['msg']}") from None
    except PydanticUserError:
        raise UsageError(f"{name} cannot be set from the command line") from None
