"""Anderson acceleration: the combination of the last iterates whose residual is smallest."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.picard import checked_damping
from settlepoint.solvers.solver import Solver, State, placed

_LAPACK_ROWS = 256  # LAPACK loops over rows: above this many, elimination over all rows at once is faster


@dataclass(frozen=True)
class AndersonState(State):
    """Differences of the last iterates, one slot a step in a ring of depth m.

    moves, changes: (R, m, W), dx + b dr and dr; gram: (R, m, m), inner products of changes; used: (R, m), which slots
    hold something for the row; z, r: (R, W), the last iterate and residual; norm: (R,), its norm; best: (R,) smallest
    norm so far; step: 0-d count.
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
    residual exceeds this multiple of its best forgets its differences and takes a Picard step (safeguard).

    The small systems are solved with unit diagonal; slots too short or too parallel to newer ones are dropped (rank
    control). Up to 256 rows through LAPACK, above by elimination over all rows at once.
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
        return AndersonState(
            empty, empty.clone(), square, z.new_zeros(rows, self.depth), z, r, best, z.new_zeros((), dtype=torch.int64)
        )

    def resume(self, eq: Equation, z: Tensor, r: Tensor, state) -> AndersonState:
        fresh = self.init(eq, z, r)
        if not isinstance(state, AndersonState) or state.moves.shape != fresh.moves.shape:
            return fresh
        return replace(state, z=z, r=r, best=fresh.best)

    def step(self, eq: Equation, z: Tensor, r: Tensor, state: AndersonState) -> tuple[Tensor, AndersonState, int]:
        b = 1 - self.damping
        change = r - state.r
        move = (z - state.z).add(change, alpha=b)
        slot = ((state.step - 1) % self.depth).reshape(1)
        here = torch.arange(self.depth, device=z.device) == slot  # (m,)
        moves, changes = placed(state.moves, move, slot), placed(state.changes, change, slot)
        products = eq.gram(torch.stack((change, r), 1), changes)  # (R, 2, m)
        gram = torch.where(here[:, None], products[:, None, 0], torch.where(here, products[:, 0, :, None], state.gram))
        norm = eq.norm(r)
        used = torch.where(here & (state.step > 0), torch.ones_like(state.used), state.used)
        lost = norm > self.growth * state.best
        used = torch.where(lost[:, None], torch.zeros_like(used), used)
        g = self._mix(gram, products[:, 1], used)
        moved = _combined(z.add(r, alpha=b), g, moves)
        best = torch.where(lost, norm, torch.minimum(norm, state.best))
        return moved, AndersonState(moves, changes, gram, used, z, r, best, state.step + 1), 0

    def _mix(self, gram: Tensor, right: Tensor, used: Tensor) -> Tensor:  # -> (R, m)
        """Coefficients g of the differences, zero for slots that are empty, dropped or not finite."""
        ridge = 4 * torch.finfo(gram.dtype).eps if self.ridge is None else self.ridge
        length = gram.diagonal(dim1=1, dim2=2).sqrt()
        inverse = torch.where((used > 0) & (length > 0), 1 / length, torch.zeros_like(length))
        unit = gram * inverse[:, :, None] * inverse[:, None, :]
        unit = unit + torch.diag_embed(torch.where(inverse > 0, ridge, 1.0))
        g = _lapack(unit, right * inverse) if len(gram) <= _LAPACK_ROWS else _eliminated(unit, right * inverse)
        g = g * inverse
        finite = torch.isfinite(g).all(1, keepdim=True)
        return torch.where(finite, g, torch.zeros_like(g))


def _combined(z: Tensor, g: Tensor, moves: Tensor) -> Tensor:
    """z - sum_j g_j moves_j."""
    if len(z) <= _LAPACK_ROWS or torch.is_grad_enabled():
        return z - torch.bmm(g[:, None], moves)[:, 0]
    for j in range(g.shape[1]):  # half the time of a batched product of many small matrices
        z = torch.addcmul(z, g[:, j : j + 1], moves[:, j], value=-1)
    return z


def _lapack(a: Tensor, b: Tensor) -> Tensor:
    """Solution of a g = b, one LAPACK call a row; singular rows give NaN, never an exception."""
    solution, info = torch.linalg.solve_ex(a, b)
    return torch.where((info == 0)[:, None], solution, torch.full_like(solution, float("nan")))


def _eliminated(a: Tensor, b: Tensor) -> Tensor:
    """The same by Gauss elimination of all rows at once, rows last in memory; pivots lost to rounding give zero."""
    depth, floor = b.shape[1], torch.finfo(b.dtype).eps
    table = torch.cat((a, b[:, :, None]), 2).permute(1, 2, 0).contiguous()  # (m, m + 1, R)
    inverses = []
    for i in range(depth):
        pivot = table[i, i]
        inverses.append(torch.where(pivot > floor, 1 / pivot, torch.zeros_like(pivot)))
        if i + 1 < depth:
            factor = table[i + 1 :, i] * inverses[i]
            table = torch.cat((table[: i + 1], torch.addcmul(table[i + 1 :], factor[:, None], table[i], value=-1)))
    g: list[Tensor] = []
    for i in reversed(range(depth)):
        known = [table[i, i + 1 + k] * g[k] for k in range(len(g))]
        g.insert(0, (table[i, depth] - sum(known)) * inverses[i])
    return torch.stack(g, 1)
