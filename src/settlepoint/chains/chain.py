"""`Chain`: a state that is stepped n times; as a recurrence, as a triangular equation, and many steps at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation


@dataclass(frozen=True)
class Chain:
    """x_{k+1} = step(x_k, k), k = 0, ..., length - 1, for every row of a batch on its own.

    step(x, k, *context, *inputs) -> like x: called on M pairs of a row and a position at once; x: (M, ...) states,
    k: (M,) positions. context: tensors (B, ...), of which step gets the M entries of the rows of its pairs. inputs:
    tensors (B, length, ...), of which it gets the entry of row and position, such as noise drawn before. linear:
    (length,), a_k with step(x, k) about a_k x + slowly changing; used by the form "implicit" of `Sweeps`.

    A step must be a function: the same pair gives the same result in any company (no dropout, no batch statistics).
    """

    step: Callable[..., Tensor]
    length: int
    linear: Tensor | None = None
    context: tuple[Tensor, ...] = ()
    inputs: tuple[Tensor, ...] = ()

    def __post_init__(self):
        if not callable(self.step):
            raise TypeError(f"step must be callable, got {type(self.step).__name__}")
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 1:
            raise ValueError(f"length must be an integer >= 1, got {self.length!r}")
        if self.linear is not None and not isinstance(self.linear, Tensor):
            raise TypeError(f"linear must be a tensor, got {type(self.linear).__name__}")
        if self.linear is not None and self.linear.shape != (self.length,):
            raise ValueError(
                f"linear must hold one number for each of the {self.length} steps, got {_shape(self.linear)}"
            )
        if self.linear is not None and not bool(self.linear.isfinite().all()):
            raise ValueError("linear must be finite, got NaN or Inf")

    def at(self, start: Tensor) -> Chain:
        """This chain, if its context and inputs have one entry for every row of start (B, ...); else ValueError.

        Raises TypeError for a start of whole or complex numbers.
        """
        if not isinstance(start, Tensor) or not start.is_floating_point():
            raise TypeError(f"start must be a tensor of real floating numbers, got {getattr(start, 'dtype', start)!r}")
        if start.ndim < 2 or 0 in start.shape[1:]:
            raise ValueError(f"start must be (B, ...) with at least one number a row, got {_shape(start)}")
        for name, values, lead in (
            ("context", self.context, (len(start),)),
            ("inputs", self.inputs, (len(start), self.length)),
        ):
            for value in values:
                if value.shape[: len(lead)] != lead:
                    raise ValueError(f"{name} must lead with {lead} for start {_shape(start)}, got {_shape(value)}")
        return self

    def called(self, x: Tensor, rows: Tensor, k: Tensor) -> Tensor:  # (M, ...), (M,), (M,) -> (M, ...)
        """One call of step on the pairs (rows, k); raises ValueError when its result does not look like x."""
        y = self.step(x, k, *(c[rows] for c in self.context), *(v[rows, k] for v in self.inputs))
        if y.shape != x.shape or y.dtype != x.dtype:
            raise ValueError(f"step must keep shape and dtype, {_shape(x)} {x.dtype}, got {_shape(y)} {y.dtype}")
        return y

    def sequential(self, start: Tensor) -> Tensor:  # (B, ...) -> (B, length + 1, ...)
        """The course x_0, ..., x_n, one step after the other: what every other way must give."""
        self.at(start)
        rows, course = torch.arange(len(start), device=start.device), [start]
        for k in range(self.length):
            course.append(self.called(course[-1], rows, torch.full_like(rows, k)))
        return torch.stack(course, 1)

    def equation(self, start: Tensor) -> Equation:
        """The course x_1, ..., x_n as fixed point of T(x) = (step(x_0, 0), step(x_1, 1), ..., step(x_{n-1}, n-1)).

        T is triangular: n Picard sweeps reach the fixed point from anywhere (Operator Learning Meets Numerical
        Analysis, Eq. 35). A state is (B, length, ...); give `solve` a Tolerance of max_steps >= length + 1.
        """
        self.at(start)
        context = (start, *self.context, *self.inputs)
        return Equation(self._swept, context=context, triangular=self.length)

    def _swept(self, x: Tensor, start: Tensor, *tensors: Tensor) -> Tensor:
        count, n = len(start), self.length
        rows = torch.arange(count, device=x.device).repeat_interleave(n)
        k = torch.arange(n, device=x.device).repeat(count)
        here = Chain(self.step, n, None, tensors[: len(self.context)], tensors[len(self.context) :])
        before = torch.cat((start[:, None], x[:, :-1]), 1)
        return here.called(before.flatten(0, 1), rows, k).reshape(x.shape)


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
