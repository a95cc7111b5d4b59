"""Theorem 4 of the first paper, corrected: contractions of graph operators, in the norm in which they contract."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, claimed
from settlepoint.certify.point import Point, attempt, plain_norm
from settlepoint.certify.rounding import outward
from settlepoint.equation import Equation
from settlepoint.spaces import State

NORMS = {
    "two": "the 2-norm of all entries",
    "node": "the largest 2-norm of a node",
    "sup": "the largest entry",
}


def graph(eq: Equation, x: State, norm: str = "best") -> Certificate:
    """Banach's theorem in the 2-norm of all entries, the largest 2-norm of a node, or the largest entry.

    With c_i the number of neighbourhoods that hold node i, C = max c_i, W of constant L: an aggregation by maximum has
    L sqrt(C) in the 2-norm (the paper equates it with the 1-norm, where it is L C) and L in the sup norm, with |W| of
    row sums L there. By matrix A, as GCN, mean and sum: L ||A||_2, and L max_i sum_j |A_ij| in the node and sup norms;
    for the symmetrically normalised adjacency ||A||_2 <= 1. Degrees therefore never enter where the node or sup norm is
    taken. norm: "two", "node", "sup", or "best": the one that contracts most. The radius is in the 2-norm of a row:
    a bound b of the largest entry among W is at most b sqrt(W) there, and of the largest of n nodes b sqrt(n).

    Attention on graphs (GAT) has weights that depend on the state: refused, but on a ball.
    """
    if norm != "best" and norm not in NORMS:
        raise ValueError(f"norm must be 'best' or one of {', '.join(NORMS)}, got {norm!r}")

    def claim(here: Point) -> Certificate:
        plain_norm(here.eq)
        bound, rows = here.followed().bound, len(here.z)
        rates = {n: outward(getattr(bound, n)).expand(rows) for n in NORMS}
        chosen = norm if norm != "best" else min(rates, key=lambda n: float(rates[n].max()) if rows else 0.0)
        rate = rates[chosen]
        residual, factor = _measured(here, chosen)
        radius = torch.where(rate < 1, outward(factor * (residual + here.rounding) / (1 - rate)), torch.inf)
        told = ", ".join(f"{float(r.max()) if rows else 0.0:.4g} in {NORMS[n]}" for n, r in rates.items())
        lacks = here.lacks(f"no contraction of the whole space: L = {told}")
        texts = (f"L = {float(rate.max()) if rows else 0.0:.6g} in {NORMS[chosen]}, for all x", lacks)
        holds, everywhere = (rate < 1) & torch.isfinite(radius), torch.full_like(radius, torch.inf)
        name = "graph" if chosen != "two" and bool(holds.any()) else "banach"
        return claimed(holds, radius, rate, everywhere, texts, name)

    return attempt("graph", eq, x, claim)


def _measured(here: Point, norm: str) -> tuple[Tensor, float]:
    """||P(x) - x|| of every row in a norm, and what it must be multiplied by for the 2-norm."""
    r = (here.image - here.z).double()
    if norm == "two" or not r.shape[1]:
        return torch.linalg.vector_norm(r, dim=1), 1.0
    if norm == "sup":
        return r.abs().amax(1), math.sqrt(r.shape[1])
    first = here.x[0] if isinstance(here.x, tuple) else here.x
    width = first.shape[-1] if first.ndim else 1
    per_row = r.reshape(len(r), -1, width)
    return torch.linalg.vector_norm(per_row, dim=2).amax(1), math.sqrt(per_row.shape[1])
