"""Quadrature on an interval: nodes, weights, integrals from its left end to each node, values between the nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

_SLACK = 1e-9  # of the length, by which weights may miss it and times may lie outside


@dataclass(frozen=True, eq=False)
class Quadrature:
    """int_low^high y ds = sum_j w_j y(s_j),  int_low^{s_i} y ds = sum_j q_ij y(s_j)

    nodes: s, (n,), ascending in [low, high]. weights: w, (n,). cumulative: q, (n, n). panels: 0 for straight lines
    between the nodes, else the number of equal panels, on each of which values are those of a polynomial through its
    Gauss-Legendre nodes. In float64 on the CPU until `to`. Made by `gauss_legendre`, `trapezoidal`, `weighted_nodes`
    and `RandomNodes`, which say what they refuse.
    """

    low: float
    high: float
    nodes: Tensor
    weights: Tensor
    cumulative: Tensor
    panels: int = 0

    @property
    def length(self) -> float:
        """high - low, the volume of the interval."""
        return self.high - self.low

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"Quadrature({len(self)} nodes on [{self.low:g}, {self.high:g}])"

    def to(self, like: Tensor) -> Quadrature:
        """This rule in the dtype and on the device of a tensor."""
        parts = {name: getattr(self, name).to(like) for name in ("nodes", "weights", "cumulative")}
        return self if parts["nodes"] is self.nodes else replace(self, **parts)

    def held(self) -> Quadrature:
        """The rule of one solve: this one."""
        return self

    def integral(self, values: Tensor) -> Tensor:  # (..., n, d) -> (..., d)
        """int_low^high of what has these values at the nodes."""
        return torch.einsum("n,...nd->...d", self.weights, values)

    def integrals(self, values: Tensor) -> Tensor:  # (..., n, d) -> (..., n, d)
        """int_low^{s_i} of it, at every node s_i."""
        return self.cumulative @ values

    def between(self, times: Tensor | float) -> Tensor:  # (m,) -> (m, n)
        """E with y(t_i) = sum_j E_ij y(s_j).

        Polynomials of a degree below n (a panel) are met exactly by Gauss-Legendre rules. With linear interpolation
        times before the first node have its value, and times after the last one that of the last. Raises ValueError for
        times that are not finite or not in [low, high].
        """
        t = torch.as_tensor(times, dtype=torch.float64).detach().cpu().reshape(-1)
        slack = _SLACK * self.length
        if not bool(((t >= self.low - slack) & (t <= self.high + slack)).all()):
            found = t[~((t >= self.low - slack) & (t <= self.high + slack))][0]
            raise ValueError(f"times must lie in [{self.low:g}, {self.high:g}], got {float(found):g}")
        found = _polynomial(self, t.numpy()) if self.panels else _linear(self.nodes.cpu().numpy(), t.numpy())
        return torch.from_numpy(found).to(self.nodes)

    def at(self, values: Tensor, times: Tensor | float) -> Tensor:  # (..., n, d), (m,) -> (..., m, d)
        """What has these values at the nodes, at other times; linear in the values, so that gradients pass."""
        if values.ndim < 2 or values.shape[-2] != len(self):
            raise ValueError(f"values must be (..., {len(self)}, d), one a node, got {tuple(values.shape)}")
        return self.between(times).to(values) @ values


@dataclass(frozen=True, eq=False)
class RandomNodes:
    """Common random numbers: count nodes drawn evenly on [low, high], one sample for the length of a solve.

    int y ds = (high - low) / n sum_j y(s_j), and to s_i the same over the nodes before it: off by about n^{-1/2}. With
    nodes drawn anew in every evaluation nothing would settle; with one sample a solve settles to any tolerance, to the
    fixed point of this sample. generator: where the numbers come from; torch's global one by default.
    """

    count: int
    low: float = 0.0
    high: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self):
        _check_interval(self.low, self.high)
        _check_count("count", self.count)

    def held(self) -> Quadrature:
        """A sample of nodes, for one solve."""
        drawn = torch.rand(self.count, generator=self.generator, dtype=torch.float64).sort().values
        nodes = self.low + (self.high - self.low) * drawn
        weights = torch.full_like(nodes, (self.high - self.low) / self.count)
        return Quadrature(self.low, self.high, nodes, weights, weights.expand(len(nodes), -1).tril(-1).contiguous())


def gauss_legendre(count: int, low: float = 0.0, high: float = 1.0, *, panels: int = 1) -> Quadrature:
    """Gauss-Legendre with count nodes on each of equal panels: exact for polynomials of a degree below 2 count.

    Integrals to a node are those of the polynomials through the nodes, exact for a degree below count: with
    l_j = w_j sum_k (k + 1/2) P_k(s_j) P_k, and int_{-1}^x P_k = (P_{k+1}(x) - P_{k-1}(x)) / (2k + 1). Panels make q
    block triangular: constants of Volterra equations that can be certified grow with their number. Raises ValueError
    for counts below 1 and ends that are not finite or in the wrong order, as all rules do.
    """
    _check_interval(low, high)
    _check_count("count", count)
    _check_count("panels", panels)
    x, w = legendre.leggauss(count)
    half = (high - low) / panels / 2
    starts = low + 2 * half * np.arange(panels)
    nodes = (starts[:, None] + half * (x + 1)).reshape(-1)
    weights = np.tile(half * w, panels)
    whole = np.tril(np.ones((panels, panels)), -1)
    cumulative = np.kron(whole, np.tile(half * w, (count, 1))) + np.kron(np.eye(panels), half * _antiderivatives(x, w))
    given = (torch.from_numpy(part) for part in (nodes, weights, cumulative))
    return Quadrature(float(low), float(high), *given, panels=panels)


def trapezoidal(count: int, low: float = 0.0, high: float = 1.0) -> Quadrature:
    """The trapezoidal rule, closed and composite: count nodes at equal distances, both ends among them; order 2."""
    _check_interval(low, high)
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ValueError(f"count must be an integer >= 2, got {count!r}")
    nodes = torch.linspace(low, high, count, dtype=torch.float64)
    weights = torch.full_like(nodes, (high - low) / (count - 1))
    weights[[0, -1]] /= 2
    return weighted_nodes(nodes, weights, low, high)


def weighted_nodes(nodes: Tensor, weights: Tensor, low: float, high: float) -> Quadrature:
    """A rule of one's own; between the nodes, and for integrals to a node, its values are joined by straight lines.

    Raises ValueError for nodes that do not ascend in [low, high], or weights that do not sum to high - low: such a rule
    does not integrate a constant, and was made for another interval.
    """
    _check_interval(low, high)
    s, w = (torch.as_tensor(given, dtype=torch.float64).cpu() for given in (nodes, weights))
    _check_nodes(s, w, low, high)
    rule = Quadrature(float(low), float(high), s, w, s.new_zeros(w.numel(), w.numel()))
    return replace(rule, cumulative=_joined(s, low))


def _joined(s: Tensor, low: float) -> Tensor:  # (n, n)
    """Integrals from low of the straight lines through the nodes, constant before the first."""
    q = s.new_zeros(len(s), len(s))
    q[:, 0] = s[0] - low
    for i, step in enumerate((s.diff() / 2).tolist(), start=1):
        q[i:, i - 1] += step
        q[i:, i] += step
    return q


def _antiderivatives(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(n, n): int_{-1}^{x_i} of the Lagrange polynomial of x_j."""
    n = len(x)
    P = legendre.legvander(x, n)
    risen = np.concatenate((x[:, None] + 1, (P[:, 2:] - P[:, : n - 1]) / (2 * np.arange(1, n) + 1)), 1)
    return risen @ (P[:, :n] * w[:, None] * (np.arange(n) + 0.5)).T


def _polynomial(rule: Quadrature, t: np.ndarray) -> np.ndarray:
    """(m, n): the Lagrange polynomials of the panel that each time lies in."""
    count = len(rule) // rule.panels
    x, w = legendre.leggauss(count)
    width = rule.length / rule.panels
    panel = np.clip(np.floor((t - rule.low) / width).astype(int), 0, rule.panels - 1)
    local = 2 * (t - rule.low - panel * width) / width - 1
    inside = (
        legendre.legvander(local, count - 1)
        @ (legendre.legvander(x, count - 1) * w[:, None] * (np.arange(count) + 0.5)).T
    )
    found = np.zeros((len(t), rule.panels, count))
    found[np.arange(len(t)), panel] = inside
    return found.reshape(len(t), len(rule))


def _linear(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(m, n): hat functions, constant outside of the nodes."""
    if len(s) == 1:
        return np.ones((len(t), 1))
    place = np.clip(np.searchsorted(s, t) - 1, 0, len(s) - 2)
    share = np.clip((t - s[place]) / (s[place + 1] - s[place]), 0.0, 1.0)
    found = np.zeros((len(t), len(s)))
    found[np.arange(len(t)), place] = 1 - share
    found[np.arange(len(t)), place + 1] += share
    return found


def _check_interval(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low and high must be finite with low < high, got {low} and {high}")


def _check_nodes(s: Tensor, w: Tensor, low: float, high: float) -> None:
    slack = _SLACK * (high - low)
    if s.ndim != 1 or not len(s) or not bool((s.diff() > 0).all()):
        raise ValueError(f"nodes must be a vector that ascends, got shape {tuple(s.shape)}")
    if not (low - slack <= float(s[0]) and float(s[-1]) <= high + slack):
        raise ValueError(f"nodes must lie in [{low:g}, {high:g}], got {float(s[0]):g} to {float(s[-1]):g}")
    if w.shape != s.shape:
        raise ValueError(f"weights must have one entry for each of the {len(s)} nodes, got {tuple(w.shape)}")
    if not bool((w > 0).all()):
        raise ValueError(f"weights must be positive, since they are those of a norm too, got {float(w.min()):g}")
    if not abs(float(w.sum()) - (high - low)) <= slack:
        raise ValueError(f"weights must sum to the length {high - low:g} of the interval, got {float(w.sum()):g}")


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
