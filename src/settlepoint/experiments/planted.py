"""Maps whose fixed points are known: P(x) = L x + V s(U x + b) + d, and what a certificate ought to prove of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from settlepoint.equation import Equation
from settlepoint.experiments.theory_trials import length, normal, uniform

Array = np.ndarray[Any, np.dtype[np.longdouble]]
"""Extended precision where NumPy has it (64 bits of mantissa on x86), else float64."""

_NEWTON_STEPS = 40
_STARTS = 12  # of Newton's method beside the planted fixed point, to find the others
_SETTLED, _SAME = 1e-10, 1e-9  # last Newton step, and distance between two fixed points, relative to 1 + ||x||


@dataclass(frozen=True)
class Activation:
    """s in torch and in NumPy, its slope, and sup |s''| (0 between the kinks of relu)."""

    call: Callable[[Tensor], Tensor]
    exact: Callable[[Array], Array]
    slope: Callable[[Tensor], Tensor]
    bend: float


ACTIVATIONS = {
    "none": Activation(torch.zeros_like, np.zeros_like, torch.zeros_like, 0.0),
    "square": Activation(torch.square, np.square, lambda v: 2 * v, 2.0),
    "sin": Activation(torch.sin, np.sin, torch.cos, 1.0),
    "tanh": Activation(torch.tanh, np.tanh, lambda v: 1 - v.tanh() ** 2, 4 / 3**1.5),
    "softplus": Activation(  # torch's own is v, a line, beyond 20
        lambda v: F.softplus(v, 1.0, 60.0),
        lambda v: np.maximum(v, 0) + np.log1p(np.exp(-np.abs(v))),
        torch.sigmoid,
        0.25,
    ),
    "relu": Activation(torch.relu, lambda v: np.maximum(v, 0), lambda v: (v > 0).double(), 0.0),
}


class Net(nn.Module):
    """P(x) = L x + V s(U x + b) + d, with b (R, h) and d (R, W) of every row as context."""

    L: Tensor
    V: Tensor
    U: Tensor

    def __init__(self, L: Tensor, V: Tensor | None = None, U: Tensor | None = None, kind: str = "none"):
        super().__init__()
        self.kind, self.s = kind, ACTIVATIONS[kind]
        self.register_buffer("L", L)
        self.register_buffer("V", L.new_zeros(len(L), 1) if V is None else V)
        self.register_buffer("U", L.new_zeros(1, len(L)) if U is None else U)

    def forward(self, x: Tensor, b: Tensor, d: Tensor) -> Tensor:
        return F.linear(x, self.L) + F.linear(self.s.call(F.linear(x, self.U) + b), self.V) + d

    def exact(self, x: Array, b: Array, d: Array) -> Array:
        """P in extended precision."""
        L, V, U = map(extended, (self.L, self.V, self.U))
        return x @ L.T + self.s.exact(x @ U.T + b) @ V.T + d

    def jacobian(self, x: Tensor, b: Tensor) -> Tensor:  # (..., W) -> (..., W, W)
        """L + V diag(s'(U x + b)) U in float64."""
        L, V, U = self.L.double(), self.V.double(), self.U.double()
        return L + V @ (self.s.slope(x @ U.T + b)[..., None] * U)

    @property
    def curvature(self) -> float:
        """K = sup |s''| ||V|| ||U|| max ||u_i||, the Lipschitz constant of P'.

        Exact where V has one column and U one row, or orthogonal ones of one length, else from above. 0 between the
        kinks of relu.
        """
        norm = lambda A: float(torch.linalg.matrix_norm(A.double(), ord=2))  # noqa: E731
        return self.s.bend * norm(self.V) * norm(self.U) * float(length(self.U.double()).max())


@dataclass(frozen=True)
class Cases:
    """One map, R values, and the fixed points of every row (R, n, W), NaN where there are fewer.

    plain: the operator is handed over as a function, whose weights cannot be lifted to float64.
    """

    net: Net
    b: Tensor
    d: Tensor
    value: Tensor
    roots: Array
    plain: bool = False

    @property
    def eq(self) -> Equation:
        return Equation(self.net.forward if self.plain else self.net, context=(self.b, self.d))

    @property
    def distances(self) -> Tensor:  # (R, n)
        """From the value to every fixed point; inf where there is none."""
        gap = self.roots - extended(self.value)[:, None]
        return torch.from_numpy(np.sqrt((gap**2).sum(-1)).astype(np.float64)).nan_to_num(nan=torch.inf)

    @property
    def jacobian(self) -> Tensor:  # (R, W, W)
        """At the value, float64."""
        return self.net.jacobian(self.value.double(), self.b.double())

    @property
    def certifiable(self) -> Tensor:  # (R,) bool
        """cond(I - J) < 1e6, and 2 K ||B|| ||B r|| < 1 with B = (I - J)^{-1}, r = P(x) - x and K of the map itself.

        Then there is a fixed point within 2 ||B r|| (Kantorovich 1948). Of relu, whose K is 0 as far as the next kink:
        within ||B r||, which must not reach the kink.
        """
        A = torch.eye(self.value.shape[1], dtype=torch.float64) - self.jacobian
        x, b, d = map(extended, (self.value, self.b, self.d))
        r = torch.from_numpy((self.net.exact(x, b, d) - x).astype(np.float64))
        B, trouble = torch.linalg.inv_ex(A)
        step, sizes = length((B @ r[:, :, None])[:, :, 0]), torch.linalg.svdvals(A)
        near = 2 * self.net.curvature * step < sizes[:, -1] * (1 - 1e-9)
        return (trouble == 0) & (sizes[:, 0] < 1e6 * sizes[:, -1]) & near & (step < self.room)

    @property
    def room(self) -> Tensor:  # (R,)
        """How far it is to the next kink."""
        if self.net.kind != "relu":
            return torch.full((len(self.value),), torch.inf, dtype=torch.float64)
        U = self.net.U.double()
        return ((self.value.double() @ U.T + self.b.double()).abs() / length(U)).amin(1)


def extended(v: Tensor) -> Array:
    """v in extended precision, unrounded."""
    return v.detach().double().numpy().astype(np.longdouble)


def fixed_points(net: Net, b: Tensor, d: Tensor, starts: Tensor) -> Array:  # (R, n, W) -> (R, n, W)
    """Newton's method from every start, NaN where it fails, or has found the same before.

    Residuals are in extended precision, so that the last steps, which are far below the float64 rounding of x, leave an
    error of some 1e-19 ||(I - J)^{-1}|| (||x|| + ||P(x)||).
    """
    eye, x = torch.eye(starts.shape[2], dtype=torch.float64), extended(starts)
    shift, offset, step = extended(b)[:, None], extended(d)[:, None], x
    with np.errstate(all="ignore"):  # where it runs away
        for _ in range(_NEWTON_STEPS):
            A = eye - net.jacobian(torch.from_numpy(x.astype(np.float64)), b.double()[:, None])
            step = solved(A, net.exact(x, shift, offset) - x)
            x = x + step
        settled = np.abs(step).max(-1) <= _SETTLED * (1 + np.abs(x).max(-1))
    return distinct(np.where(settled[..., None], x, np.nan), _SAME)


def solved(A: Tensor, r: Array) -> Array:
    """A^{-1} r in float64."""
    return torch.linalg.solve_ex(A, torch.from_numpy(r.astype(np.float64))[..., None])[0][..., 0].numpy()


def distinct(x: Array, same: float) -> Array:  # (R, n, W)
    """x with NaN for what came before."""
    found = x.copy()
    for k in range(1, x.shape[1]):
        gap = np.abs(found[:, :k] - x[:, k : k + 1]).max(-1)
        again = (gap <= same * (1 + np.abs(x[:, k : k + 1]).max(-1))).any(1)
        found[again, k] = np.nan
    return found


def planted(g: torch.Generator, net: Net, away: Tensor, *, size: float = 1.0, spread: float = 1.0, plain: bool = False):
    """A fixed point x of length about `size`, and a value that is `away` (R,) from it in a random direction.

    U x + b has entries of size `spread`; d = x - P(x) is rounded, and the fixed point found anew from x. Others are
    looked for from the value, where a proof may find one that is nearer, and from a dozen random starts.
    """
    rows, width = len(away), len(net.L)
    x = (size * normal(g, rows, width)).to(net.L)
    b = (spread * normal(g, rows, len(net.U))).to(net.L) - F.linear(x, net.U)
    d = x - net(x, b, torch.zeros_like(x))
    others = x[:, None] + 10 ** uniform(g, -2, 1, rows, _STARTS, 1) * normal(g, rows, _STARTS, width)
    value = beside(g, x, away)
    starts = torch.cat((x[:, None], value[:, None], others.to(x)), 1).double()
    return Cases(net, b, d, value, fixed_points(net, b, d, starts), plain)


def beside(g: torch.Generator, x: Tensor, away: Tensor) -> Tensor:
    """x moved by `away` (R,) in a random direction."""
    direction = normal(g, *x.shape)
    return (x + (away / length(direction))[:, None] * direction).to(x)
