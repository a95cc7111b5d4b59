"""Record: what one cell of an experiment gave for one seed, as one line of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class Record:
    """One finished pair (cell, seed): its metrics, curves and notes, or the error that ended it.

    metrics: name to number. curves: name to {"x", "y", "x_label", "y_label", "log_y", "group"}.
    error: the text of the exception, None when the cell succeeded; traceback: file beside the results.
    cpu_seconds are of the process that ran the cell, wall_seconds of the clock.
    """

    cell: str
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    error: str | None = None
    traceback: str | None = None
    cpu_seconds: float = math.nan
    wall_seconds: float = math.nan

    @property
    def pair(self) -> tuple[str, int]:
        """What a resumed run looks for: the cell and the seed."""
        return (self.cell, self.seed)

    def to_line(self) -> str:
        """One line of strict JSON; nan and infinities become the strings "nan", "inf", "-inf".

        >>> Record("a", 0, {"loss": float("nan")}).to_line()[:49]
        '{"cell": "a", "seed": 0, "metrics": {"loss": "nan'
        """
        return json.dumps(plain(asdict(self)), allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> Record:
        """The inverse of `to_line`. Raises ValueError for a line that is not a whole record."""
        values = json.loads(line)
        if not isinstance(values, dict) or not {"cell", "seed"} <= values.keys():
            raise ValueError(f"a result line must be an object with cell and seed, got {line[:60]!r}")
        metrics = {name: _number(value) for name, value in values.pop("metrics", {}).items()}
        curves = {name: _curve(curve) for name, curve in values.pop("curves", {}).items()}
        return cls(metrics=metrics, curves=curves, **values)


def plain(value: object) -> Any:
    """`value` in the words of JSON: mappings, lists, strings, numbers; NumPy and torch scalars become numbers."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(float(value))
        case Mapping():
            return {str(key): plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [plain(entry) for entry in value]
        case _:
            return _foreign(value)


def _foreign(value: object) -> Any:
    """A NumPy or torch number or array by its tolist(); anything else has no place in a result."""
    import numpy as np
    import torch

    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return plain(value.tolist())
    raise TypeError(f"a result holds numbers, text, lists and mappings, got {type(value).__name__}: {value!r:.80}")


def _number(value: object) -> Any:
    return _WORDS.get(value, value) if isinstance(value, str) else value


def _curve(curve: Mapping[str, Any]) -> dict[str, Any]:
    return {key: [_number(v) for v in value] if isinstance(value, list) else value for key, value in curve.items()}
