"""True Jacobians of a net at the centre and around it, against every field of its bound."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from tests.certify.nets import Draw, Net
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from settlepoint import Equation
from settlepoint.certify import Refused, Traced, traced
from settlepoint.certify.bound import Bound

INSIDE = 3  # points in every ball beside its centre
SLACK = 1e-9  # of a Jacobian in float64


@dataclass(frozen=True)
class Seen:
    """Values (P, R, M) and Jacobians (P, R, M, W) of R rows at P points (P, R, W), the first of them the centre.

    shape: of the result, behind its rows.
    """

    x: Tensor
    y: Tensor
    J: Tensor
    shape: tuple[int, ...]
    last: int  # of the state's last dimension
    radii: tuple[float, ...]

    def near(self, radius: float) -> Seen:
        """The points that were drawn in that ball."""
        start = 1 + INSIDE * self.radii.index(radius)
        take = lambda v: torch.cat((v[:1], v[start : start + INSIDE]))  # noqa: E731
        return Seen(take(self.x), take(self.y), take(self.J), self.shape, self.last, self.radii)


def points(net: Net, draw: Draw) -> Tensor:  # (P, *net.x.shape)
    """The centre, and INSIDE points in every ball: on the sphere, half way out, far out where it is all."""
    found, rows = [net.x], 1 if net.whole else len(net.x)
    for radius in net.radii:
        for k in range(INSIDE):
            step = draw.normal(*net.x.shape)
            size = step.reshape(rows, -1).norm(dim=1).reshape(-1, *(1,) * (step.ndim - 1))
            reach = (0.5, 3.0, 20.0)[k] if math.isinf(radius) else radius * (1 - 1e-9, 1 - 1e-9, 0.5)[k]
            found.append(net.x + step * (reach / size))
    return torch.stack(found)


def seen(net: Net, draw: Draw) -> Seen:
    """One call for all points, or one a point where the rows of a state belong together."""
    at = points(net, draw)
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if net.whole:
            parts = [_slopes(lambda z: net.call(z[0])[None], x[None]) for x in at]
            y, J, shape = torch.stack([p[0] for p in parts]), torch.stack([p[1] for p in parts]), parts[0][2]
            return Seen(at.reshape(len(at), 1, -1), y, J, shape, at.shape[-1], net.radii)
        y, J, shape = _slopes(net.call, at.flatten(0, 1))
    split = lambda v: v.unflatten(0, at.shape[:2])  # noqa: E731
    return Seen(at.flatten(2), split(y), split(J), shape, at.shape[-1], net.radii)


def _slopes(call, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Values and Jacobians of rows that do not mix, by one backward pass for every entry of the result."""
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    flat = y.reshape(len(x), -1)
    pull = lambda m: torch.autograd.grad(flat[:, m].sum(), leaf, retain_graph=True, allow_unused=True)[0]  # noqa: E731
    rows = [pull(m) for m in range(flat.shape[1])] if flat.requires_grad else [None] * flat.shape[1]
    zero = torch.zeros_like(x)
    J = torch.stack([(zero if g is None else g).flatten(1) for g in rows], 1)
    return flat.detach(), J, tuple(y.shape[1:])


def bounded(net: Net, radius: float) -> Traced | None:
    """The net with its bound on a ball, or None where it is refused."""
    try:
        return traced(Equation(net.call), net.x, radius)
    except Refused:
        return None


def broken(t: Traced, s: Seen, radius: float) -> dict[str, float]:
    """Fields of the bound that are exceeded, and by what factor."""
    t, b = (t, t.bound) if len(t.bound.two) in (1, s.y.shape[1]) else _together(t)
    slack = SLACK * (1 + s.J.abs().amax())
    pair = lambda v: v[:, None] - v[None]  # noqa: E731
    distance = pair(s.x).norm(dim=-1)
    distance = torch.where(distance > 1e-3 * distance.amax(), distance, torch.inf)  # in one dimension points coincide
    turned = torch.linalg.matrix_norm(pair(s.J), ord=2) if s.J.shape[-2] else distance * 0
    found = {
        "two": (torch.linalg.matrix_norm(s.J, ord=2), b.two, slack),
        "sup": (s.J.abs().sum(-1).amax(-1), b.sup, slack),
        "entry": (s.J.norm(dim=-1).amax(-1), b.entry, slack),
        "node": (_node(s), b.node, slack),
        "bend": ((turned / distance).amax(0), b.bend, SLACK + slack / min(radius, 1.0)),
        "moved": ((pair(s.y).norm(dim=-1) / distance).amax(0), b.two, SLACK + slack / min(radius, 1.0)),
        "cap": (s.y.abs().amax(-1), b.cap, slack),
        "peak": (s.y.abs().amax(-1), t.peak, slack),
        "extent": (s.y.norm(dim=-1), t.extent, slack),
    }
    low, high = (v.reshape(s.y.shape[1:]) for v in (t.low, t.high))
    found["low"] = ((low - s.y).amax(-1), torch.zeros(1), slack + SLACK * s.y.abs().amax())
    found["high"] = ((s.y - high).amax(-1), torch.zeros(1), slack + SLACK * s.y.abs().amax())
    if b.table is not None and b.table.shape == s.J.shape[-2:]:
        found["table"] = ((s.J.abs() - b.table).amax((-1, -2)), torch.zeros(1), slack)
    over = {
        name: (true, most, room)
        for name, (true, most, room) in found.items()
        if bool((true > most * (1 + 1e-9) + room).any())
    }
    return {name: float((true / most).max()) for name, (true, most, _) in over.items()}


def _together(t: Traced) -> tuple[Traced, Bound]:
    """Where rows were kept apart, but are measured as one."""
    whole = Traced.make(t.value[None], t.bound.collapsed())
    return whole, whole.bound


def _node(s: Seen) -> Tensor:  # (P, R)
    """From below: max-node norm of J v over that of v, v improved three times from the worst node of the result."""
    M, W = s.J.shape[-2:]
    d = s.shape[-1] if s.shape else 1
    J = s.J.reshape(*s.J.shape[:2], M // d, d, W // s.last, s.last)
    u, size = J.sum((-1, -2)), J.new_zeros(J.shape[:3])
    for _ in range(3):
        v = torch.einsum("prmd,prmdnk->prmnk", u, J)  # for every node m of the result its own v
        v = v / v.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        u = torch.einsum("prmdnk,prmnk->prmd", J, v)
        size = u.norm(dim=-1)
        u = u / size[..., None].clamp(min=1e-300)
    return size.amax(-1)
