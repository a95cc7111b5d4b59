"""`Sweeps` solves a chain by sweeps over a sliding window, one call of step a sweep for all rows and positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from settlepoint.chains.chain import Chain
from settlepoint.chains.mixing import Mixing
from settlepoint.chains.secant import Secant
from settlepoint.chains.sliding import recurrence, slid, wide
from settlepoint.chains.swept import Swept
from settlepoint.solution import Solution, Status

Form = Literal["jacobi", "sum", "implicit", "secant"]
Told = Callable[[int, float], object]


@dataclass(frozen=True)
class Sweeps:
    """A sweep takes y_k = step(x_k, k) for all k of the window in one call, then runs forward

        x_{k+1}' = y_k + A_k (x_k' - x_k)        x_0' = x_0

    form: "jacobi" is A = 0, Picard on the trajectory; "sum" A = 1, Picard on the integral form x_n = x_0 + sum of
    increments (Shih et al. 2023); "implicit" A_k = chain.linear, whose linear part is solved exactly; "secant" the
    slope of step along the last change of x_k, measured anew every sweep for every row (at first chain.linear, or 1),
    Newton's method with a number for the derivative. Each is exact after at most n sweeps, whatever step is:
    x_{k+1}' = y_k once x_k is final.

    What is final is frozen. With e_k = ||x_{k+1} - step(x_k, k)|| / ||step(x_k, k)||, measured, position k + 1 is
    settled when all before it are and e_0 + ... + e_k <= tolerance (k + 1) / n: the sum over a settled chain is within
    the tolerance, and where steps do not enlarge differences that bounds the relative error at its end. The first
    position behind those becomes step of a settled state, e = 0, so every sweep settles one more at least. tolerance =
    0 gives the numbers of the sequential chain (of step on other batch shapes, whose rounding may differ).

    window: positions evaluated at once, the chain's length by default; every row has its own. depth: of Anderson
    acceleration over the window, 0 for none; it helps some chains and harms others. max_sweeps: the chain's length by
    default, which is always enough.

    Memory: about eight times window * B states (2 more with "secant", 2 * depth with Anderson), and what step itself
    needs for window * B states at once. No gradient is kept; for one, solve `Chain.equation`.
    """

    window: int | None = None
    tolerance: float = 0.0
    form: Form = "jacobi"
    depth: int = 0
    max_sweeps: int | None = None

    def __post_init__(self):
        for name, value, least in (
            ("window", self.window, 1),
            ("max_sweeps", self.max_sweeps, 1),
            ("depth", self.depth, 0),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        real = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not real or not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"tolerance must be a finite number >= 0, got {self.tolerance!r}")
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {self.form!r}")

    @torch.no_grad()
    def run(self, chain: Chain, start: Tensor, *, keep: bool = False, progress: Told | None = None) -> Swept:
        """The chain from start (B, ...). keep: return the whole course. progress: told calls and the share settled.

        Raises ValueError for a window larger than the chain, and for the form "implicit" where chain has no linear.

            >>> import torch
            >>> growing = Chain(lambda x, k: 3 * x * (1 - x), length=8)
            >>> found = Sweeps(window=4).run(growing, torch.tensor([[0.2]]))
            >>> found.calls, torch.equal(found.value, growing.sequential(torch.tensor([[0.2]]))[:, -1])
            (8, True)
        """
        window = self.window or chain.length
        if window > chain.length:
            raise ValueError(f"window must be at most the length of the chain, {chain.length}, got {window}")
        if self.form == "implicit" and chain.linear is None:
            raise ValueError('form "implicit" needs the linear part of the chain, got a chain with linear=None')
        march = _March(self, chain.at(start), start, window, keep)
        limit = chain.length if self.max_sweeps is None else self.max_sweeps
        while len(march.now.row):
            march.sweep(last=march.calls + 1 >= limit)
            if progress is not None:
                progress(march.calls, float(march.settled.sum()) / (len(start) * chain.length or 1))
        return march.answer()


@dataclass(frozen=True)
class _Windows:
    """Unfinished rows. row: (R,) their numbers; first: (R,), positions settled; x: (R, W + 1, ...), from there on."""

    row: Tensor
    first: Tensor
    x: Tensor
    mixing: Mixing | None
    secant: Secant | None

    def only(self, index: Tensor) -> _Windows:
        mixing = None if self.mixing is None else self.mixing.only(index)
        secant = None if self.secant is None else self.secant.only(index)
        return _Windows(self.row[index], self.first[index], self.x[index], mixing, secant)

    def shifted(self, ahead: Tensor) -> _Windows:
        """Every window moved on by its own number of positions; the last state stands in for those that enter."""
        _, (x,) = slid(ahead, self.x)
        mixing = None if self.mixing is None else self.mixing.shifted(ahead)
        secant = None if self.secant is None else self.secant.shifted(ahead)
        return _Windows(self.row, self.first + ahead, x, mixing, secant)


class _March:
    """Sweeps under way: the windows of unfinished rows, and what all rows have come to."""

    def __init__(self, how: Sweeps, chain: Chain, start: Tensor, window: int, keep: bool):
        self.how, self.chain, self.calls, self.work = how, chain, 0, 0
        rows = torch.arange(len(start), device=start.device)
        x = start[:, None].repeat(1, window + 1, *(1,) * (start.ndim - 1))
        mixing = Mixing.empty(x, how.depth) if how.depth else None
        secant = Secant.empty(x[:, 1:]) if how.form == "secant" else None
        self.now = _Windows(rows, torch.zeros_like(rows), x, mixing, secant)
        self.value = start.clone()
        self.status = torch.full_like(rows, int(Status.MAX_STEPS))
        self.steps, self.evals, self.settled = (torch.zeros_like(rows) for _ in range(3))
        self.residual = torch.zeros(len(start), dtype=torch.float64, device=start.device)
        self.trace: list[Tensor] = []
        self.course = None
        if keep:
            self.course = start.new_full((len(start), chain.length + 1, *start.shape[1:]), torch.nan)
            self.course[:, 0] = start

    def sweep(self, *, last: bool) -> None:
        """One call of step, one pass of the recurrence; rows that end leave."""
        now = self.now
        y, inside = self._images(now)
        seen = self._measured(now, y, inside)
        weight, secant = self._weights(now, y)
        x = self._forward(now, y, weight, seen.count)
        ahead = seen.count + seen.next_is_finite
        x = _mended(x, ahead)
        mixing = now.mixing
        if mixing is not None:
            x, mixing = mixing.step(now.x, x, self._later(now, ahead))
        self._note(now, x, seen, ahead)
        self.now = _Windows(now.row, now.first, x, mixing, secant).shifted(ahead)
        self._leave(seen.lost, last)

    def _images(self, now: _Windows) -> tuple[Tensor, Tensor]:
        """y_k for the window of every row, (R, W, ...), and which of them lie in the chain, (R, W)."""
        k = now.first[:, None] + torch.arange(now.x.shape[1] - 1, device=now.x.device)
        inside = k < self.chain.length
        row, slot = inside.nonzero(as_tuple=True)
        y = now.x[:, 1:].clone()
        y[row, slot] = self.chain.called(now.x[row, slot], now.row[row], k[row, slot])
        self.calls, self.work = self.calls + 1, self.work + len(row)
        self.evals[now.row] += inside.sum(1)
        self.steps[now.row] += 1
        return y, inside

    def _measured(self, now: _Windows, y: Tensor, inside: Tensor) -> _Residuals:
        """Which leading positions are within what the tolerance allows up to there."""
        slots = torch.arange(1, y.shape[1] + 1, device=y.device)
        allowed = self.how.tolerance * (now.first[:, None] + slots).double() / self.chain.length
        return _Residuals.of(now.x[:, 1:], y, inside, allowed - self.residual[now.row][:, None])

    def _forward(self, now: _Windows, y: Tensor, weight: Tensor, count: Tensor) -> Tensor:
        """The recurrence behind the `count` leading positions of every row, which stay as they are."""
        stay, ahead = torch.arange(y.shape[1], device=y.device) < count[:, None], now.x[:, 1:]
        fixed, x = wide(stay, y), y
        if self.how.form != "jacobi":
            weight = torch.where(stay, 0.0, weight)
            change = recurrence(weight, torch.where(fixed, 0.0, y - ahead))
            x = torch.cat((y[:, :1], y[:, 1:] + wide(weight[:, 1:], y) * change[:, :-1]), 1)
        return torch.cat((now.x[:, :1], torch.where(fixed, ahead, x)), 1)

    def _weights(self, now: _Windows, y: Tensor) -> tuple[Tensor, Secant | None]:  # (R, W)
        """A_k at every slot of every row, and what the next sweep measures it against."""
        k = now.first[:, None] + torch.arange(y.shape[1], device=y.device)
        linear = self.chain.linear if self.how.form in ("implicit", "secant") else None
        weight = torch.ones_like(k, dtype=y.dtype)
        if linear is not None:
            weight = linear.to(y)[k.clamp(max=self.chain.length - 1)]
        return (weight, None) if now.secant is None else now.secant.step(now.x[:, :-1], y, weight)

    def _later(self, now: _Windows, ahead: Tensor) -> Tensor:  # (R, W + 1)
        """Slots that are in the chain and not settled."""
        slots = torch.arange(now.x.shape[1], device=now.x.device)
        return (slots > ahead[:, None]) & (now.first[:, None] + slots <= self.chain.length)

    def _note(self, now: _Windows, x: Tensor, seen: _Residuals, ahead: Tensor) -> None:
        self.residual[now.row] += seen.total
        self.settled[now.row] = now.first + ahead
        self.trace.append(self.settled.clone())
        if self.course is not None:
            slots = torch.arange(1, x.shape[1], device=x.device)
            row, slot = (slots <= ahead[:, None]).nonzero(as_tuple=True)
            self.course[now.row[row], now.first[row] + slot + 1] = x[row, slot + 1]

    def _leave(self, lost: Tensor, last: bool) -> None:
        """Put away the rows at the end of their chain, those whose chain is not finite, and at the last sweep all."""
        now = self.now
        done = now.first == self.chain.length
        self.status[now.row[done]] = int(Status.CONVERGED)
        self.status[now.row[lost]] = int(Status.NONFINITE)
        left = (done | lost | last).nonzero()[:, 0]
        open_ = ~(done | lost)
        end = (self.chain.length - now.first).clamp(max=now.x.shape[1] - 1)
        slot = torch.where(open_, end, 0)
        self.value[now.row[left]] = now.x[left, slot[left]]
        self.residual[now.row[open_ & last]] = torch.nan
        self.now = now.only((~(done | lost | last)).nonzero()[:, 0])

    def answer(self) -> Swept:
        """What all rows have come to."""
        residual = self.residual.to(self.value.dtype)
        solution = Solution(self.value, self.status, self.steps, self.evals, self.work, residual)
        trace = torch.stack(self.trace) if self.trace else self.settled[None][:0]
        return Swept(solution, self.calls, self.settled, trace, self.course)


@dataclass(frozen=True)
class _Residuals:
    """Of the leading positions of every window, all (R,).

    count: how many are within what is allowed; total: sum of their relative residuals; next_is_finite, lost: whether
    the image behind them, exact, is finite or not (neither where the window has no more of the chain).
    """

    count: Tensor
    total: Tensor
    next_is_finite: Tensor
    lost: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, inside: Tensor, allowed: Tensor) -> _Residuals:
        gap, finite = _norm(y - x), torch.isfinite(y).flatten(2).all(2)
        relative = torch.where(gap == 0, 0.0, gap / _norm(y))
        good = (inside & finite & (relative.cumsum(1) <= allowed)).long().cumprod(1).bool()
        count = good.sum(1)
        at = count.clamp(max=x.shape[1] - 1)[:, None]
        exists = (count < x.shape[1]) & inside.gather(1, at)[:, 0]
        is_finite = finite.gather(1, at)[:, 0]
        return cls(count, torch.where(good, relative, 0.0).sum(1), exists & is_finite, exists & ~is_finite)


def _norm(x: Tensor) -> Tensor:  # (R, W, ...) -> (R, W) float64
    return torch.linalg.vector_norm(x.flatten(2), dim=2, dtype=torch.float64)


def _mended(x: Tensor, ahead: Tensor) -> Tensor:
    """x with the last settled state of a row wherever a later one is not finite, so that step sees numbers only."""
    finite = torch.isfinite(x).flatten(2).all(2)
    rows = torch.arange(len(x), device=x.device)
    return torch.where(wide(finite, x), x, x[rows, ahead][:, None])
