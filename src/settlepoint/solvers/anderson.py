"""Anderson acceleration: the combination of the last iterates whose residual is smallest."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.least_squares import least_squares
from settlepoint.solvers.picard import checked_damping
from settlepoint.solvers.solver import Solver, State, alike, placed, select_state, sound

_FEW = 256  # rows up to which one fused product beats a loop over the differences
_WIDE = 128  # unknowns from which a batched product beats a sum of products


@dataclass(frozen=True)
class AndersonState(State):
    """Differences of the last iterates, one slot a step in a ring of depth m.

    moves, changes: (R, m, W), dx + b dr and dr; gram: (R, m, m), inner products of changes; used: (R, m), which slots
    hold something for the row; z, r: (R, W), the last iterate and residual; best: (R,), smallest residual norm so far;
    step: 0-d count.
    """

    moves: Tensor
    changes: Tensor
    gram: Tensor
    used: Tensor
    z: Tensor
    r: Tensor
    best: Tensor
    step: Tensor


class Anderson(Solver):
    """x_{k+1} = x_k + b r_k - (dX + b dR) g,  g = argmin |r_k - dR g|^2 + ridge      (Anderson 1965; Walker & Ni 2011)

    depth: number m of differences kept. damping: 1 - b. ridge: relative to the squared length of every difference, so
    that the scale of the problem changes nothing; None takes the rounding unit of the dtype. growth: a row whose
    residual exceeds this multiple of its best forgets all differences but the newest (safeguard).

    Differences of length zero, and above 256 rows pivots lost to rounding, are dropped (rank control).
    """

    def __init__(self, depth: int = 5, damping: float = 0.0, ridge: float | None = None, growth: float = 1e2):
        super().__init__()
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth must be an integer >= 1, got {depth!r}")
        if ridge is not None and not ridge >= 0:
            raise ValueError(f"ridge must be >= 0, got {ridge}")
        if not growth > 1:
            raise ValueError(f"growth must be > 1, got {growth}")
        self.depth, self.damping, self.ridge, self.growth = depth, checked_damping(damping), ridge, growth

    def extra_repr(self) -> str:
        return f"depth={self.depth}, damping={self.damping}, ridge={self.ridge}, growth={self.growth}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> AndersonState:
        rows, width = z.shape
        empty = z.new_zeros(rows, self.depth, width)
        square = z.new_zeros(rows, self.depth, self.depth)
        best = z.new_full((rows,), float("inf"))
        none = z.new_zeros(rows, self.depth, dtype=torch.bool)
        return AndersonState(empty, empty.clone(), square, none, z, r, best, z.new_zeros((), dtype=torch.int64))

    def resume(self, eq: Equation, z: Tensor, r: Tensor, state) -> AndersonState:
        fresh = self.init(eq, z, r)
        if not isinstance(state, AndersonState) or not alike(state.moves, fresh.moves):
            return fresh
        kept = replace(state, z=z, r=r, best=fresh.best)
        return select_state(sound(state), kept, fresh)  # pyright: ignore[reportReturnType]

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: AndersonState) -> tuple[Tensor, AndersonState, int]:
        b = 1 - self.damping
        change = r - state.r
        move = (z - state.z).add(change, alpha=b)
        slot = (state.step % self.depth).reshape(1)
        moves, changes = placed(state.moves, move, slot), placed(state.changes, change, slot)
        norm = eq.norm(r)
        kept = norm <= self.growth * state.best
        used = (state.used & kept[:, None]) | (torch.arange(self.depth, device=z.device) == slot)
        products = eq.gram(torch.stack((change, r), 1), changes) * used[:, None]  # (R, 2, m)
        gram = placed(state.gram * kept[:, None, None], products[:, 0], slot)
        gram = placed(gram.mT, products[:, 0], slot).mT
        moved = _combined(z.add(r, alpha=b), least_squares(gram, products[:, 1], self.ridge), moves)
        best = torch.where(kept, torch.minimum(norm, state.best), norm)
        return moved, AndersonState(moves, changes, gram, used, z, r, best, state.step + 1), 0


def _combined(z: Tensor, g: Tensor, moves: Tensor) -> Tensor:
    """z - sum_j g_j moves_j, by whichever form is fastest for the shape."""
    rows, width = z.shape
    if width > _WIDE or rows == 1:
        return z - torch.bmm(g[:, None], moves)[:, 0]
    if rows <= _FEW or torch.is_grad_enabled():
        return z - (g[:, :, None] * moves).sum(1)
    for j in range(g.shape[1]):
        z = torch.addcmul(z, g[:, j : j + 1], moves[:, j], value=-1)
    return z
