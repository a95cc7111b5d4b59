"""What tune may spend, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from settlepoint.solvers.solver import Solver

Report = Callable[[str, int, int], None]  # what is at work, how many are done, of how many


@dataclass(frozen=True)
class Budget:
    """What tune may spend.

    evaluations: of one problem before a solver counts as failing on it. seconds: for training; looked at between
    contenders only, what was left out is recorded; None for no limit. training, validation, held_out: numbers of
    problems: weights are fitted on the first, choices made on the second, and the evidence comes from the third.
    """

    evaluations: int = 300
    seconds: float | None = None
    training: int = 500
    validation: int = 200
    held_out: int = 500

    def __post_init__(self):
        for name in ("evaluations", "training", "validation", "held_out"):
            value, least = getattr(self, name), 20 if name == "training" else 2
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        if self.seconds is not None and not self.seconds >= 0:
            raise ValueError(f"seconds must be >= 0 or None, got {self.seconds}")


@dataclass(frozen=True)
class Tuned:
    """solver: the winner, ready for `solve`. name: of the winner. worth: whether something learned won.

    verdict: one sentence. table: a dict a contender, on held-out problems, best first. evidence: all of it as JSON, for
    `learn.save`.
    """

    solver: Solver
    name: str
    worth: bool
    verdict: str
    table: list[dict[str, Any]]
    evidence: dict[str, Any] = field(default_factory=dict)
