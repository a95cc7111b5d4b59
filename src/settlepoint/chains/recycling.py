"""Recycling: a tracer of the cycles of a structure predictor, and recycles by a solver of this library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from settlepoint.chains.cycles import Cycle
from settlepoint.chains.esmfold import Taps, esm_taps
from settlepoint.equation import Equation, Operator
from settlepoint.solution import Solution
from settlepoint.solve import solve
from settlepoint.solvers.solver import Solver
from settlepoint.spaces import Rows, State
from settlepoint.stop import Stop, Tolerance

STOP = Tolerance(atol=0.1, max_steps=20)
"""Of `recycled`: at most 20 recycles, as in the paper's study."""


class RecycleTracer:
    """Records every cycle of a structure predictor while it runs, through forward hooks; what it gives stays the same.

        with RecycleTracer(model) as tracer:
            model(input_ids, num_recycles=3)
        tracer.cycles  # four of them

    model: transformers' EsmForProteinFolding, or any module with taps. `cycles` are those of the latest call of the
    model; a call holds the tensors that taps.keep names and copies none. Raises TypeError for other models without
    taps.
    """

    def __init__(self, model: nn.Module, taps: Taps | None = None):
        if taps is None and type(model).__name__ != "EsmForProteinFolding":
            raise TypeError(f"model must be EsmForProteinFolding or come with taps, got {type(model).__name__}")
        self.model, self.taps = model, taps or esm_taps(model)  # pyright: ignore[reportArgumentType]
        self._kept: list[Any] = []
        self._latest: Any = None
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        if self._handles:
            raise RuntimeError("a RecycleTracer records once at a time; it is already recording")
        self._handles = [
            self.model.register_forward_pre_hook(self._begin),
            self.taps.representation.register_forward_hook(self._represented),
            self.taps.structure.register_forward_hook(self._structured),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, module: nn.Module, given: Any) -> None:
        self._kept, self._latest = [], None

    def _represented(self, module: nn.Module, given: Any, made: Any) -> None:
        self._latest = made

    def _structured(self, module: nn.Module, given: Any, made: Any) -> None:
        self._kept.append(self.taps.keep(self._latest, made))
        self._latest = None

    @property
    def cycles(self) -> list[Cycle]:
        """The cycles of the latest call, the first one first."""
        return [self.taps.read(kept) for kept in self._kept]


@dataclass(frozen=True, eq=False)
class Recycled:
    """Recycles taken by a solver.

    solution: as of `solve`. When they were asked for, states: x_0, x_1, ...; images: T(x_0), T(x_1), ..., what plain
    recycling would have gone to. After a fixed number of steps there is one state more.
    """

    solution: Solution
    states: tuple[State, ...] = ()
    images: tuple[State, ...] = ()

    @property
    def value(self) -> State:
        """The state at which each chain stopped."""
        return self.solution.value


@torch.no_grad()
def recycled(
    operator: Operator,
    state: State,
    solver: Solver | None = None,
    stop: Stop = STOP,
    *,
    context: tuple = (),
    space: Rows | None = None,
    trace: bool = False,
) -> Recycled:
    """Recycle from state until stop says so, every chain on its own: x <- T(x), or whatever solver makes of T

    operator: T(x, *context), one recycle, as `EsmRecycle` or `Refinement`. solver: Picard() is plain recycling,
    Picard(damping) smooths, Anderson() combines the last cycles. stop: a Tolerance stops a chain early. space: by
    default the norm of a change is the root of its mean square over sites, a site being a residue (or a pair), so that
    for coordinates (B, n, 3) a tolerance is in Angstrom, and never below the RMSD of two cycles after superposition.
    trace: keep all states and images, and compute finished chains to the end. No gradients.
    """
    states: list[State] = []
    images: list[State] = []

    def watched(x: State, *given: Tensor) -> State:
        states.append(x)
        images.append(operator(x, *given))
        return images[-1]

    eq = Equation(watched if trace else operator, space=space or sites(state), context=context)
    solution = solve(eq, state, solver, stop, compact=False if trace else "auto")
    if trace and not isinstance(stop, Tolerance):
        states.append(solution.value)
    return Recycled(solution, tuple(states), tuple(images))


def sites(state: State) -> Rows:
    """The space whose squared norm is the mean over sites of |v|^2, summed over the tensors of the state.

    A site: an entry of the dimensions between the first and the last.

    >>> sites(torch.zeros(2, 4, 3)).weights
    tensor([[0.2500]])
    """
    parts = state if isinstance(state, tuple) else (state,)
    if any(p.ndim < 3 for p in parts):
        raise ValueError(f"state must hold tensors (B, sites, c), got {[tuple(p.shape) for p in parts]}")
    shares = tuple(p.new_full((1,) * (p.ndim - 1), 1 / max(1, math.prod(p.shape[1:-1]))) for p in parts)
    return Rows(shares if isinstance(state, tuple) else shares[0])
