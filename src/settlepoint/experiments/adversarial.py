"""Adversarial cases for certificates: fixed points that nearly touch, or vanish, kinks, bad Jacobians, wrong values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from settlepoint.experiments.planted import Array, Cases, Net, beside, distinct, extended, planted, solved
from settlepoint.experiments.theory_trials import normal, sized, uniform


@dataclass(frozen=True)
class Kind:
    """text: what is hard. draw(generator, rows): cases on one random map."""

    text: str
    draw: Callable[[torch.Generator, int], Cases]


def cases(kind: str, count: int, g: torch.Generator, rows: int = 8) -> Iterator[Cases]:
    """count values of a kind, up to `rows` for a map."""
    for begin in range(0, count, rows):
        yield KINDS[kind].draw(g, min(rows, count - begin))


def powers(g: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """10 to uniform powers."""
    return 10 ** uniform(g, low, high, *shape)


def integers(g: torch.Generator, low: int, high: int, *shape: int) -> Tensor:
    """Whole numbers in [low, high], as float64."""
    return torch.randint(low, high + 1, shape, generator=g).double()


def width(g: torch.Generator, low: int = 2, high: int = 6) -> int:
    return int(integers(g, low, high, 1))


def orthogonal(g: torch.Generator, n: int) -> Tensor:
    return torch.linalg.qr(normal(g, n, n))[0]


@dataclass(frozen=True)
class Line:
    """y_1 = l y_1 + v s(y_1) + d along one direction, with fixed points `roots` (R, n), on which the rest hangs."""

    l: float  # noqa: E741
    v: float
    kind: str
    d: Tensor
    roots: Array

    def placed(self, g: torch.Generator, along: Tensor, beside: Tensor) -> Cases:
        """The map in more dimensions: x = c + S y, y' = M y', and y_1 also moved by y'.

        S is unimodular with whole entries, c whole, all else a multiple of a power of 1/2: no product is rounded, so
        that the fixed points are those of the numbers that are handed over, touching ones too. along: (R,) y_1 of the
        values; beside: (R,), how far y' is off.
        """
        n, rows = width(g, 2, 4), len(self.d)
        S = _unimodular(g, n)
        inverse = torch.linalg.inv(S).round()
        A = integers(g, -2, 2, n, n) / 8
        A[:, 0] = 0.0
        A[0, 0] = self.l
        c = integers(g, -3, 3, n)
        L, e = S @ A @ inverse, S[:, :1]
        b = -(inverse[:1] @ c).expand(rows, 1)
        d = c - L @ c + self.d[:, None] * e[:, 0]
        y = torch.cat((along[:, None], beside[:, None] * normal(g, rows, n - 1)), 1)
        roots = extended(c) + self.roots[:, :, None] * extended(e[:, 0])
        return Cases(Net(L, self.v * e, inverse[:1], self.kind), b, d, c + y @ S.T, roots)


def _unimodular(g: torch.Generator, n: int) -> Tensor:
    low, high = (torch.tril(integers(g, -1, 1, n, n), -1) + torch.eye(n, dtype=torch.float64) for _ in "SR")
    return low @ high.T


def _none(rows: int) -> Array:
    return np.full((rows, 1), np.nan, dtype=np.longdouble)


def _halved(g: torch.Generator, low: int, high: int, rows: int) -> Tensor:
    """Powers of 1/2: 2^-low to 2^-high."""
    return 2 ** -integers(g, low, high, rows)


def close_pair(g: torch.Generator, rows: int) -> Cases:
    """y = y - s (y^2 - a^2): fixed points at ±a, 1e-1 to 1e-6 apart; values at one of them, or between."""
    a, s = _halved(g, 4, 21, rows), float(_halved(g, 0, 2, 1))
    line = Line(1.0, -s, "square", s * a**2, extended(torch.stack((a, -a), 1)))
    between = uniform(g, 0, 1, rows) < 0.2
    along = torch.where(between, a * powers(g, -3, 0, rows), a * (1 + powers(g, -9, 0.5, rows)))
    return line.placed(g, along, a * powers(g, -9, 0, rows))


def double_root(g: torch.Generator, rows: int) -> Cases:
    """y = y - s y^2: the two meet, and I - J is singular there; exactly at it, or beside."""
    line = Line(1.0, -1.0, "square", torch.zeros(rows, dtype=torch.float64), np.zeros((rows, 1), np.longdouble))
    along = torch.where(uniform(g, 0, 1, rows) < 0.2, 0.0, powers(g, -12, 0, rows))
    return line.placed(g, along, along * powers(g, -9, 0, rows))


def near_miss(g: torch.Generator, rows: int) -> Cases:
    """y = y - s (y^2 + a^2): they have met and are gone; the residual is as small as s a^2."""
    a, s = _halved(g, 4, 21, rows), float(_halved(g, 0, 2, 1))
    line = Line(1.0, -s, "square", -s * a**2, _none(rows))
    return line.placed(g, a * 3 * normal(g, rows), a * powers(g, -9, 0, rows))


def translation(g: torch.Generator, rows: int) -> Cases:
    """y = y + t + v s(y), |v s| < |t|: moved everywhere, by as little as t - |v|."""
    kind = ("none", "sin", "tanh")[int(integers(g, 0, 2, 1))]
    t = 2.0 ** float(integers(g, -10, 1, 1))
    v = t * (1 - float(_halved(g, 1, 12, 1)))
    line = Line(1.0, v, kind, torch.full((rows,), t, dtype=torch.float64), _none(rows))
    return line.placed(g, normal(g, rows) * 3, powers(g, -9, -1, rows))


def tail(g: torch.Generator, rows: int) -> Cases:
    """y = log(1 + exp(y)) > y: residuals of exp(-y), down to 1e-13, and no fixed point."""
    line = Line(0.0, 1.0, "softplus", torch.zeros(rows, dtype=torch.float64), _none(rows))
    return line.placed(g, uniform(g, 0, 30, rows), powers(g, -12, -1, rows))


def many(g: torch.Generator, rows: int) -> Cases:
    """y = y - s sin(y): fixed points at all multiples of pi; values anywhere between."""
    pi = np.arctan(np.longdouble(1)) * 4
    roots = np.broadcast_to(pi * np.arange(-6, 7), (rows, 13))
    line = Line(1.0, -float(_halved(g, 0, 4, 1)), "sin", torch.zeros(rows, dtype=torch.float64), roots)
    near = torch.pi * integers(g, -2, 2, rows) + powers(g, -12, 0, rows)
    return line.placed(
        g, torch.where(uniform(g, 0, 1, rows) < 0.3, uniform(g, -6, 6, rows), near), powers(g, -12, -1, rows)
    )


def nearly_singular(g: torch.Generator, rows: int) -> Cases:
    """y = (1 - e) y - s y^2, e down to 1e-12: fixed points at 0 and -e / s, or at 0 alone."""
    e, s = float(_halved(g, 4, 40, 1)), float(integers(g, 0, 1, 1))
    roots = extended(torch.tensor([[0.0, -e]])) if s else np.zeros((1, 1), np.longdouble)
    line = Line(1 - e, -s, "square", torch.zeros(rows, dtype=torch.float64), roots.repeat(rows, 0))
    return line.placed(g, e * powers(g, -6, 0.5, rows), e * powers(g, -9, 0, rows))


def slow(g: torch.Generator, rows: int) -> Cases:
    """Contractions of rate .999, linear but for a tenth."""
    n = width(g)
    Q = orthogonal(g, n)
    signs = torch.where(uniform(g, 0, 1, n) < 0.5, -1.0, 1.0).double()
    net = Net(0.9 * (Q * signs) @ Q.T, 0.099 * Q * signs, Q.T.contiguous(), "sin")
    return planted(g, net, powers(g, -14, -1, rows), spread=0.1)


def jordan(g: torch.Generator, rows: int) -> Cases:
    """Jordan blocks of eigenvalue .5 with couplings of 1 to 50."""
    n = width(g, 2, 5)
    T = 0.5 * torch.eye(n, dtype=torch.float64) + torch.diag(powers(g, 0, 1.7, n - 1), 1)
    Q, R = orthogonal(g, n), orthogonal(g, n)
    return planted(g, Net(Q @ T @ Q.T, 0.02 * R, Q.T.contiguous(), "sin"), powers(g, -14, -1, rows))


def large_norm(g: torch.Generator, rows: int) -> Cases:
    """||J|| = 50 at a spectral radius of .5."""
    n = width(g, 2, 5)
    T = sized(torch.triu(normal(g, n, n), 1), 50.0) + 0.5 * torch.diag(
        torch.where(uniform(g, 0, 1, n) < 0.5, -1.0, 1.0)
    )
    Q, R = orthogonal(g, n), orthogonal(g, n)
    return planted(g, Net(Q @ T @ Q.T, 0.02 * R, Q.T.contiguous(), "sin"), powers(g, -14, -1, rows))


def single_precision(g: torch.Generator, rows: int) -> Cases:
    """float32 states and weights; every other map as a plain function, which cannot be lifted to float64."""
    plain = bool(uniform(g, 0, 1, 1) < 0.5)
    return planted(g, _net(g, 1.5).float(), powers(g, -8, -3, rows), plain=plain)


def far_out(g: torch.Generator, rows: int) -> Cases:
    """Fixed points 1e6 from the origin."""
    return planted(g, _net(g, 1.5), powers(g, -10, -2, rows), size=1e6)


def not_converged(g: torch.Generator, rows: int) -> Cases:
    """Values that are .1 to 10 away."""
    return planted(g, _net(g, 1.5), powers(g, -1, 1, rows))


def off(g: torch.Generator, rows: int) -> Cases:
    """Networks whose values are wrong by 1e-3."""
    return planted(g, _net(g, float(uniform(g, 1, 3, 1))), torch.full((rows,), 1e-3, dtype=torch.float64))


def _net(g: torch.Generator, gain: float) -> Net:
    """Two random layers, of no norm in particular."""
    n = width(g, 4, 8)
    V, U = normal(g, n, 2 * n) / (2 * n) ** 0.5, gain * normal(g, 2 * n, n) / n**0.5
    return Net(0.2 * normal(g, n, n) / n**0.5, V, U, ("tanh", "sin", "softplus")[int(integers(g, 0, 2, 1))])


def kinked(g: torch.Generator, rows: int) -> Cases:
    """relu with a unit 0 to 1e-1 from its kink at the fixed point; the fixed points of all pieces are known."""
    n, h = width(g, 2, 4), width(g, 2, 5)
    V, U = normal(g, n, h) / h**0.5, 1.5 * normal(g, h, n) / n**0.5
    net, x = Net(0.2 * normal(g, n, n) / n**0.5, V, U, "relu"), normal(g, rows, n)
    at = normal(g, rows, h)
    at[:, 0] = torch.where(uniform(g, 0, 1, rows) < 0.2, 0.0, at[:, 0].sign() * powers(g, -12, -1, rows))
    b = at - x @ U.T
    d = x - net(x, b, torch.zeros_like(x))
    return Cases(net, b, d, beside(g, x, powers(g, -15, -1, rows)), _pieces(net, b, d))


def _pieces(net: Net, b: Tensor, d: Tensor) -> Array:  # (R, 2^h, W)
    """The fixed point of every linear piece of a relu map that lies in its piece, NaN for the others."""
    on = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(net.U))), dtype=torch.float64)
    L, V, U = map(extended, (net.L, net.V, net.U))
    A = torch.eye(len(L), dtype=torch.float64) - net.L - net.V @ (on[:, :, None] * net.U)
    shift, offset, mask = extended(b)[:, None], extended(d)[:, None], extended(on)
    x = np.zeros((len(b), len(on), len(L)), np.longdouble)
    for _ in range(5):  # refinement: the first solve is right to float64
        x = x + solved(A, x @ L.T + (mask * (x @ U.T + shift)) @ V.T + offset - x)
    inside = np.all((x @ U.T + shift) * (2 * mask - 1) >= -1e-17, axis=-1)
    return distinct(np.where(inside[..., None], x, np.nan), 1e-16)


KINDS = {
    "close pair": Kind("two fixed points 1e-1 to 1e-6 apart", close_pair),
    "double root": Kind("two fixed points that touch", double_root),
    "near miss": Kind("two fixed points that touched and are gone", near_miss),
    "translation": Kind("no fixed point: moved everywhere", translation),
    "tail": Kind("no fixed point: log(1 + exp(y)) > y", tail),
    "many": Kind("thirteen fixed points in a row", many),
    "nearly singular": Kind("I - J with an eigenvalue of 1e-1 to 1e-12", nearly_singular),
    "rate .999": Kind("contractions of rate .999", slow),
    "Jordan blocks": Kind("couplings of up to 50 above an eigenvalue of .5", jordan),
    "norm 50": Kind("||J|| = 50 at a spectral radius of .5", large_norm),
    "float32": Kind("float32 states, half of them not to be lifted", single_precision),
    "far out": Kind("fixed points 1e6 from the origin", far_out),
    "not converged": Kind("values .1 to 10 away", not_converged),
    "off by 1e-3": Kind("networks whose values are wrong by 1e-3", off),
    "relu": Kind("a unit within 1e-1 to 0 of its kink", kinked),
}
"""Name to what is hard about it."""
