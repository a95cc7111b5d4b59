"""Families by name, or from a user's file."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from settlepoint.cli.files import loaded, named
from settlepoint.experiments import UsageError
from settlepoint.problems import FAMILIES, Family
from settlepoint.problems.custom import CustomFixedPoint, CustomInitialValue


def family_of(text: str, settings: Mapping[str, str]) -> Family:
    """The family that FAMILY or FILE.py:NAME stands for, with the settings applied.

    Raises UsageError, naming what is valid, and for a file that raises its line and error.
    """
    if text.endswith(".py") or ".py:" in text:
        return _set(_named(text), settings)
    if text not in FAMILIES:
        raise UsageError(f"no family {text!r}; the families are {', '.join(FAMILIES)}, or FILE.py:NAME for your own")
    return _set(FAMILIES[text](), settings)


def _named(text: str) -> Family:
    found = named(text, _offer)
    if not isinstance(found, Family):
        path = Path(text.rpartition(":")[0])
        rule = "must be a Family, or a function without arguments that returns one"
        raise UsageError(f"{text} {rule}, got {type(found).__name__}; {_offer(path, loaded(path))}")
    return found


def _offer(path: Path, module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Family) and not name.startswith("_")]
    own = {n: v for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__}
    names += [n for n, v in own.items() if "Family" in str(v.__annotations__.get("return"))]
    return (
        f"its families are {', '.join(names)}"
        if names
        else f"{path.name} defines no family; see problems.from_callable"
    )


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
