"""`Progress` judges the rows of a solve from a few numbers read once a look; it lives on the host, in NumPy.

The driver measures on the device and reads one small table a look. Everything that decides a status happens here, so
that no solver and no operator is ever read inside a step.
"""

from dataclasses import dataclass

import numpy as np

from settlepoint.solution import Status
from settlepoint.stop import Tolerance

SUSPICION_LOOKS = 8  # looks without progress after which a row is watched for cycles
_LONGEST_CYCLE = 8
_SAME = 1e-3  # an iterate that comes back to within this share of its residual has come back
_FLOOR = 32  # rounding units: a residual below this share of the iterate is rounding
_ACTIVE = -1


@dataclass
class Look:
    """What was measured at one look, one entry a working row; the last five only while some row is suspected."""

    residual: np.ndarray
    image: np.ndarray | None = None  # ||P(x)||, for rtol
    size: np.ndarray | None = None  # ||x||
    stride: np.ndarray | None = None  # ||x - previous x||
    moved: np.ndarray | None = None  # ||x - best x||
    returned: np.ndarray | None = None  # ||x - snapshot||
    drift: np.ndarray | None = None  # ||displacement - (P(x) - x)||


class Progress:
    """Best residual, age and status of every working row under one Tolerance.

    recovery: as of `Solver`. horizon: steps before which no row is given up, since a triangular operator needs them.
    """

    def __init__(self, rows: int, stop: Tolerance, eps: float, recovery: int = 0, horizon: int = 0):
        self.stop, self.eps, self.recovery, self.horizon = stop, eps, recovery, horizon
        self.strikes, self.struck = np.zeros(rows, dtype=np.int64), False  # consecutive looks at a lost residual
        self.best = np.full(rows, np.inf)
        self.first = np.full(rows, np.nan)
        self.last = np.zeros(rows, dtype=np.int64)  # step of the latest progress
        self.status = np.full(rows, _ACTIVE, dtype=np.int64)
        self.finished = 0
        self.snapshot_age = 0  # looks since the snapshot; 0 while there is none
        self.watched = np.zeros(rows, dtype=bool)
        self.suspicious = False
        self._bar = self.best
        self._patience = min(SUSPICION_LOOKS, stop.window) * stop.every  # in steps

    @property
    def active(self) -> np.ndarray:
        """Rows still searched for."""
        return self.status == _ACTIVE

    def look(self, seen: Look, step: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Take in one look. Returns (rows that improved, rows that finished now); None for all and for none."""
        n = seen.residual
        tol = self.stop.atol if seen.image is None else self.stop.atol + self.stop.rtol * seen.image
        quiet = (n > tol) & (n < self._bar)
        if self.finished:
            quiet |= self.status != _ACTIVE
        if step < self.stop.max_steps and quiet.all():
            return self._all_improved(n, step), None
        return self._eventful(seen, tol, step)

    def _all_improved(self, n: np.ndarray, step: int) -> None:
        if self._bar is self.best:  # the first look
            self.first = n
        self._set_best(n)
        self.last.fill(step)
        if self.struck:
            self.strikes.fill(0)
            self.struck = False
        self.suspicious, self.snapshot_age = False, 0

    def _set_best(self, best: np.ndarray) -> None:
        self.best = best
        self._bar = best * (1 - 4 * self.eps)  # rounding is not progress

    def _eventful(self, seen: Look, tol, step: int) -> tuple[np.ndarray, np.ndarray | None]:
        n, active = seen.residual, self.active
        if self._bar is self.best:
            self.first = n
        improved = active & (n < self._bar)
        self._set_best(np.where(improved, n, self.best))
        self.last[improved] = step
        age = step - np.maximum(self.last, self.horizon)
        found = self._verdicts(seen, tol, step, age)
        finished = active & (found != _ACTIVE)
        ended = int(np.count_nonzero(finished))
        if ended:
            self.status[finished] = found[finished]
            self.finished += ended
            active = self.active
        self._watch(active & (age >= self._patience - self.stop.every), age)
        return improved, finished if ended else None

    def _verdicts(self, seen: Look, tol, step: int, age: np.ndarray) -> np.ndarray:
        """Status of every row, lowest precedence first so that higher ones overwrite."""
        n, stop = seen.residual, self.stop
        status = np.full(n.size, Status.MAX_STEPS if step >= stop.max_steps else _ACTIVE)
        late = step > self.horizon
        grown = (n > stop.growth * self.first) & late
        status[grown] = Status.DIVERGED
        if seen.size is not None and seen.moved is not None:
            self._doubts(status, seen, seen.moved, seen.size, age)
        status[n <= tol] = Status.CONVERGED
        status[~np.isfinite(n) & late] = Status.NONFINITE
        if self.recovery:
            self._forgive(status, ~(n <= stop.growth * self.first), step)
        return status

    def _forgive(self, status: np.ndarray, lost: np.ndarray, step: int) -> None:
        """Leave a lost residual to a solver that can step back from it, for some looks."""
        if not (self.struck or lost.any()):
            return
        self.strikes, self.struck = np.where(lost, self.strikes + 1, 0), True
        if step < self.stop.max_steps:
            status[lost & (self.strikes <= self.recovery) & np.isfinite(self.first)] = _ACTIVE

    def _doubts(self, status: np.ndarray, seen: Look, moved: np.ndarray, size: np.ndarray, age: np.ndarray) -> None:
        """Mark rows that no longer make progress."""
        n, stop = seen.residual, self.stop
        stale = age >= stop.window * stop.every
        settled = stale & (n <= 2 * self.best) & (moved <= 0.5 * stop.window * stop.every * n)
        floor = (age >= self._patience) & (n <= _FLOOR * self.eps * size)
        status[stale & ~settled] = Status.DIVERGED
        status[settled | floor] = Status.STALLED
        if seen.returned is not None and seen.stride is not None:
            near = _SAME * n
            status[self.watched & (seen.returned <= near) & (seen.stride > near) & ~floor] = Status.CYCLING
        if seen.drift is not None:
            status[stale & ~floor & (seen.drift <= 0.1 * n)] = Status.NO_FIXED_POINT

    def _watch(self, doubted: np.ndarray, age: np.ndarray) -> None:
        """Age the snapshot, and ask for a new one while some row is without progress."""
        self.suspicious = bool(doubted.any())
        self.snapshot_age = self.snapshot_age + 1 if 0 < self.snapshot_age < _LONGEST_CYCLE else 0
        if self.suspicious and not self.snapshot_age:
            self.watched = doubted & (age >= self._patience)
            self.snapshot_age = 1 if self.watched.any() else 0

    @property
    def wants_snapshot(self) -> bool:
        """True right after a look whose iterate is to be kept for recognising cycles."""
        return self.snapshot_age == 1

    def keep(self, rows: np.ndarray) -> None:
        """Forget all working rows but these."""
        for name in ("best", "first", "last", "status", "watched", "strikes"):
            setattr(self, name, getattr(self, name)[rows])
        self._set_best(self.best)
        self.finished = 0
