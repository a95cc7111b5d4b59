"""What makes a model settle: a loss on all iterates, on a random number of them, and a penalty on growth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from settlepoint.adjoints import Unrolled
from settlepoint.equation import Equation
from settlepoint.solve import FixedPoint, solve
from settlepoint.solvers import Picard
from settlepoint.stop import FixedSteps

Penalty = Callable[[Equation, Tensor], Tensor]


class Settles(Protocol):
    """A model that encodes, iterates and decodes, such as models.FieldTransformer."""

    settle: FixedPoint

    def encode(self, u: Tensor) -> Any: ...

    def start(self, f: Any) -> Tensor: ...

    def decode(self, x: Tensor) -> Tensor: ...


def iterates(model: Settles, f: Any, steps: int, x: Tensor | None = None) -> Iterator[Tensor]:
    """x_1, ..., x_steps of the model's own solver, started at x, or at model.start(f), f = model.encode(u)

    The gradient goes through all of them, whatever the model's own is; the model is left as it is. Raises ValueError
    unless the solver is Picard's, which alone is the same in single steps as in a row.
    """
    settle, state = model.settle, model.start(f) if x is None else x
    if not isinstance(settle.solver or Picard(), Picard):
        raise ValueError(f"the solver of model must be Picard, whose steps have no memory, got {settle.solver!r}")
    eq, _ = settle.posed(f, state)
    for _ in range(steps):
        state = solve(eq, state, settle.solver, FixedSteps(1), Unrolled()).value
        assert isinstance(state, Tensor)
        yield state


@dataclass(frozen=True, kw_only=True)
class AllIterates:
    """sum_k w_k loss(Q x_k, y) / sum_k w_k + share * penalty(x = T(x, f), x_K),  k = 1, ..., K,  w_k = k^growth

    counts: K is drawn from counts[0], ..., counts[1] in every step of the optimiser: no number of iterations is
    special. ahead: in half of the steps, up to so many iterations go ahead without a gradient, so that the loss is
    also asked for where the iteration has arrived. growth: how much more the later iterates count. penalty: what keeps
    T from expanding, such as certify.jacobian_penalty. generator draws, on the CPU.
    """

    counts: tuple[int, int] = (4, 8)
    ahead: int = 0
    growth: float = 0.0
    share: float = 0.0
    penalty: Penalty | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self):
        if not 1 <= self.counts[0] <= self.counts[1]:
            raise ValueError(f"counts must ascend from at least 1, got {self.counts}")
        if self.ahead < 0 or not self.share >= 0 or not math.isfinite(self.growth):
            raise ValueError(
                f"ahead and share must be at least 0, growth finite, got {self.ahead}, {self.share} and {self.growth}"
            )
        if self.share and self.penalty is None:
            raise ValueError(f"penalty must be given where it has a share, got none and {self.share}")

    def __call__(self, model: Settles, x: Tensor, y: Tensor) -> Tensor:
        f = model.encode(x)
        states = list(iterates(model, f, self._draw(*self.counts), self._ahead(model, f)))
        weights = [k**self.growth for k in range(1, len(states) + 1)]
        losses = torch.stack([self.loss(model.decode(state), y) for state in states])
        value = losses @ losses.new_tensor(weights) / sum(weights)
        if self.penalty is None or not self.share:
            return value
        return value + self.share * self.penalty(model.settle.posed(f)[0], states[-1].detach())

    @torch.no_grad()
    def _ahead(self, model: Settles, f: Any) -> Tensor:
        """Where the loss begins."""
        return [model.start(f), *iterates(model, f, self._draw(0, self.ahead) * self._draw(0, 1))][-1]

    def _draw(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=self.generator))
