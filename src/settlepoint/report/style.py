"""Colours and lines of all figures: colour-blind safe, and the same for a solver wherever it appears."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

INK = "#123456"
"""Stands for the text colour while a figure is drawn; becomes currentColor in the SVG, so that it suits any page."""

PALETTE = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#aa4499", "#999933", "#33bbee", "#ddaa33", "#777788")
DASHES = ("-", "--", ":", "-.")

SOLVERS: Mapping[str, tuple[str, str]] = {
    "picard": ("#0077bb", "-"),
    "anderson": ("#ee7733", "-"),
    "broyden": ("#009988", "-"),
    "newtonkrylov": ("#cc3311", "-"),
    "auto": ("#aa4499", "-"),
    "aitken": ("#999933", "-"),
    "chebyshev": ("#33bbee", "-"),
    "mann": ("#ddaa33", "-"),
    "halpern": ("#ddaa33", "--"),
    "r2n2": ("#aa4499", "--"),
    "safeguarded": ("#009988", "--"),
    "torchdeq": ("#777788", "-"),
    "scipy": ("#8c6d46", "-"),
    "plain loop": ("#999999", ":"),
}
"""Solver to colour and dash; what stands outside settlepoint is grey or brown."""


@dataclass(frozen=True)
class Stroke:
    """Colour and dash of one line."""

    colour: str
    dash: str = "-"


def strokes(labels: Iterable[str]) -> dict[str, Stroke]:
    """A stroke for each label: that of the solver it begins with, else the next one free in the palette.

    Two labels of one solver share its colour and differ in dash.

    >>> strokes(["Anderson(depth=5)"])["Anderson(depth=5)"].colour == SOLVERS["anderson"][0]
    True
    """
    labels = list(dict.fromkeys(labels))
    named = {label: name for label in labels if (name := _solver(label))}
    used = {SOLVERS[name][0] for name in named.values()}
    free = [colour for colour in PALETTE if colour not in used] or list(PALETTE)
    found, turns = {}, Counter[str]()
    for label in labels:
        name = named.get(label, "")
        found[label] = _turned(*SOLVERS[name], turns[name]) if name else _next(free, turns[""])
        turns[name] += 1
    return found


def _turned(colour: str, dash: str, turn: int) -> Stroke:
    return Stroke(colour, DASHES[(DASHES.index(dash) + turn) % len(DASHES)])


def _next(free: list[str], turn: int) -> Stroke:
    return Stroke(free[turn % len(free)], DASHES[turn // len(free) % len(DASHES)])


def _solver(label: str) -> str | None:
    """The solver a label begins with: its name up to the first sign that is no letter or digit."""
    text = label.lower()
    words = re.match(r"[a-z0-9]+", text)
    if text.startswith("plain loop"):
        return "plain loop"
    return words.group() if words and words.group() in SOLVERS else None
