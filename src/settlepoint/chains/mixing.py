"""Anderson acceleration over sliding windows of a chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.chains.sliding import slid, wide
from settlepoint.solvers.least_squares import least_squares


@dataclass(frozen=True)
class Mixing:
    """x'' = x' - sum_j g_j (dx + dr)_j, g = argmin |r - sum_j g_j dr_j|^2, r = x' - x        (Anderson 1965)

    over the positions of a window that are not settled; x' is what a sweep makes of x. Windows slide, so the
    differences slide with them, and are zero at positions that were not in the window then.

    moves, changes: (R, depth, S, ...), dx + dr and dr, newest last. x, r: (R, S, ...), of the sweep before. known:
    (R, S), which of these were in the window.
    """

    moves: Tensor
    changes: Tensor
    x: Tensor
    r: Tensor
    known: Tensor

    @classmethod
    def empty(cls, x: Tensor, depth: int) -> Mixing:  # (R, S, ...)
        """Nothing known yet."""
        history = x.new_zeros(len(x), depth, *x.shape[1:])
        known = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        return cls(history, history.clone(), torch.zeros_like(x), torch.zeros_like(x), known)

    def step(self, x: Tensor, swept: Tensor, later: Tensor) -> tuple[Tensor, Mixing]:
        """The accelerated windows, and what is remembered. later: (R, S), the positions that may be moved."""
        r = swept - x
        known, wanted = wide(self.known, x), wide(later, x)
        change, move = torch.where(known, r - self.r, 0.0), torch.where(known, swept - self.x - self.r, 0.0)
        changes = torch.cat((self.changes[:, 1:], change[:, None]), 1)
        moves = torch.cat((self.moves[:, 1:], move[:, None]), 1)
        kind = torch.promote_types(x.dtype, torch.float32)  # no half precision in torch.linalg
        basis = torch.where(wanted[:, None], changes, 0.0).flatten(2).to(kind)
        right = torch.where(wanted, r, 0.0).flatten(1).to(kind)
        g = least_squares(basis @ basis.mT, (basis @ right[:, :, None])[:, :, 0]).to(x.dtype)
        moved = swept - (g[:, None] @ moves.flatten(2)).reshape(x.shape)
        good = wanted & wide(torch.isfinite(moved).flatten(2).all(2), x)
        return torch.where(good, moved, swept), Mixing(moves, changes, x, r, torch.ones_like(later))

    def shifted(self, ahead: Tensor) -> Mixing:
        """Every row moved on by its own number of positions."""
        parts = (self.moves.movedim(1, 2), self.changes.movedim(1, 2), self.x, self.r, self.known)
        inside, (moves, changes, x, r, known) = slid(ahead, *parts)
        moves, changes = (torch.where(wide(inside, v), v, 0.0).movedim(2, 1) for v in (moves, changes))
        return Mixing(moves, changes, x, r, inside & known)

    def only(self, index: Tensor) -> Mixing:
        """The rows in index alone."""
        parts = (self.moves, self.changes, self.x, self.r, self.known)
        return Mixing(*(part[index] for part in parts))
