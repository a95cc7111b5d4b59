"""Carried: an implicit denoiser along a chain, its evaluations moved between the steps, its state kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from settlepoint.solve import FixedPoint
from settlepoint.stop import FixedSteps

Toward = Literal["uniform", "first", "last"]


class Denoiser(Protocol):
    """A model with a FixedPoint layer, such as models.FixedPointDenoiser."""

    settle: FixedPoint

    def __call__(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor: ...


def step_budget(total: int, steps: int, toward: Toward = "uniform") -> list[int]:
    """How many evaluations each step of a sampler gets, at least one, `total` in all.

    toward: "uniform", as even as whole numbers allow; "first", falling along a line from three parts at the first step
    of the sampler, where there is most noise, to one at the last; "last", rising so.

    >>> step_budget(8, 4), step_budget(8, 4, "first"), step_budget(8, 4, "last")
    ([2, 2, 2, 2], [3, 2, 2, 1], [1, 2, 2, 3])

    Raises ValueError for a place that there is not and fewer evaluations than steps.
    """
    if toward not in get_args(Toward):
        raise ValueError(f"toward must be one of {', '.join(get_args(Toward))}, got {toward!r}")
    if not 1 <= steps <= total:
        raise ValueError(f"total must be at least one evaluation for each of {steps} steps, got {total}")
    shares = torch.linspace(1.0 if toward == "uniform" else 3.0, 1.0, steps, dtype=torch.float64)
    counts = [1] * steps
    for _ in range(total - steps):
        lacking = shares * total / shares.sum() - torch.tensor(counts, dtype=torch.float64)
        counts[int(lacking.argmax())] += 1
    return counts[::-1] if toward == "last" else counts


class Carried:
    """epsilon(x, t) for a sampler: call k makes counts[k] evaluations of T, from the state that call k - 1 ended in

    warm: whether it starts there, or anew each time. evals: how many were made since `reset`. For a solver without
    memory, such as Picard. model.settle.stop is put back after each call.

    Raises ValueError for counts below one and for more calls than counts.
    """

    def __init__(self, model: Denoiser, counts: Sequence[int], *, warm: bool = True):
        if not counts or min(counts) < 1:
            raise ValueError(f"counts must be at least one evaluation a step, got {list(counts)}")
        self.model, self.counts, self.warm = model, tuple(counts), warm
        self.reset()

    def reset(self) -> None:
        """Begin another chain."""
        self.calls, self.evals = 0, 0
        self._state: Tensor | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.calls >= len(self.counts):
            raise ValueError(f"counts must have an entry for each call, got {len(self.counts)}; call reset() between")
        settle = self.model.settle
        before, settle.stop = settle.stop, FixedSteps(self.counts[self.calls])
        try:
            found = self.model(x, t, self._state if self.warm else None)
        finally:
            settle.stop = before
        assert settle.last is not None
        assert isinstance(settle.last.value, Tensor)
        self._state = settle.last.value
        self.evals += self.counts[self.calls]
        self.calls += 1
        return found
