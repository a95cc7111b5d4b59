"""What counts as an iteration of `linear_solve`, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from settlepoint.solvers.newton_krylov import NewtonKrylov

_INNER = 10  # products between two looks at the true residual
_RESTART, _RESTART_COMPLEX = 20, 50


@dataclass(frozen=True)
class Count:
    """maxiter iterations of `cycle` steps each; a step is one product, or one of the given solver's.

    unit: 2 for complex systems, which are solved as real ones of twice the size. vectors: kept by NewtonKrylov.
    """

    maxiter: int
    cycle: int
    unit: int
    vectors: int

    @classmethod
    def of(cls, b: Tensor, restart: int | None, maxiter: int | None, kind: str | None, *, given: bool) -> Count:
        """As SciPy counts: cycles of `restart` products, or products when kind is "legacy"; steps of a given solver."""
        for name, value in (("restart", restart), ("maxiter", maxiter)):
            if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
                raise ValueError(f"{name} must be an integer >= 1 or None, got {value!r}")
        if given:
            return cls(int(maxiter or max(1000, 10 * len(b))), 1, 1, 1)
        unit = 2 if b.is_complex() else 1
        vectors = unit * min(int(restart or (_RESTART_COMPLEX if unit == 2 else _RESTART)), len(b))
        return cls(int(maxiter or 10 * len(b)), unit if kind == "legacy" else vectors, unit, vectors)

    @property
    def steps(self) -> int:
        """All steps there may be."""
        return self.maxiter * self.cycle

    def krylov(self, left: int) -> NewtonKrylov:
        """The solver for a rest of so many products."""
        return NewtonKrylov(min(_INNER * self.unit, self.vectors, left), self.vectors)


@dataclass(eq=False)
class Calls:
    """The user's callback of kind "x", "pr_norm" or "legacy", and when it is due. size: ||b||."""

    call: Callable[[Any], Any] | None
    kind: str | None
    size: float
    due: int = 1  # iterations after which "x" is called next

    def iterate(self, x: Callable[[], Tensor], iterations: int | None = None) -> None:
        """x() is the iterate after that many iterations, or the last one of all."""
        if self.call is not None and self.kind == "x" and (iterations is None or iterations >= self.due):
            self.due = self.due if iterations is None else iterations + 1
            self.call(x())

    def norms(self, residuals: Callable[[], list[float]]) -> None:
        """residuals(): ||b - A x|| after one iteration or several."""
        if self.call is not None and self.kind != "x":
            for r in residuals():
                self.call(r / self.size)
