"""One function a kind of figure: data in, Axes out; no pyplot, no computation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from settlepoint.report.series import Series
from settlepoint.report.style import INK, Stroke, strokes


def canvas(height: float = 3.9) -> tuple[Figure, Axes]:
    """A figure of the width of the page with quiet axes."""
    figure = Figure(figsize=(7.6, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis="both", color=INK, alpha=0.12, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def lines(axes: Axes, found: Sequence[Series], *, joined: bool = True) -> Axes:
    """Every seed thin, the median over seeds bold; a logarithmic axis where the curves ask for one."""
    for entry, stroke in zip(found, _strokes(found), strict=True):
        for x, y in entry.seeds:
            _draw(axes, x, _shown(y, entry.log_y), stroke, joined=joined, bold=False)
        x, y = entry.median
        _draw(axes, x, _shown(y, entry.log_y), stroke, joined=joined, bold=True, label=entry.label)
    if any(entry.log_y for entry in found):
        axes.set_yscale("log")
    axes.set(xlabel=found[0].labels[0], ylabel=found[0].labels[1])
    return _legend(axes, len(found))


def bars(axes: Axes, cells: Sequence[str], values: Sequence[Sequence[float]], label: str) -> Axes:
    """The mean over seeds a cell as a bar, its standard deviation, and every seed as a dot."""
    colours = [stroke.colour for stroke in strokes(cells).values()]
    means = [float(np.mean(v)) if len(v) else np.nan for v in values]
    spread = [float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for v in values]
    places = np.arange(len(cells))
    axes.barh(places, means, xerr=spread, color=colours, alpha=0.75, height=0.62, ecolor=INK)
    for place, seeds in zip(places, values, strict=True):
        axes.plot(seeds, [place] * len(seeds), "o", color=INK, markersize=3, alpha=0.6, linestyle="none")
    axes.set_yticks(places, cells)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)
    return axes


def columns(labels: Sequence[str], stacks: Sequence[np.ndarray]) -> Figure:
    """Images (N, C, H, W) in 256 levels, each stack one under another below its label, a thin gap between them."""
    shapes = [(len(s) * (s.shape[2] + 1) - 1, s.shape[3]) for s in stacks]
    count = max(len(stacks), 8)
    width = 7.6 / count
    figure = Figure(figsize=(7.6, width * max(h / w for h, w in shapes) + 0.5), layout="constrained")
    grid = figure.subplots(1, count, squeeze=False)[0]
    for axes in grid:
        axes.set_axis_off()
    letters = int(width / 0.065)  # a letter is about so wide
    for axes, label, stack in zip(grid, labels, stacks, strict=False):  # what is left of the grid stays empty
        axes.imshow(_stacked(stack), interpolation="nearest")
        axes.set_title(textwrap.fill(label, letters, break_long_words=False), fontsize=7)
    return figure


def _stacked(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) in 256 levels as one picture with alpha, (rows, W, 4) of bytes."""
    n, _, h, w = images.shape
    sheet = np.zeros((n * (h + 1) - 1, w, 4), dtype=np.uint8)
    for k, image in enumerate(images):
        sheet[k * (h + 1) : k * (h + 1) + h, :, :3] = np.broadcast_to(image.transpose(1, 2, 0), (h, w, 3))
        sheet[k * (h + 1) : k * (h + 1) + h, :, 3] = 255
    return sheet


def _strokes(found: Sequence[Series]) -> list[Stroke]:
    """The group's colour; the second entry of a group gets the next dash."""
    by_group, seen, chosen = strokes(entry.group for entry in found), dict[str, int](), []
    for entry in found:
        turn = seen[entry.group] = seen.get(entry.group, -1) + 1
        stroke = by_group[entry.group]
        chosen.append(Stroke(stroke.colour, stroke.dash if turn == 0 else ("--", ":", "-.")[(turn - 1) % 3]))
    return chosen


def _draw(
    axes: Axes, x: np.ndarray, y: np.ndarray, stroke: Stroke, *, joined: bool, bold: bool, label: str | None = None
) -> None:
    """One line or cloud of points, thin for a seed and bold for the median."""
    marker = "o" if len(x) == 1 or not joined else ""
    axes.plot(
        x,
        y,
        color=stroke.colour,
        linestyle=stroke.dash if joined else "none",
        marker=marker,
        markersize=5 if bold else 3,
        linewidth=2.2 if bold else 0.8,
        alpha=1.0 if bold else 0.4,
        label=label,
    )


def _shown(y: np.ndarray, log: bool) -> np.ndarray:
    """What a logarithmic axis can show; a gap elsewhere."""
    return np.where(np.isfinite(y) & ((y > 0) | (not log)), y, np.nan)


def _legend(axes: Axes, entries: int) -> Axes:
    if entries <= 1:
        return axes
    if entries <= 5:
        axes.legend(frameon=False)
    else:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=8)
    return axes
