"""Jacobi iteration on chains of discrete entries: all entries at once, the same answer as one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.chains.decoded import Decoded
from settlepoint.chains.noise import GumbelNoise
from settlepoint.solution import Status

_ACTIVE = -1


class Predictor(ABC):
    """Logits of the entries of a chain; entry i's depend on the entries before i alone."""

    @abstractmethod
    def predict(self, tokens: Tensor, low: int, high: int) -> tuple[Tensor, int]:
        """Logits of the entries low, ..., high - 1 of the rows that go on, and how many entries a row were evaluated.

        (R, n) -> (R, high - low, V)
        """

    @abstractmethod
    def settle(self, low: int, keep: Tensor | None) -> None:
        """Told after a sweep: entries before low do not change any more, and only the rows `keep` go on; None: all."""


class Whole(Predictor):
    """Logits of all entries by one function of all entries, (R, n) -> (R, n, V)."""

    def __init__(self, logits: Callable[[Tensor], Tensor]):
        self.logits = logits

    def predict(self, tokens: Tensor, low: int, high: int) -> tuple[Tensor, int]:
        found = self.logits(tokens)
        if found.ndim != 3 or found.shape[:2] != tokens.shape:
            raise ValueError(f"logits must be (*{tuple(tokens.shape)}, V) for these entries, got {tuple(found.shape)}")
        return found[:, low:high], tokens.shape[1]

    def settle(self, low: int, keep: Tensor | None) -> None:
        """Nothing is kept from sweep to sweep."""


@dataclass(frozen=True, kw_only=True)
class Sweeping:
    """How a chain is swept and what of it is kept.

    block: entries swept at once, the first that are not settled; None: all. ends: entries at which a row ends.
    filling: what stands behind an end. temperature: divides the logits before the noise is added. monitor, trace: keep
    the divergence and the states of Decoded.
    """

    block: int | None = None
    ends: Sequence[int] = ()
    filling: int = 0
    temperature: float = 1.0
    noise: GumbelNoise | None = None
    monitor: bool = False
    trace: bool = False

    def __post_init__(self):
        block = 1 if self.block is None else self.block
        if isinstance(block, bool) or not isinstance(block, int) or block < 1:
            raise ValueError(f"block must be a whole number of at least 1, got {block!r}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be finite and above 0, got {self.temperature}")


@torch.no_grad()
def swept(predictor: Predictor, start: Tensor, how: Sweeping) -> Decoded:
    """y_i = argmax(logits_i(y_<i) / temperature + noise_i) for all i, the first maximum    (Eq. 35 of Zappala et al.)

    start: (B, n), n >= 1, where the sweeps begin; it decides how many there are and not what is found. An entry is
    right as soon as all entries before it came out of a sweep as they went in, so that each sweep settles at least
    one more: at most n sweeps, whatever the logits are. A row that has ended takes no further part.
    """
    course = _Course(predictor, start, how)
    while len(course.rows):
        course.sweep()
    return course.result()


def jacobi_sample(
    logits: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    block: int | None = None,
    do_sample: bool = True,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    monitor: bool = False,
    trace: bool = False,
) -> Decoded:
    """Sample an autoregressive model, such as models.PixelCNN, with all entries at once

    logits: (R, n) whole numbers -> (R, n, V), where entry i's may depend on the entries before i alone. start: (B, n)
    int64. The sample is the one that drawing entry after entry gives with the same Gumbel noise, which block=1 does;
    without do_sample, the entries of largest logit. Other arguments: see jacobi_decode. Beside the model's own memory,
    two or, with monitor, three tensors of (B, n, V) are held, and (sweeps + 1, B, n) with trace.

        >>> import torch
        >>> weight = torch.eye(5).roll(1, 1)  # after v comes v + 1
        >>> successor = lambda y: torch.cat((weight[:1].expand(len(y), 1, 5), weight[y[:, :-1]]), 1)
        >>> found = jacobi_sample(successor, torch.zeros(1, 6, dtype=torch.int64), do_sample=False)
        >>> found.tokens.tolist(), found.sweeps.tolist()
        ([[1, 2, 3, 4, 0, 1]], [6])

    Raises ValueError for a start of another kind, and logits of another shape.
    """
    if start.ndim != 2 or start.dtype != torch.int64 or not start.numel():
        raise ValueError(f"start must be (B, n) int64 with B, n >= 1, got {tuple(start.shape)} {start.dtype}")
    noise = GumbelNoise(len(start), generator) if do_sample else None
    how = Sweeping(block=block, temperature=temperature, noise=noise, monitor=monitor, trace=trace)
    return swept(Whole(logits), start, how)


class _Course:
    """Where every row stands. rows: those that go on."""

    def __init__(self, predictor: Predictor, start: Tensor, how: Sweeping):
        self.predictor, self.how, self.tokens, self.n = predictor, how, start.clone(), start.shape[1]
        self.rows = torch.arange(len(start), device=start.device)
        self.places = torch.arange(self.n, device=start.device)
        self.settled, self.sweeps = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self.status = torch.full_like(self.rows, _ACTIVE)
        self.ends = start.new_tensor([*how.ends])
        self.evaluations, self.course, self.divergence, self.states = 0, [], [], [start.clone()]
        self.before: tuple[Tensor, Tensor, int] | None = None  # log-probabilities, which were open, first place

    def sweep(self) -> None:
        rows, y, settled = self.rows, self.tokens[self.rows], self.settled[self.rows]
        ends = (settled + (self.how.block or self.n)).clamp(max=self.n)
        low, high = int(settled.min()), int(ends.max())
        logits, count = self.predictor.predict(y, low, high)
        self.evaluations += count * len(rows)
        places = self.places[low:high]
        free = (places >= settled[:, None]) & (places < ends[:, None])
        self._watch(logits, free, low)
        new = y.clone()
        new[:, low:high] = torch.where(free, self._chosen(logits, low, high), y[:, low:high])
        self.tokens[rows] = new
        self.sweeps[rows] += 1
        agreed = (new == y).long().cumprod(1).sum(1)
        bad = ~(logits < torch.inf).all(-1) & free  # NaN or inf; -inf forbids an entry
        self._judge(new, torch.minimum(agreed + 1, ends), low + _first(bad))
        self._close()

    def _chosen(self, logits: Tensor, low: int, high: int) -> Tensor:
        if self.how.noise is None:
            return logits.argmax(-1)
        return (logits / self.how.temperature + self.how.noise.window(low, high, logits)[self.rows]).argmax(-1)

    def _judge(self, new: Tensor, reached: Tensor, broken_at: Tensor) -> None:
        """How far the rows have come, and the status of those that end here."""
        broken = broken_at < reached
        reached = torch.minimum(reached, broken_at)
        end = _first(torch.isin(new, self.ends) & (self.places < reached[:, None]))
        ended = end < reached
        reached = torch.minimum(reached, end + 1)
        self.settled[self.rows] = reached
        self.status[self.rows[ended | (reached == self.n)]] = int(Status.CONVERGED)
        self.status[self.rows[broken & ~ended]] = int(Status.NONFINITE)

    def _close(self) -> None:
        """Records of the sweep; rows that have ended go."""
        self.course.append(self.settled.clone())
        if self.how.trace:
            self.states.append(self.tokens.clone())
        going = self.status[self.rows] == _ACTIVE
        self.rows = self.rows[going]
        if not len(self.rows):
            return
        keep = None if bool(going.all()) else going.nonzero().flatten()
        self.predictor.settle(int(self.settled[self.rows].min()), keep)
        if keep is not None and self.before is not None:
            self.before = self.before[0][keep], self.before[1][keep], self.before[2]

    def _watch(self, logits: Tensor, free: Tensor, low: int) -> None:
        """KL(now || the sweep before), over the places that were open in both."""
        if not self.how.monitor:
            return
        now = (logits / self.how.temperature).log_softmax(-1)
        found = now.new_full((len(self.status),), torch.nan)
        if self.before is not None:
            q, open_before, first = self.before
            width = min(now.shape[1], first + q.shape[1] - low)
            p, q = now[:, :width], q[:, low - first :][:, :width]
            both = free[:, :width] & open_before[:, low - first :][:, :width]
            each = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)
            found[self.rows] = torch.where(both, each, 0.0).sum(1) / both.sum(1)
        self.before = now, free, low
        self.divergence.append(found)

    def result(self) -> Decoded:
        within = self.places < self.settled[:, None]
        return Decoded(
            tokens=torch.where(within, self.tokens, self.how.filling), lengths=self.settled, status=self.status,
            sweeps=self.sweeps, calls=len(self.course), evaluations=self.evaluations, settled=torch.stack(self.course),
            divergence=torch.stack(self.divergence) if self.how.monitor else None,
            states=torch.stack(self.states) if self.how.trace else None,
        )  # fmt: skip


def _first(mask: Tensor) -> Tensor:  # (R, W) -> (R,)
    """The first place that is True; one that no chain has where there is none."""
    return torch.where(mask.any(1), mask.long().argmax(1), 1 << 40)
