"""Contractions entry by entry: |P(a) - P(b)| <= N |a - b| with a nonnegative matrix N  (Perov 1964)."""

from __future__ import annotations

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, Refused, claimed
from settlepoint.certify.norms import perron_bound
from settlepoint.certify.point import Point, attempt, plain_norm
from settlepoint.certify.rounding import outward
from settlepoint.equation import Equation
from settlepoint.spaces import State


def perron(eq: Equation, x: State, table: Tensor | None = None) -> Certificate:
    """|x - x*| <= e for every e with N e + |P(x) - x| <= e, where the Perron root of N is below 1.

    table: N (W, W), nonnegative, with |P(a) - P(b)| <= N |a - b| entry by entry, for all a, b, taken as proved; by
    default from the absolute weights of the operator, for states of up to 1,000 entries: |W| for tanh(W x + u). The
    root is a norm of its own, the sup norm with weights, in which a network of small positive weights contracts though
    ||W||_2 and all row sums exceed 1. Claims existence and uniqueness everywhere. Raises ValueError for a table with
    negative entries or of another size.
    """

    def claim(here: Point) -> Certificate:
        N = _given(table, here) if table is not None else _worked_out(here)
        root, weights = perron_bound(N)
        gap = (here.image - here.z).double().abs() + here.rounding[:, None]
        error = least_error(N, gap, weights, root)
        radius = outward(torch.linalg.vector_norm(error, dim=1), 4 * len(N))
        rate = torch.full_like(radius, root)
        texts = (
            f"the Perron root of the absolute weights is {root:.6g}, for all x",
            here.lacks(f"the Perron root of the absolute weights is {root:.6g}, not below 1"),
        )
        holds = (rate < 1) & torch.isfinite(radius)
        return claimed(holds, radius, rate, torch.full_like(radius, torch.inf), texts, "perron")

    return attempt("perron", eq, x, claim)


def _given(table: Tensor, here: Point) -> Tensor:
    width = here.z.shape[1]
    if tuple(table.shape) != (width, width) or not bool((table >= 0).all()):
        raise ValueError(f"table must be a nonnegative matrix of {width} rows and columns, got {tuple(table.shape)}")
    return table.detach().double()


def _worked_out(here: Point) -> Tensor:
    plain_norm(here.eq)
    table = here.followed().bound.table
    if table is not None and not bool(torch.isfinite(table).all()):
        raise Refused("no entry is bounded on the whole space")
    if table is None:
        raise Refused(
            "no table of absolute weights: for states of one dimension a row, through matrices and activations"
        )
    return table


def least_error(N: Tensor, gap: Tensor, weights: Tensor, root: float) -> Tensor:  # (R, W)
    """The least e with N e + gap <= e, where solving for it is sound to rounding, else from the weighted sup norm."""
    if not root < 1:
        return torch.full_like(gap, torch.inf)
    coarse = weights * (gap / weights).amax(1, keepdim=True) / (1 - root)
    gaps = torch.cat((gap, torch.ones_like(gap[:1])))
    solved = torch.linalg.solve_ex(torch.eye(len(N), dtype=N.dtype, device=N.device) - N, gaps.T)[0].T
    fine, rise = solved[:-1], solved[-1]  # N rise + 1 = rise
    slack = (fine @ N.T + gap - fine).abs().amax(1, keepdim=True)
    fine = (fine + 8 * slack * rise) * (1 + 1e-9)
    sound = (fine >= fine @ N.T + gap).all(1, keepdim=True) & torch.isfinite(fine).all(1, keepdim=True)
    return torch.where(sound, torch.minimum(fine, coarse), coarse)


def bielecki(eq: Equation, x: State, times: Tensor, bound: float) -> Certificate:
    """Volterra equations x(t) = f(t) + lam int_0^t k(t, s, x(s)) ds: a contraction in exp(beta t)-weighted sup norms.

    times: (W,) ascending, the grid of a state (R, W) that the operator integrates over by the trapezoidal rule. bound:
    L with |k(t, s, a) - k(t, s, b)| <= L |a - b|, taken as proved. However large L T is, N = L times the trapezoidal
    weights is lower triangular, and the weights v_i with N v <= rate v play the part of exp(beta t_i) (Bielecki 1956).
    Refused where the grid is so coarse that L times half a step reaches 1. Raises ValueError for other times.
    """
    t = torch.as_tensor(times, dtype=torch.float64)
    if t.ndim != 1 or not bool((t.diff() > 0).all()):
        raise ValueError(f"times must be a vector that ascends, got shape {tuple(t.shape)}")
    if not bound >= 0:
        raise ValueError(f"bound must be >= 0, got {bound}")

    def claim(here: Point) -> Certificate:
        lam = float(torch.as_tensor(here.eq.lam, dtype=torch.float64).detach().abs().max())
        N = lam * float(bound) * _trapezoidal(t).to(here.z.device)
        if N.shape[0] != here.z.shape[1]:
            raise ValueError(f"times must have one entry for each of the {here.z.shape[1]} values, got {len(t)}")
        rate = float(N.diagonal().max()) * (1 + 1e-12)
        gap = ((here.image - here.z).double().abs() + here.rounding[:, None]).nan_to_num(nan=torch.inf)
        error = torch.linalg.solve_triangular(torch.eye(len(N), dtype=N.dtype) - N, gap.T, upper=False).T * (1 + 1e-9)
        radius = outward(torch.linalg.vector_norm(error, dim=1), 4 * len(N))
        rates = torch.full_like(radius, rate)
        holds = (rates < 1) & torch.isfinite(radius) & (error >= 0).all(1)
        texts = (
            f"a contraction of any rate above {rate:.3g} in exp(beta t)-weighted sup norms",
            here.lacks(f"L times half a step is {rate:.3g}, not below 1: take a finer grid"),
        )
        return claimed(holds, radius, rates, torch.full_like(radius, torch.inf), texts, "bielecki")

    return attempt("bielecki", eq, x, claim)


def _trapezoidal(t: Tensor) -> Tensor:  # (W, W)
    """q with int_0^{t_i} y ds = sum_j q_ij y_j."""
    steps = t.diff()
    q = t.new_zeros(len(t), len(t))
    for i in range(1, len(t)):
        q[i, :i] += steps[:i] / 2
        q[i, 1 : i + 1] += steps[:i] / 2
    return q
