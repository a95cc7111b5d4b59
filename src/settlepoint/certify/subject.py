"""`Subject`: what `settle check` is given of a user's model, and how it becomes an equation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from settlepoint.equation import Equation
from settlepoint.solve import FixedPoint, solve
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.solver import Solver
from settlepoint.spaces import State
from settlepoint.stop import Stop, Tolerance


@dataclass(frozen=True)
class Subject:
    """A model, or an operator T(x, *context), and inputs to check it on.

    model: an nn.Module with one `FixedPoint` in it, called as model(*inputs); or the operator itself, a module or a
    function, with inputs (x0, *context) whose first dimension counts the samples. depth: the iterations that it was
    trained with; without it those that the FixedPoint takes by itself (median), or 12 for an operator. score: a number
    from the output of the model, or from the state of an operator, larger is better: the task that the sweep follows.
    f, lam: of x = lam T(x) + f, for operators. name: for the report.

        >>> import torch
        >>> T = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
        >>> Subject(T, (torch.zeros(8, 4),), depth=6).posed().eq.operator is T
        True
    """

    model: Callable[..., Any]
    inputs: tuple
    depth: int | None = None
    score: Callable[[Any], float] | None = None
    f: State | None = None
    lam: float | Tensor = 1.0
    name: str = ""

    def __post_init__(self):
        if not callable(self.model):
            raise TypeError(f"model must be an nn.Module or a function, got {type(self.model).__name__}")
        if not isinstance(self.inputs, tuple) or not self.inputs:
            raise TypeError(f"inputs must be a tuple with at least one entry, got {type(self.inputs).__name__}")
        counts = isinstance(self.depth, int) and not isinstance(self.depth, bool) and self.depth >= 1
        if self.depth is not None and not counts:
            raise ValueError(f"depth must be an integer >= 1, got {self.depth!r}")
        if len(self.layers) > 1:
            raise ValueError(
                f"model must hold one FixedPoint, got {len(self.layers)}: {', '.join(self.layers)}; check the part of "
                "the model around one of them"
            )

    @property
    def layers(self) -> dict[str, FixedPoint]:
        """The FixedPoint layers in the model, by name."""
        found = self.model.named_modules() if isinstance(self.model, nn.Module) else ()
        return {name or "the model": m for name, m in found if isinstance(m, FixedPoint)}

    def posed(self) -> Posed:
        """The equation that is iterated for these inputs; runs a model once."""
        if not self.layers:
            x0, *context = self.inputs
            eq = Equation(self.model, self.f, self.lam, context=tuple(context))
            return Posed(eq, x0, Picard(), self.depth or 12, self._state_score(eq, x0))
        (layer,) = self.layers.values()
        seen: list[tuple[Equation, State]] = []
        hook = layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(layer.posed(*args, **kwargs)), with_kwargs=True
        )
        try:
            with torch.no_grad():
                self.model(*self.inputs)
        finally:
            hook.remove()
        if not seen:
            raise ValueError("model must call its FixedPoint, got a forward pass without it")
        eq, x0 = seen[0]
        return Posed(eq, x0, layer.solver or Picard(), self.depth or _taken(layer), self._model_score(layer))

    def _state_score(self, eq: Equation, x0: State) -> Callable[[Stop], float] | None:
        if (score := self.score) is None:
            return None

        def scored(stop: Stop) -> float:
            with torch.no_grad():
                return float(score(solve(eq, x0, Picard(), stop).value))

        return scored

    def _model_score(self, layer: FixedPoint) -> Callable[[Stop], float] | None:
        if (score := self.score) is None:
            return None

        def scored(stop: Stop) -> float:
            with torch.no_grad(), stopped(layer, stop):
                return float(score(self.model(*self.inputs)))

        return scored


@dataclass(frozen=True)
class Posed:
    """eq: what is iterated. x0: from where. solver: of the model. depth: of training. score: of the task, at a stop."""

    eq: Equation
    x0: State
    solver: Solver
    depth: int
    score: Callable[[Stop], float] | None


@contextmanager
def stopped(layer: FixedPoint, stop: Stop) -> Iterator[None]:
    """Inside: the layer stops otherwise; its own stop and its last report are put back."""
    before, last = layer.stop, layer.last
    layer.stop = stop
    try:
        yield
    finally:
        layer.stop, layer.last = before, last


def _taken(layer: FixedPoint) -> int:
    """The iterations of the latest pass: those asked for, or the median of those taken."""
    assert layer.last is not None
    if isinstance(layer.stop, Tolerance) or layer.stop is None:
        return max(1, int(layer.last.steps.median()))
    return max(1, int(layer.last.steps.max()))
