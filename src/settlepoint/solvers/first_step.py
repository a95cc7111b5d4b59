"""FirstStep: a learned first step, from what one evaluation shows of every component; then another solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, rowwise, select_state, stepped


@dataclass(frozen=True)
class FirstStepState(State):
    """inner: of the solver. jumped: (R,), rows that took the learned step. z, r: (R, W), where they started, while they
    may still go back.
    """

    inner: State
    jumped: Tensor | None = None
    z: Tensor | None = None
    r: Tensor | None = None

    @property
    def notes(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the solver."""
        return self.inner.notes

    @property
    def displacement(self) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the solver."""
        return self.inner.displacement


class FirstStep(Solver):
    """x_1 = q(P(x_0), mean of P(x_0), context), a polynomial in every component; from x_1 on `solver`.

    For classes whose solutions are smooth functions of what one evaluation shows. The polynomial is the same for every
    component, so the number of unknowns may change. mean: sum p |p| / sum |p| over the row, which zeros do not change.
    context: True adds the numbers among the equation's context (those with one value a row).
    degree: total degree. low, high: (c,), range of the inputs in training: rows with an input outside, by more than a
    tenth of the range, do not take the step. coefficients: one a monomial, in the order of `monomials`.

    reach: (2,), the largest component of the residual in training before and after the step; rows that begin with a
    larger one do not take it. Without, no row is refused for that.

    Components in which P(x_0) = x_0 exactly stay. A row whose residual at x_1 is not smaller than at x_0, or beyond
    reach, goes back and continues as if the step had not been: the step costs one evaluation at most there.
    """

    low: Tensor
    high: Tensor
    reach: Tensor

    def __init__(
        self,
        solver: Solver,
        degree: int = 3,
        *,
        context: bool = False,
        coefficients: Sequence[float] | Tensor = (),
        low: Sequence[float] | Tensor = (),
        high: Sequence[float] | Tensor = (),
        reach: Sequence[float] | Tensor = (),
    ):
        super().__init__()
        if not isinstance(solver, Solver):
            raise TypeError(f"solver must be a Solver, got {type(solver).__name__}")
        if isinstance(degree, bool) or not isinstance(degree, int) or not 1 <= degree <= 6:
            raise ValueError(f"degree must be an integer from 1 to 6, got {degree!r}")
        if len(low) != len(high):
            raise ValueError(f"low and high must have one entry an input each, got {len(low)} and {len(high)}")
        terms = len(monomials(len(low), degree)) if len(low) else 0
        if len(coefficients) != terms:
            raise ValueError(f"coefficients must hold {terms} numbers for {len(low)} inputs, got {len(coefficients)}")
        if len(reach) not in (0, 2):
            raise ValueError(f"reach must hold two numbers, or none, got {len(reach)}")
        self.solver, self.degree, self.context = solver, degree, bool(context)
        self.recovery, self.calls = 1 + solver.recovery, solver.calls
        self.coefficients = nn.Parameter(torch.as_tensor(coefficients, dtype=torch.float64).clone())
        self.register_buffer("low", torch.as_tensor(low, dtype=torch.float64).clone())
        self.register_buffer("high", torch.as_tensor(high, dtype=torch.float64).clone())
        self.register_buffer("reach", torch.as_tensor(reach, dtype=torch.float64).clone())

    def extra_repr(self) -> str:
        numbers = {"coefficients": self.coefficients, "low": self.low, "high": self.high, "reach": self.reach}
        learned = "".join(f", {name}={t.tolist()}" for name, t in numbers.items())
        return f"{self.solver!r}, {self.degree}, context={self.context}{learned}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> FirstStepState:
        return FirstStepState(self.solver.init(eq, z, r))

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: FirstStepState) -> tuple[Tensor, State, int | Tensor]:
        if state.jumped is None:
            return self._jump(eq, z, r, state.inner)
        inner = state.inner
        if state.z is not None and state.r is not None:
            worse = state.jumped & ~((eq.norm(r) < eq.norm(state.r)) & self._reached(r, 1))
            z, r = torch.where(rowwise(worse, z), state.z, z), torch.where(rowwise(worse, r), state.r, r)
            begun = self.solver.init(eq, z, r)
            inner = select_state(~state.jumped, inner, begun)  # rows that did not jump go on exactly as without
        moved, inner, extra = self.solver.step(eq, z, r, inner)
        return moved, FirstStepState(inner, state.jumped), extra

    def _jump(self, eq: Equation, z: Tensor, r: Tensor, inner: State) -> tuple[Tensor, FirstStepState, int | Tensor]:
        """The learned step where it may be trusted, the solver's own elsewhere."""
        found, settled, jumped = inputs(eq, z, r, self.context), r == 0, torch.zeros_like(z[:, 0], dtype=torch.bool)
        guess = z
        if len(self.low) and len(found) == len(self.low):
            low, high = self.low.to(z.dtype), self.high.to(z.dtype)
            margin = 0.1 * (high - low)
            inside = [(u >= a - m) & (u <= b + m) for u, a, b, m in zip(found, low, high, margin, strict=True)]
            known = torch.stack([(i | settled).all(1) for i in inside]).all(0)
            guess = torch.where(settled, z, polynomial_of(found, self.coefficients.to(z.dtype), low, high, self.degree))
            jumped = known & torch.isfinite(guess).all(1) & self._reached(r, 0)
        moved, inner, extra = stepped(self.solver, eq, z, r, inner, ~jumped)
        return torch.where(rowwise(jumped, z), guess, moved), FirstStepState(inner, jumped, z, r), extra

    def _reached(self, r: Tensor, when: int) -> Tensor:  # (R,)
        """Whether the residual is no larger than it was in training, before (0) or after (1) the step."""
        largest = r.abs().amax(1)
        return largest <= self.reach[when].to(r.dtype) if len(self.reach) else largest >= 0


def inputs(eq: Equation, z: Tensor, r: Tensor, context: bool) -> list[Tensor]:  # each (R, W) or (R, 1)
    """What the polynomial sees: P(z) of every component, its mean over the row, and the numbers in the context."""
    p = z + r
    size = p.abs()
    total = size.sum(1, keepdim=True)
    mean = (p * size).sum(1, keepdim=True) / torch.where(total > 0, total, 1.0)
    shapes = (z.shape[:1], (len(z), 1))
    numbers = [c for c in eq.context if isinstance(c, Tensor) and c.shape in shapes and c.is_floating_point()]
    return [p, mean, *(c.reshape(-1, 1).to(z.dtype) for c in numbers if context)]


def monomials(count: int, degree: int) -> list[tuple[int, ...]]:
    """Products of up to `degree` of the inputs 0 ... count - 1, the constant first."""
    return [t for d in range(degree + 1) for t in combinations_with_replacement(range(count), d)]


def scaled(found: Sequence[Tensor], low: Tensor, high: Tensor) -> list[Tensor]:
    """The inputs mapped so that their range in training becomes [-1, 1]; what did not vary becomes 0."""
    width = high - low
    factor = torch.where(width > 0, 2 / torch.where(width > 0, width, 1.0), 0.0)
    return [(u - (a + b) / 2) * f for u, a, b, f in zip(found, low, high, factor, strict=True)]


def polynomial_of(found: Sequence[Tensor], coefficients: Tensor, low: Tensor, high: Tensor, degree: int) -> Tensor:
    """sum of coefficient times monomial of the scaled inputs (R, W)."""
    columns = scaled(found, low, high)
    value = torch.zeros_like(found[0])
    for weight, term in zip(coefficients.unbind(), monomials(len(columns), degree), strict=True):
        product = weight
        for i in term:
            product = product * columns[i]
        value = value + product
    return value
