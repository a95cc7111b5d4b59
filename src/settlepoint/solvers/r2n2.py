"""R2N2: a superstructure of recurrent evaluations whose few weights are learned.

Three methods in this form, v_0 = f(x), v_j = f(x + h sum_{l<j} theta[j,l] v_l), x_next = x + h sum_j theta[n,j] v_j:

    Runge-Kutta     f the right-hand side, h the step size, theta the tableau
    Krylov          f(x) = b - A x: the v span the Krylov space of A, theta picks a polynomial of A
    Newton-Krylov   the same, with f's Jacobian in the place of A
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from settlepoint.equation import Equation
from settlepoint.solvers.difference import forward_difference
from settlepoint.solvers.least_squares import least_squares
from settlepoint.solvers.solver import Solver, State, rowwise
from settlepoint.solvers.tableaus import Tableau, square

LAYERS = ("evaluation", "forward_difference", "jvp")
OUTPUTS = ("weights", "least_squares")


@dataclass(frozen=True)
class R2N2State(State):
    """iteration: 0-d count. With carry c: moves, changes: (R, c, W), what earlier iterations left, newest first; z, r:
    (R, W), where the last iteration began.
    """

    iteration: Tensor
    moves: Tensor | None = None
    changes: Tensor | None = None
    z: Tensor | None = None
    r: Tensor | None = None


class R2N2(Solver):
    """x_{k+1} = x_k + h sum_j theta[n,j] v_j,  v_j = f(x_k + h sum_{l<j} theta[j,l] v_l),  f = P - id

    (Doncevic, Mitsos, Guo, Li, Dietrich, Dahmen & Kevrekidis 2022, Eqs 5-7.) h is `Equation.scale`, 1 where it is None.
    The same weights serve any number of unknowns. Untrained: n steps of Picard; `learn.fit` trains them.

    stages: n, evaluations an iteration.
    layer: "evaluation"; or derivatives of f at x_k along d = sum theta v_l: "forward_difference",
    (f(x_k + eps d) - f(x_k)) / eps with eps = epsilon, by default the root of the rounding unit; "jvp", exact ones.
    output: "weights"; or "least_squares": no theta[n,.] but the combination of the differences s_j to x_k and
    y_j = f(x_k + s_j) - f(x_k) already evaluated,
    x_{k+1} = x_k + b r - (S + b Y) g, g = argmin |r - Y g|, with r = f(x_k) and the one trainable weight b.
    per_iteration: number K of iterations with output weights of their own; later ones use the last (SM3.3).
    carry: vectors of earlier iterations that take part: differences v'_l - v_0 with weights of their own, so that the
    first iteration has none (general linear methods); or differences s, y for least_squares (Anderson's memory).
    preconditioner: M(v) (R, W) -> (R, W) applied to every v_j; belongs to the problem and is not saved.
    theta: all weights in one sequence: inner rows 1 to n-1, output, memory.
    """

    def __init__(
        self,
        stages: int,
        layer: str = "evaluation",
        output: str = "weights",
        per_iteration: int | None = None,
        *,
        carry: int = 0,
        epsilon: float | None = None,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        theta: Sequence[float] | Tensor | None = None,
    ):
        super().__init__()
        _check_count("stages", stages, 1)
        _check_count("carry", carry, 0)
        if per_iteration is not None:
            _check_count("per_iteration", per_iteration, 1)
        _check_choice("layer", layer, LAYERS)
        _check_choice("output", output, OUTPUTS)
        if epsilon is not None and not 0 < epsilon < float("inf"):
            raise ValueError(f"epsilon must be a finite number > 0, got {epsilon}")
        self.stages, self.calls, self.layer, self.per_iteration = stages, stages - 1, layer, per_iteration
        self.output_layer, self.carry, self.epsilon, self.preconditioner = output, carry, epsilon, preconditioner
        inner, weights, memory = self._untrained()
        self.inner, self.output, self.memory = nn.Parameter(inner), nn.Parameter(weights), nn.Parameter(memory)
        if theta is not None:
            self.assign(theta)

    @classmethod
    def from_tableau(cls, tableau: Tableau) -> "R2N2":
        """The classical method: R2N2.from_tableau(tableaus.KUTTA3) on P(x) = x + h f(x)."""
        return cls(len(tableau.b), theta=(*tableau.inner, *(float(b) for b in tableau.b)))

    def _untrained(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of n steps of Picard; of one where the layers are derivatives."""
        n, k = self.stages, self.per_iteration
        inner = torch.ones(n * (n - 1) // 2, dtype=torch.float64)
        output = torch.ones(n if self.output_layer == "weights" else 1, dtype=torch.float64)
        if self.layer != "evaluation":
            output = output * (torch.arange(len(output)) == 0)
            i, j = torch.tril_indices(n, n, -1)
            inner = inner * (i == j + 1)
        memory = output.new_zeros(n if self.output_layer == "weights" else 0, self.carry)
        return inner, output if k is None else output.expand(k, -1).clone(), memory

    @property
    def theta(self) -> Tensor:
        """All weights in one vector (inner, output, memory), detached."""
        return torch.cat([p.detach().flatten() for p in (self.inner, self.output, self.memory)])

    @torch.no_grad()
    def assign(self, theta: Sequence[float] | Tensor) -> "R2N2":
        """Sets all weights from one sequence, in the order of `theta`; returns the solver."""
        values = theta.detach() if isinstance(theta, Tensor) else torch.tensor(theta, dtype=torch.float64)
        parts = (self.inner, self.output, self.memory)
        size = sum(p.numel() for p in parts)
        if values.ndim != 1 or len(values) != size:
            raise ValueError(f"theta must hold {size} weights in one sequence, got shape {tuple(values.shape)}")
        for p, part in zip(parts, values.split([p.numel() for p in parts]), strict=True):
            p.copy_(part.reshape(p.shape))
        return self

    def tableau(self, iteration: int = 0) -> tuple[Tensor, Tensor]:
        """A (n, n) strictly lower triangular and b (n,), differentiable in the weights."""
        if self.output_layer != "weights":
            raise ValueError("a least_squares output has no tableau: its weights differ from iterate to iterate")
        output = self.output if self.per_iteration is None else self.output[min(iteration, self.per_iteration - 1)]
        return square(self.inner, self.stages), output

    def extra_repr(self) -> str:
        options = f"{self.stages}, {self.layer!r}, {self.output_layer!r}, {self.per_iteration}, carry={self.carry}"
        options += f", epsilon={self.epsilon}" * (self.epsilon is not None)
        options += f", preconditioner={self.preconditioner!r}" * (self.preconditioner is not None)
        return f"{options}, theta={self.theta.tolist()}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> R2N2State:
        start = z.new_zeros((), dtype=torch.int64)
        if not self.carry:
            return R2N2State(start)
        if self.output_layer == "weights":
            v = self._conditioned(r)[:, None]
            return R2N2State(start, changes=v.expand(-1, self.carry, -1).clone())
        empty = z.new_zeros(len(z), self.carry, z.shape[1])
        return R2N2State(start, empty, empty.clone(), z, r)

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: R2N2State) -> tuple[Tensor, R2N2State, int]:
        h = None if eq.scale is None else rowwise(eq.scale.to(z.dtype), z)
        known = _Known(eq, z, self._conditioned(r), h)
        stepped = self._weighted if self.output_layer == "weights" else self._minimised
        moved, state = stepped(known, r, state, self._output(state).to(z.dtype))
        return moved, state, self.calls

    def _weighted(self, at: "_Known", r: Tensor, state: R2N2State, output: Tensor) -> tuple[Tensor, R2N2State]:
        """The step by output weights."""
        z, v, past = at.z, [at.v], [w - at.v for w in _vectors(state.changes)]
        memory = [row.unbind() for row in self.memory.to(z.dtype).unbind()]
        for j, row in enumerate(self._rows(z), 1):
            v.append(self._stage(at, [*v, *past], [*row, *memory[j - 1]]))
        moved = combined(z, [*v, *past], [*output.unbind(), *memory[-1]], at.h)
        changes = torch.stack([*v, *_vectors(state.changes)][: self.carry], 1) if self.carry else None
        return moved, R2N2State(state.iteration + 1, changes=changes)

    def _minimised(self, at: "_Known", r: Tensor, state: R2N2State, output: Tensor) -> tuple[Tensor, R2N2State]:
        """The step that minimises the residual over the differences known."""
        z, v, moves, changes = at.z, [at.v], [], []
        for row in self._rows(z):
            moves.append(combined(None, v, row, at.h))
            v.append(self._stage(at, v, row))
            changes.append(v[-1] - v[0] if self.layer == "evaluation" else v[-1])
        if state.z is not None and state.r is not None:
            moves += [z - state.z, *_vectors(state.moves)]
            changes += [self._conditioned(r - state.r), *_vectors(state.changes)]
        limit, keep = self.stages - 1 + self.carry, self.carry
        moves, changes = moves[:limit], changes[:limit]
        moved = _mixed(at, moves, changes, output[0])
        if not keep:
            return moved, R2N2State(state.iteration + 1)
        past = torch.stack(moves[:keep], 1), torch.stack(changes[:keep], 1)
        return moved, R2N2State(state.iteration + 1, *past, z, r)

    def _rows(self, z: Tensor) -> list[tuple[Tensor, ...]]:
        """Rows 1 to n-1 of theta, in the dtype of z."""
        weights = iter(self.inner.to(z.dtype).unbind())
        return [tuple(islice(weights, j)) for j in range(1, self.stages)]

    def _output(self, state: R2N2State) -> Tensor:
        if self.per_iteration is None:
            return self.output
        k = state.iteration.clamp(max=self.per_iteration - 1)
        return self.output.index_select(0, k.reshape(1))[0]

    def _stage(self, at: "_Known", vectors: list[Tensor], row: Sequence[Tensor]) -> Tensor:
        """f at x_k + h sum row vectors, or its derivative there along that sum."""
        f = self._residual(at.eq)
        if self.layer == "evaluation":
            return f(combined(at.z, vectors, row, at.h))
        d = combined(None, vectors, row, at.h)
        if self.layer == "jvp":
            return torch.func.jvp(f, (at.z,), (d,))[1].to(d.dtype)
        epsilon = torch.finfo(d.dtype).eps ** 0.5 if self.epsilon is None else self.epsilon
        return forward_difference(f, at.z, d, at.v, epsilon)

    def _residual(self, eq: Equation) -> Callable[[Tensor], Tensor]:
        return lambda x: self._conditioned(eq.flat(x) - x)

    def _conditioned(self, v: Tensor) -> Tensor:
        return v if self.preconditioner is None else self.preconditioner(v)


@dataclass(frozen=True)
class _Known:
    """What an iteration starts from: eq, x_k as z (R, W), v = f(z) after M, and h as a column, or None for 1."""

    eq: Equation
    z: Tensor
    v: Tensor
    h: Tensor | None


def _vectors(stacked: Tensor | None) -> tuple[Tensor, ...]:
    return () if stacked is None else stacked.unbind(1)


def combined(z: Tensor | None, vectors: list[Tensor], weights: Sequence[Tensor], h: Tensor | None) -> Tensor:
    """z + h sum_j weights_j vectors_j; with no graph to keep, in one buffer."""
    weights = weights if h is None else [h * w for w in weights]
    x = vectors[0] * weights[0] if z is None else torch.addcmul(z, vectors[0], weights[0])
    for v, w in zip(vectors[1:], weights[1:], strict=True):
        x = torch.addcmul(x, v, w) if torch.is_grad_enabled() else x.addcmul_(v, w)
    return x


def _mixed(at: _Known, moves: list[Tensor], changes: list[Tensor], b: Tensor) -> Tensor:
    """z + b h v - (S + b h Y) g,  g = argmin |v - Y g|."""
    b = b if at.h is None else b * at.h
    moved = torch.addcmul(at.z, at.v, b)
    if not moves:
        return moved
    y = torch.stack(changes, 1)  # (R, m, W)
    g = least_squares(at.eq.gram(y, y), at.eq.gram(at.v[:, None], y)[:, 0])
    return moved - (g[:, None] @ torch.addcmul(torch.stack(moves, 1), y, b if at.h is None else b[:, None]))[:, 0]


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
