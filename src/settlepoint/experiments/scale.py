"""Scale: the sizes and step counts of an experiment as typed fields; Context: what a cell is given to run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints


class UsageError(ValueError):
    """What was asked for does not exist or is of the wrong type; the message names what is valid."""


def _quiet(message: str) -> None:
    """The progress callback of a context that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The base of all scales. Subclass as a frozen, keyword-only dataclass; annotate `Annotated[type, "sentence"]`.

    Types that `--set name=value` can give: int, float, bool, str and tuples of these (comma-separated).
    """

    seeds: Annotated[int, "number of seeds; seed 0, 1, ... of each cell"] = 1

    @classmethod
    def help(cls) -> dict[str, str]:
        """Field name to its one-line documentation.

        >>> Scale.help()
        {'seeds': 'number of seeds; seed 0, 1, ... of each cell'}
        """
        return field_help(cls)

    def override(self, settings: Mapping[str, str]) -> Self:
        """This scale with fields replaced by typed values read from text.

        >>> Scale(seeds=5).override({"seeds": "3"})
        Scale(seeds=3)

        Raises UsageError for an unknown field (naming the valid ones) and for text that is not of the field's type.
        """
        hints = _hints(type(self))
        unknown = [name for name in settings if name not in hints]
        if unknown:
            raise UsageError(f"no field {unknown[0]!r} at this scale; the fields are {', '.join(sorted(hints))}")
        scale = replace(self, **{name: _read(name, text, hints[name]) for name, text in settings.items()})
        if scale.seeds < 1:
            raise UsageError(f"seeds must be at least 1, got {scale.seeds}")
        return scale


@dataclass(frozen=True)
class Context:
    """What a cell may know besides its name and seed.

    data_dir: the folder given by --data-dir or None; pass it to `data.data_dir(...)`, which also looks at
    $SETTLEPOINT_DATA. device: "cpu" or "cuda", for torch.device. progress: call it with a short text now and then.
    """

    scale: Any
    data_dir: Path | None = None
    device: str = "cpu"
    progress: Callable[[str], None] = field(default=_quiet, repr=False)


def field_help(cls: type) -> dict[str, str]:
    """Field name to the sentence in its annotation, for a dataclass whose fields are `Annotated[type, "sentence"]`."""
    return {name: _sentence(hint) for name, hint in _hints(cls).items()}


def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {entry.name: hints[entry.name] for entry in fields(cls)}  # pyright: ignore[reportArgumentType]


def _sentence(hint: Any) -> str:
    return get_args(hint)[1] if get_origin(hint) is Annotated else ""


def _read(name: str, text: str, hint: Any) -> object:
    """`text` as a value of the annotated type; the message quotes what came."""
    from pydantic import TypeAdapter, ValidationError

    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    raw = _parts(text) if get_origin(kind) is tuple else text
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"{name} must be {_type_name(kind)}, got {text!r}: {reason}") from None


def _parts(text: str) -> list[str]:
    """What stands between commas; in double quotes, a comma is a letter."""
    return [part.strip() for row in csv.reader([text], skipinitialspace=True) for part in row if part.strip()]


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)
