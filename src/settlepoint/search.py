"""The loop under a Tolerance: working rows, looks at the residual, and the gathering of unfinished rows."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.outcome import OperatorError, Outcome, Start, evaluate, read
from settlepoint.progress import Look, Progress
from settlepoint.solution import Status, Trace
from settlepoint.solvers.solver import State, gather_state
from settlepoint.stop import Tolerance

_WASTE = 0.25  # compact when finished rows have cost this share of a batch evaluation
_BLIND = 2.0**-8  # share of a rounding unit of the value below which no tolerance can be judged
_AGREE = 64  # rounding units by which gathered rows may differ from the whole batch


class Search:
    """A solve under a Tolerance: the working rows, and what finished rows left behind."""

    def __init__(self, eq: Equation, z: Tensor, start: Start, stop: Tolerance, *, trace: bool, compact: str | bool):
        self.eq, self.z, self.start, self.stop = eq, z, start, stop
        self.state: State | None = None
        self.rounded = eq.layout is not None and eq.layout.rounded
        self.rows = np.arange(len(z))  # original number of every working row
        self.progress = Progress(len(z), stop, _eps(eq, z), start.solver.recovery, eq.triangular)
        self.best_z, self.previous, self.snapshot = z, z, None
        self.extra: int = 0
        self.extra_rows: Tensor | None = None
        self.work_rows: Tensor | int = 0  # of extra calls counted by row
        self.mask: Tensor | None = None  # (rows, 1), set once a row has finished
        self.work = self.waste = self.step = 0
        self.checks = np.zeros(len(z), dtype=np.int64)  # calls of a working row for the compaction check
        self.seen: list[tuple] | None = [] if trace else None
        self.done: list[Finished] = []
        self.notes: list[str] = []
        self.verified = compact is True
        self.compacting = compact in ("auto", True) and len(z) > 1
        if self.compacting and not eq.selectable:
            self.compacting = False
            self.notes.append("compaction off: the equation's space needs a select to restrict it to some rows")

    def run(self) -> Outcome:
        """Iterate until every row has a status."""
        size = len(self.z)
        while self.rows.size and self.progress.finished < self.rows.size:
            try:
                image = evaluate(self.eq, self.z)
            except Exception as error:
                if not self.step:
                    raise
                raise OperatorError(self._interrupted(size), self.step + 1) from error
            self.step += 1
            self.work += self.rows.size
            r = image - self.z
            if self.step % self.stop.every == 0 or self.step == self.stop.max_steps:
                self._look(image, r)
                if self.progress.finished == self.rows.size:
                    break
                if self.compacting and self.waste >= _WASTE * self.rows.size:
                    image, r = self._compact(image, r)
            try:
                self._advance(image, r)
            except Exception as error:
                raise OperatorError(self._interrupted(size), self.step + 1) from error
            self.waste += self.progress.finished
        return self._outcome(size)

    def _advance(self, image: Tensor, r: Tensor) -> None:
        moved, extra = self._stepped(image, r)
        if self.rounded:
            moved = self.eq.layout.settle(moved)  # type: ignore[union-attr]
        if self.mask is not None:
            moved = torch.where(self.mask, moved, self.z)
        self.previous, self.z = self.z, moved
        if isinstance(extra, Tensor):
            self.extra_rows = extra if self.extra_rows is None else self.extra_rows + extra
            self.work_rows = self.work_rows + extra.sum()
        else:
            self.extra += extra
            self.work += extra * self.rows.size

    def _stepped(self, image: Tensor, r: Tensor) -> tuple[Tensor, int | Tensor]:
        """The next iterate, and the solver's own calls; of a chain P(z) itself, which z + r is only in rounding."""
        if self.eq.triangular and (blended := self.start.solver.blend(self.z, image)) is not None:
            return blended, 0
        if self.state is None:
            self.state = self.start.init(self.eq, self.z, r)
        moved, self.state, extra = self.start.solver.step(self.eq, self.z, r, self.state)
        return moved, extra

    def _look(self, image: Tensor, r: Tensor) -> None:
        progress = self.progress
        if torch.is_grad_enabled():
            with torch.no_grad():
                seen = self._measure(image.detach(), r.detach(), self.z.detach())
        else:
            seen = self._measure(image, r, self.z)
        if self.seen is not None:
            self.seen.append((self.rows, seen.residual, self.step + self.extra + self.checks, self.extra_rows))
        improved, finished = progress.look(seen, self.step)
        if improved is None:
            self.best_z = self.z
        elif improved.any():
            self.best_z = torch.where(self._device(improved)[:, None], self.z, self.best_z)
        if finished is not None:
            self._leave(finished, seen)
        self.snapshot = self.z.detach() if progress.wants_snapshot else self.snapshot if progress.snapshot_age else None

    def _measure(self, image: Tensor, r: Tensor, z: Tensor) -> Look:
        """The numbers of one look, brought to the host in one read."""
        norm = self.eq.measure
        if not (self.stop.rtol or self.progress.suspicious):
            return Look(read(norm(r)))
        table = {"residual": norm(r)}
        if self.stop.rtol:
            table["image"] = norm(image)
        if self.progress.suspicious:
            table["size"], table["stride"] = norm(z), norm(z - self.previous)
            table["moved"] = norm(z - self.best_z)
            if self.snapshot is not None:
                table["returned"] = norm(z - self.snapshot)
            if self.state is not None and self.state.displacement is not None:
                table["drift"] = norm(self.state.displacement - r)
        return Look(**dict(zip(table, read(torch.stack(list(table.values()))), strict=True)))

    def _device(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.z.device)

    def _leave(self, finished: np.ndarray, seen: Look) -> None:
        """Put away the rows that finished now: converged ones as they are, others at their best iterate."""
        progress = self.progress
        local = np.flatnonzero(finished)
        index = self._device(local)
        good = progress.status[local] == Status.CONVERGED
        taken = np.where(good, self.step, progress.last[local])
        fallen = ~good & ~np.isfinite(progress.best[local])  # never had a finite residual: keep what was given
        value = self.best_z.index_select(0, index)
        if good.any():
            value = torch.where(self._device(good)[:, None], self.z.index_select(0, index), value)
        residual = np.where(good, seen.residual[local], np.where(fallen, np.nan, progress.best[local]))
        extra = None if self.extra_rows is None else self.extra_rows.index_select(0, index)
        drift = self.state.displacement if self.state is not None else None
        self.done.append(
            Finished(
                self.rows[local], value, progress.status[local], np.full(len(local), self.step), taken - 1, residual,
                self.step + self.extra + self.checks[local], extra,
                None if drift is None else drift.index_select(0, index),
            )
        )  # fmt: skip
        self.mask = self._device(progress.active)[:, None]

    def _compact(self, image: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Gather the unfinished rows; the first time only after one call on them has agreed with what is known."""
        keep = self.progress.active
        index = self._device(np.flatnonzero(keep))
        try:
            eq = self.eq.rows(index)
            z = self.z.index_select(0, index)
            if not self.verified:
                self._verify(index, image)
        except Exception as error:
            self.compacting = False
            self.notes.append(f"compaction off: {error}; hand tensors of the whole batch over as context")
            return image, r
        self.eq, self.z, self.rows = eq, z, self.rows[keep]
        self.best_z, self.previous = self.best_z.index_select(0, index), self.previous.index_select(0, index)
        self.snapshot = None if self.snapshot is None else self.snapshot.index_select(0, index)
        self.state = gather_state(self.state, index)  # type: ignore[assignment]
        self.extra_rows = None if self.extra_rows is None else self.extra_rows.index_select(0, index)
        self.progress.keep(keep)
        self.checks = self.checks[keep]
        self.mask, self.waste = None, 0
        return image.index_select(0, index), r.index_select(0, index)

    def _verify(self, index: Tensor, image: Tensor) -> None:
        """One call on the rows in index must give what the whole batch gave.

        The first of them is left out, so that none stands where it stood: rows left over often come first, which hides
        an operator that goes by position.
        """
        index = index[1:] if len(index) > 1 else index
        eq, z, known = self.eq.rows(index), self.z.index_select(0, index), image.index_select(0, index)
        with torch.no_grad():
            self.work += len(z)
            self.checks = self.checks.copy()
            self.checks[index.cpu().numpy()] += 1
            image = evaluate(eq, z)
            gap = eq.norm(image - known) / (eq.norm(z) + eq.norm(known))
            if not bool((gap <= _AGREE * _eps(eq, z)).all() | (gap.numel() == 0)):
                raise ValueError(
                    f"operator on {len(z)} gathered rows differs from the same rows in the whole batch by "
                    f"{float(gap.nan_to_num(float('inf')).max()):.1e} of their size (batch statistics, randomness, or "
                    "a tensor it closes over)"
                )
        self.verified = True

    def _interrupted(self, size: int) -> Outcome:
        """The outcome so far, for an operator that raised: unfinished rows count as out of steps."""
        finished = self.progress.active
        if finished.any():
            self.progress.status[finished] = Status.MAX_STEPS
            self._leave(finished, Look(self.progress.best))
        return self._outcome(size)

    def _outcome(self, size: int) -> Outcome:
        done, device = self.done, self.z.device
        order = np.argsort(np.concatenate([d.rows for d in done])) if done else np.arange(0)
        join = lambda name: np.concatenate([getattr(d, name) for d in done])[order] if done else np.arange(0)  # noqa: E731
        whole = lambda name, dtype: torch.as_tensor(join(name), dtype=dtype, device=device)  # noqa: E731
        index = torch.from_numpy(order).to(device)
        stack = lambda parts: torch.cat(parts).index_select(0, index)  # noqa: E731
        evals = whole("evals", torch.int64)
        if any(d.extra is not None for d in done):
            evals = evals + stack(
                [torch.zeros_like(d.value[:, 0]).long() if d.extra is None else d.extra for d in done]
            )
        drift = [d.value.detach() * torch.nan if d.drift is None else d.drift for d in done]
        moved = any(d.drift is not None for d in done)
        value = stack([d.value for d in done]) if done else self.z
        return Outcome(
            value, self._judged(value, whole("status", torch.int64), residual := whole("residual", self.z.dtype)),
            whole("steps", torch.int64), evals, residual, whole("taken", torch.int64),
            self.work + int(self.work_rows),
            self._trace(size), self.notes + list(self.state.notes if self.state is not None else ()),
            stack(drift) if moved else None,
            self.state if len(self.rows) == size else None,
        )  # fmt: skip

    def _judged(self, value: Tensor, status: Tensor, residual: Tensor) -> Tensor:
        """CONVERGED rows so large that rounding alone can make their residual vanish are STALLED.

        A linear system without a solution is the usual way there: at ||x|| = 1e16, x - (A x - b) is x, whatever b is.
        A triangular operator whose residual is zero has given every entry from those before: that row is right.
        """
        size = self.eq.measure(value.detach())
        blind = self.stop.atol + self.stop.rtol * size < _BLIND * _eps(self.eq, value) * size
        if self.eq.triangular:
            blind &= residual != 0
        return torch.where(blind & (status == int(Status.CONVERGED)), int(Status.STALLED), status)

    def _trace(self, size: int) -> Trace | None:
        if self.seen is None:
            return None
        residual = np.full((len(self.seen), size), np.nan)
        evals = np.zeros((len(self.seen), size), dtype=np.int64)
        first = 0
        for _, group in groupby(self.seen, key=lambda line: id(line[0])):
            lines = list(group)
            rows = lines[0][0]
            here = slice(first, first := first + len(lines))
            residual[here, rows] = np.stack([norms for _, norms, _, _ in lines])
            evals[here, rows] = np.stack([spent for _, _, spent, _ in lines])
            if lines[-1][3] is not None:
                none = torch.zeros_like(lines[-1][3])
                evals[here, rows] += torch.stack([none if e is None else e for _, _, _, e in lines]).cpu().numpy()
        steps = np.zeros(size, dtype=np.int64)
        for d in self.done:
            steps[d.rows] = d.steps
        looked = np.array([min((k + 1) * self.stop.every, self.stop.max_steps) for k in range(len(self.seen))])
        over = looked[:, None] > steps[None, :]
        residual[over], evals[over] = np.nan, 0
        evals = np.maximum.accumulate(evals, 0)
        device = self.z.device
        return Trace(
            torch.as_tensor(residual, dtype=self.z.dtype, device=device), torch.as_tensor(evals, device=device)
        )


@dataclass
class Finished:
    """Rows that left the search at one look."""

    rows: np.ndarray
    value: Tensor
    status: np.ndarray
    steps: np.ndarray
    taken: np.ndarray
    residual: np.ndarray
    evals: np.ndarray
    extra: Tensor | None
    drift: Tensor | None


def _eps(eq: Equation, z: Tensor) -> float:
    return torch.finfo(z.dtype).eps if eq.layout is None else eq.layout.eps
