"""Random instances of a statement: its value as printed, as corrected and as measured, and how often each fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from settlepoint.certify import jacobians
from settlepoint.equation import Equation

SLACK = 1e-12
"""Relative rounding of what is measured."""


@dataclass(frozen=True)
class Trials:
    """One entry an instance (N,): the value by the printed form, by the corrected one, and what both are to bound.

    inf: no claim is made, or, in measured, the iterates leave. fails: whether a form is violated. bound: the claim is
    measured <= corrected, not a value or a verdict. evals: operator calls times rows. curves: of a figure, by name.
    """

    printed: Tensor
    corrected: Tensor
    measured: Tensor
    printed_fails: Tensor
    corrected_fails: Tensor
    bound: bool = True
    evals: int = 0
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Numbers of the instance that is shown, and counts over all of them."""
        i = self.shown
        return {
            "printed": float(self.printed[i]),
            "corrected": float(self.corrected[i]),
            "measured": float(self.measured[i]),
            "printed fails": float(self.printed_fails.sum()),
            "corrected fails": float(self.corrected_fails.sum()),
            "instances": float(len(self.measured)),
            "claims": float(self.corrected.isfinite().sum()),
            "used": float(self.used.max()),
            "evals": float(self.evals),
        }

    @property
    def used(self) -> Tensor:  # (N,)
        """The share of a bound that is used, measured over corrected; 0 where nothing is measured or bounded."""
        claimed = self.corrected.isfinite() & (self.measured > 0) & self.bound
        return torch.where(claimed, self.measured / self.corrected, 0.0)

    @property
    def shown(self) -> int:
        """The first where the printed form fails; where it never does, the one with the least room left."""
        fails = self.printed_fails.double()
        return int(fails.argmax() if bool(fails.any()) else self.used.argmax())

    def but(self, fails: Tensor) -> Trials:
        """The same, where the corrected form also fails in the instances of `fails` (N,)."""
        return replace(self, corrected_fails=self.corrected_fails | fails)


def bounds(
    printed: Tensor,
    corrected: Tensor,
    measured: Tensor,
    *,
    strict: bool = False,
    evals: int = 0,
    curves: Mapping[str, Mapping[str, Any]] | None = None,
) -> Trials:
    """Of measured <= bound; strict: the printed form says <."""
    p, c, m = torch.broadcast_tensors(printed.double(), corrected.double(), measured.double())
    fails = ~(m < p) if strict else ~(m <= p * (1 + SLACK))
    return Trials(p, c, m, fails, ~(m <= c * (1 + SLACK)), evals=evals, curves=curves or {})


def values(printed: Tensor, corrected: Tensor, measured: Tensor, share: float, *, evals: int = 0) -> Trials:
    """Of a value that is claimed to within a share of what is measured."""
    p, c, m = torch.broadcast_tensors(printed.double(), corrected.double(), measured.double())
    off = lambda v: ~((v - m).abs() <= share * m.abs())  # noqa: E731
    return Trials(p, c, m, off(p), off(c), bound=False, evals=evals)


def together(parts: Sequence[Trials]) -> Trials:
    """The instances of all parts, with the curves of the first part that has some."""
    names = ("printed", "corrected", "measured", "printed_fails", "corrected_fails")
    tensors = (torch.cat([getattr(p, name) for p in parts]) for name in names)
    curves = next((p.curves for p in parts if p.curves), {})
    return Trials(*tensors, bound=parts[0].bound, evals=sum(p.evals for p in parts), curves=curves)


@dataclass(frozen=True)
class Statement:
    """A row of the table.

    text: what the printed form says, what is right, and the counterexample. trials(n, generator): n instances. costly:
    it has fewer of them. wrong: the printed form has a counterexample, so that it must fail somewhere.
    """

    text: str
    trials: Callable[[int, torch.Generator], Trials]
    wrong: bool = True
    costly: bool = False


def normal(g: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=g, dtype=torch.float64)


def uniform(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Numbers in [low, high) in float64."""
    return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)


def single(value: float) -> Tensor:
    """One number as the value of one instance (1,)."""
    return torch.tensor([value], dtype=torch.float64)


def sized(A: Tensor, norm: Tensor | float) -> Tensor:  # (..., m, k)
    """A scaled to ||A||_2 = norm, one value or one a matrix."""
    size = torch.as_tensor(norm, dtype=A.dtype) / torch.linalg.matrix_norm(A, ord=2)
    return A * size[..., None, None]


def length(x: Tensor) -> Tensor:  # (N, ...) -> (N,)
    """The 2-norm of every row."""
    return torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1)


def iterates(eq: Equation, x: Tensor, steps: int) -> Tensor:  # (steps + 1, N, m)
    """x, P(x), P(P(x)), ..."""
    found = [x]
    for _ in range(steps):
        found.append(eq.image(found[-1]))  # pyright: ignore[reportArgumentType]
    return torch.stack(found)


def slopes(eq: Equation, x: Tensor) -> Tensor:  # (N,)
    """||J||_2 at x, from the dense Jacobian of every row."""
    bound = eq.at(x)
    assert bound.layout is not None
    return torch.linalg.matrix_norm(jacobians(bound, bound.layout.flatten(x)), ord=2)
