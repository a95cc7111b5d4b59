"""The contract of every solver, classical or learned.

The driver evaluates r = P(z) - z once an iteration, tests it, and only then asks the solver for a step. Three methods
in this form, z and r flat (R, W):

    Picard          step: z + (1 - a) r                                        state: nothing
    Anderson        step: z + r - (dP) gamma, gamma = argmin |r - (dR) gamma|   state: the last differences
    Newton-Krylov   step: z + d, (I - P'(z)) d = r by Krylov vectors             state: the Krylov space
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor, nn

from settlepoint.equation import Equation


class State:
    """What a solver remembers: subclasses are frozen dataclasses.

    Tensors of at least one dimension lead with the rows and are gathered with them; 0-d tensors and other values are
    shared. notes and displacement are read by the driver when a solve ends.
    """

    notes: tuple[str, ...] = ()
    displacement: Tensor | None = None  # (R, W): estimate of the smallest |P(x) - x|, as a vector


class Solver(nn.Module, ABC):
    """Finds z with P(z) = z from residuals; knows nothing of stopping, statuses, traces or compaction.

    `step` is pure, of fixed shapes and without host reads. Under no_grad the state given to it is donated and may be
    overwritten; under grad it must be left alone. z and r are never overwritten.

    recovery: consecutive looks at a non-finite or far grown residual that the solver may use to step back from it,
    before the driver gives the row up. 0 for most. calls: operator calls a step makes beyond the driver's; 0 for most.
    """

    recovery: int = 0
    calls: int = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    @abstractmethod
    def init(self, eq: Equation, z: Tensor, r: Tensor) -> State:
        """State before the first step, for an iterate z (R, W) with residual r."""

    @abstractmethod
    def step(self, eq: Equation, z: Tensor, r: Tensor, state) -> tuple[Tensor, State, int | Tensor]:
        """Next iterate, next state, and operator calls made beyond the driver's one: an int or (R,)."""

    def blend(self, z: Tensor, image: Tensor) -> Tensor | None:
        """The next iterate from P(z) itself, where a step needs neither residual nor state; None for most.

        It saves a fixed number of steps the forming of r, which beside a cheap operator is a good part of the step.
        """
        return None

    def resume(self, eq: Equation, z: Tensor, r: Tensor, state) -> State:
        """State before the first step of a warm start, from the last state of an earlier solve; afresh by default.

        Solvers that know something of the Jacobian keep it, if state is one of theirs and of this shape.
        """
        return self.init(eq, z, r)


class Stateless(State):
    """State of a solver that remembers nothing."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stateless)

    __hash__ = None  # type: ignore[assignment]


def map_state(function: Callable[[Tensor], Tensor], state):
    """state with function applied to every tensor in it."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, tuple):
        return tuple(map_state(function, s) for s in state)
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: map_state(function, getattr(state, f.name)) for f in fields(state)})
    return state


def gather_state(state, index: Tensor):
    """The state of the rows in index alone."""
    return map_state(lambda t: t.index_select(0, index) if t.ndim else t, state)


def scatter_state(state, index: Tensor, part):
    """state with the rows in index replaced by those of part, another state of the solver; what is shared from part."""
    if isinstance(state, Tensor):
        return state.index_copy(0, index, part) if state.ndim else part
    if isinstance(state, tuple):
        return tuple(scatter_state(a, index, b) for a, b in zip(state, part, strict=True))
    if is_dataclass(state) and not isinstance(state, type):
        joined = {f.name: scatter_state(getattr(state, f.name), index, getattr(part, f.name)) for f in fields(state)}
        return replace(state, **joined)
    return part


def stepped(
    solver: Solver, eq: Equation, z: Tensor, r: Tensor, state, wanted: Tensor
) -> tuple[Tensor, State, int | Tensor]:
    """A step of solver in the wanted rows at least; z elsewhere. Only those are evaluated where that costs calls."""
    if not solver.calls or not eq.selectable or torch._C._are_functorch_transforms_active():
        return solver.step(eq, z, r, state)
    index = wanted.nonzero()[:, 0]
    if len(index) == len(z):
        return solver.step(eq, z, r, state)
    none = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    if not len(index):
        return z, state, none
    part = gather_state(state, index)
    moved, next_part, extra = solver.step(eq.rows(index), z.index_select(0, index), r.index_select(0, index), part)
    spent = extra if isinstance(extra, Tensor) else none.new_full((len(index),), extra)
    return z.index_copy(0, index, moved), scatter_state(state, index, next_part), none.index_copy(0, index, spent)  # pyright: ignore[reportReturnType]


def clone_state(state):
    """A copy that may be overwritten."""
    return map_state(Tensor.clone, state)


def select_state(mask: Tensor, yes, no):
    """Row by row the state yes where mask (R,) holds, else no; both of one solver. What is shared comes from yes."""
    if isinstance(yes, Tensor):
        return torch.where(rowwise(mask, yes), yes, no) if yes.ndim else yes
    if isinstance(yes, tuple):
        return tuple(select_state(mask, a, b) for a, b in zip(yes, no, strict=True))
    if is_dataclass(yes) and not isinstance(yes, type):
        chosen = {f.name: select_state(mask, getattr(yes, f.name), getattr(no, f.name)) for f in fields(yes)}
        return replace(yes, **chosen)
    return yes


def alike(a: Tensor, b: Tensor) -> bool:
    """True for tensors of one shape, dtype and device."""
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def sound(state: State) -> Tensor:
    """(R,): rows of which everything but the residual norms, which start at infinity, is finite."""
    rows: list[Tensor] = []

    def look(t: Tensor) -> Tensor:
        if t.ndim > 1:
            rows.append(torch.isfinite(t).flatten(1).all(1))
        return t

    map_state(look, state)
    return torch.stack(rows).all(0)


def rowwise(a: Tensor, like: Tensor) -> Tensor:
    """a (R,) shaped to multiply like (R, ...)."""
    return a.reshape(-1, *(1,) * (like.ndim - 1))


def guarded_ratio(a: Tensor, b: Tensor, otherwise: float) -> Tensor:
    """a / b where that is finite, else otherwise; its gradient is finite too."""
    finite = torch.isfinite((a / b).detach())
    return torch.where(finite, a / torch.where(finite, b, 1.0), otherwise)


def placed(history: Tensor, new: Tensor, slot: Tensor) -> Tensor:
    """history (R, m, W) with new (R, W) in the slot; overwritten in place where no graph is kept."""
    if torch.is_grad_enabled():
        return history.index_copy(1, slot, new[:, None])
    return history.index_copy_(1, slot, new[:, None])
