"""How results are shown, as data: tables of metrics, figures of curves; report/ draws them from files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Column:
    """One metric of a table: mean ± std over the seeds.

    key: the metric. fmt: the format of a number, as in format(). paper: cell to the published number, a number or a
    text such as "81.5 ± 0.6"; when given, the table gets a column with it beside ours.
    better: "high" or "low" marks the best cell.
    """

    key: str
    label: str
    unit: str = ""
    fmt: str = ".4g"
    paper: Mapping[str, float | str] = field(default_factory=dict)
    better: Literal["high", "low", ""] = ""


@dataclass(frozen=True)
class Table:
    """A table with one row a cell. rows: the cells to show, all of them in order when empty. command: how to run one
    row alone, with {cell}, {scale} and {seeds} to be filled in; shown in a column of its own when given.

    The report adds operator evaluations (metric "evals") and CPU seconds when no column shows them.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[str] = ()
    caption: str = ""
    command: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure. kind "lines": the named curves of all cells, each seed thin and the median over seeds bold;
    "points": the same without connecting lines; "across": the curves of a group, of one point each, joined over the
    cells; "bars": the mean of the metrics named in `curves`, one bar a cell; "images": `pictures`, a column a cell and
    name, of the first seed.

    rows: the cells to show, all of them when empty.
    """

    title: str
    curves: Sequence[str]
    caption: str = ""
    kind: Literal["lines", "points", "across", "bars", "images"] = "lines"
    rows: Sequence[str] = ()


def curve(
    x: Iterable[float],
    y: Iterable[float],
    *,
    x_label: str = "operator evaluations",
    y_label: str = "residual",
    log_y: bool = False,
    group: str = "",
) -> dict[str, Any]:
    """A curve of one cell and seed. group: the legend entry and colour (a solver's name); the cell when empty.

    >>> curve([1, 2], [0.5, 0.25], log_y=True, group="Picard")["group"]
    'Picard'

    Raises ValueError when x and y differ in length.
    """
    xs, ys = [float(v) for v in x], [float(v) for v in y]
    if len(xs) != len(ys):
        raise ValueError(f"x and y of a curve must have one length, got {len(xs)} and {len(ys)}")
    return {"x": xs, "y": ys, "x_label": x_label, "y_label": y_label, "log_y": log_y, "group": group}


def pictures(images: Any, *, group: str = "") -> dict[str, Any]:
    """Images as one column of a figure of kind "images", from top to bottom. group: what stands above it.

    images: (N, C, H, W) with values in [0, 1], C = 1 or 3, a tensor or an array; what lies outside is cut. They are
    kept in 256 levels. Raises ValueError for another shape and for values that are not finite.
    """
    import numpy as np

    values = np.asarray(images, dtype=float)
    if values.ndim != 4 or not values.size or values.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, C, H, W) with one or three channels, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("images must be finite, got nan or inf")
    levels = np.rint(255 * values.clip(0, 1)).astype(int).ravel().tolist()
    return {"x": list(values.shape), "y": levels, "x_label": "", "y_label": "", "log_y": False, "group": group}


def outcome(
    metrics: Mapping[str, float], curves: Mapping[str, Mapping[str, Any]] | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """What `Experiment.run` returns. Numbers may be Python's, NumPy's or 0-d tensors; nan and inf are allowed.

    >>> outcome({"accuracy": 97.0})
    {'metrics': {'accuracy': 97.0}, 'curves': {}, 'notes': []}
    """
    return {"metrics": dict(metrics), "curves": dict(curves or {}), "notes": list(notes)}
