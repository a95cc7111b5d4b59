"""Pieces on states (R, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.certify.nets import Builder, Draw, Function, Net, chain
from torch import nn

from settlepoint.certify.elementwise import KINKED, SMOOTH

SIMPLE = {name: getattr(F, name, None) or getattr(torch, name) for name in (*SMOOTH, *KINKED)}


def linear(draw: Draw, width: int) -> tuple[Function, int]:
    out = draw.integer(1, 6)
    W, b = draw.scaled(out, width), draw.normal(out)
    return lambda x: F.linear(x, W, b), out


def product(draw: Draw, width: int) -> tuple[Function, int]:
    """The ways to write a matrix product."""
    out = draw.integer(1, 6)
    W, b = draw.scaled(width, out), draw.normal(out)
    ways = (
        lambda x: x @ W,
        lambda x: torch.addmm(b, x, W, alpha=0.5),
        lambda x: (W.T @ x[:, :, None])[:, :, 0],
        lambda x: (W.T @ x.T).T,
        lambda x: torch.einsum("bi,ij->bj", x, W),
        lambda x: torch.bmm(x[:, None], W.expand(len(x), width, out)).flatten(1),
    )
    return draw.pick(ways), out


def orthogonal(draw: Draw, width: int) -> tuple[Function, int]:
    Q = torch.linalg.qr(draw.normal(width, width))[0]
    return lambda x: x @ Q, width


def simple(draw: Draw, width: int) -> tuple[Function, int]:
    return SIMPLE[draw.pick(tuple(SIMPLE))], width


def parametrised(draw: Draw, width: int) -> tuple[Function, int]:
    a, b, weight = draw.uniform(0.2, 3), draw.uniform(-2, 0), draw.normal(width)
    ways = (
        lambda x: F.softplus(x, beta=a),
        lambda x: F.leaky_relu(x, a - 1),
        lambda x: F.elu(x, alpha=a),
        lambda x: F.celu(x, alpha=a),
        lambda x: F.hardtanh(x, b, a),
        lambda x: x.clamp(b, a),
        lambda x: x.clamp(max=a),
        lambda x: torch.clamp_min(x, b),
        lambda x: F.prelu(x, weight),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.softshrink(x, a),
        lambda x: x.clone().relu_(),
        nn.ELU(a),
        nn.Hardtanh(b, a),
    )
    return draw.pick(ways), width


def power(draw: Draw, width: int) -> tuple[Function, int]:
    """Functions with bounds where their argument is bounded, or stays away from 0."""
    ways = (
        lambda x: x**2,
        lambda x: x.square() * 0.3,
        lambda x: x**3,
        lambda x: torch.exp(torch.tanh(x)),
        lambda x: torch.exp(x),
        lambda x: (1 + x**2).sqrt(),
        lambda x: (0.5 + x.square()).rsqrt(),
        lambda x: torch.log(2 + torch.sin(x)),
        lambda x: 1 / (1.5 + torch.cos(x)),
        lambda x: torch.reciprocal(1 + torch.exp(torch.tanh(x))),
        lambda x: (2 + torch.tanh(x)) ** 1.5,
        lambda x: (2 + torch.tanh(x)) ** -2,
        lambda x: torch.tanh(x) / (2 + torch.sin(x)),
        lambda x: x / (3 + x),
    )
    return draw.pick(ways), width


def normalised(draw: Draw, width: int) -> tuple[Function, int]:
    groups = 2 if width % 2 == 0 else 1
    ways = (
        nn.BatchNorm1d(width),
        nn.LayerNorm(width),
        nn.RMSNorm(width, eps=draw.pick((1e-5, 1e-2))),
        nn.GroupNorm(groups, width, eps=1e-2),
        nn.LayerNorm(width, elementwise_affine=False, eps=1e-1),
        nn.BatchNorm1d(width, affine=False),
    )
    return draw.filled(draw.pick(ways)), width


def scaled(draw: Draw, width: int) -> tuple[Function, int]:
    c, s = draw.scaled(width), draw.uniform(-2, 2)
    ways = (
        lambda x: c * x,
        lambda x: s * x - c,
        lambda x: c - x * s,
        lambda x: x / (c.abs() + 0.3),
        lambda x: -x,
        lambda x: torch.lerp(x, c.expand_as(x), 0.3),
        lambda x: x.masked_fill(c > 0, 1.5),
        lambda x: torch.where(c > 0, x, s * torch.tanh(x)),
        lambda x: torch.where(c > 0, x, 0.0),
        lambda x: F.dropout(x, 0.5, training=False),
        lambda x: x.clone().mul_(s).add_(c),
    )
    return draw.pick(ways), width


def reduced(draw: Draw, width: int) -> tuple[Function, int]:
    ways = (
        (lambda x: x - x.mean(1, keepdim=True), width),
        (lambda x: x.sum(-1, keepdim=True), 1),
        (lambda x: x.mean(dim=1, keepdim=True) * x.new_ones(width), width),
        (lambda x: x.amax(1, keepdim=True) + 0 * x, width),
        (lambda x: torch.softmax(x, -1), width),
        (lambda x: F.log_softmax(x, dim=1), width),
        (lambda x: x.softmax(1) * 3 - x, width),
        (lambda x: torch.logsumexp(x, 1, keepdim=True), 1),
        (lambda x: torch.logsumexp(x, -1)[:, None].expand(-1, width), width),
        (lambda x: (x[:, None] - x[:, :, None]).abs().sum(-1), width),
    )
    return draw.pick(ways)


def moved(draw: Draw, width: int) -> tuple[Function, int]:
    """Slices, permutations, repeats, other shapes and back."""
    perm, count = torch.tensor(draw.places(width, width)), draw.integer(1, width)
    negative = [p - width if p % 2 else p for p in perm.tolist()]
    ways = (
        (lambda x: x[:, :count], count),
        (lambda x: x[..., -count:], count),
        (lambda x: x[:, perm], width),
        (lambda x: torch.index_select(x, 1, perm), width),
        (lambda x: x[:, negative], width),
        (lambda x: x.flip(1), width),
        (lambda x: x.roll(1, 1), width),
        (lambda x: x.narrow(1, 0, count), count),
        (lambda x: torch.cat((x[:, count:], x[:, :count]), 1), width),
        (lambda x: torch.cat(x.split(count, dim=1)[::-1], dim=-1), width),
        (lambda x: torch.stack(x.unbind(1)[::-1], -1), width),
        (lambda x: torch.stack((x, torch.sin(x)), 2).flatten(1), 2 * width),
        (lambda x: x.repeat(1, 2), 2 * width),
        (lambda x: x.repeat_interleave(2, dim=1)[:, count:], 2 * width - count),
        (lambda x: x[:, None].expand(-1, 2, -1).reshape(len(x), -1), 2 * width),
        (lambda x: x.unsqueeze(1).movedim(1, 2).squeeze(-1), width),
        (lambda x: x.T.contiguous().T.clone(), width),
        (lambda x: F.pad(x, (1, 2), value=0.7), width + 3),
        (lambda x: F.pad(x[:, None], (1, 1), mode="replicate").flatten(1), width + 2),
    )
    return draw.pick(ways)


def gated(draw: Draw, width: int) -> tuple[Function, int]:
    """Two things that depend on the state, multiplied or divided."""
    out = draw.integer(1, 5)
    U, V = draw.scaled(width, out), draw.scaled(width, out)
    ways = (
        lambda x: torch.sigmoid(x @ U) * torch.tanh(x @ V),
        lambda x: torch.sin(x @ U) * torch.cos(x @ V),
        lambda x: (x @ U) * torch.sigmoid(x @ V),
        lambda x: (x @ U) * (x @ V),
        lambda x: torch.tanh(x @ U) / (1.1 + torch.sigmoid(x @ V)),
        lambda x: torch.lerp(torch.tanh(x @ U), torch.sin(x @ V), torch.sigmoid(x @ U)),
        lambda x: (torch.tanh(x @ U)[:, :, None] @ torch.sin(x @ V)[:, None]).sum(2),
        lambda x: torch.einsum("bi,bi->bi", torch.tanh(x @ U), torch.softmax(x @ V, 1)),
        lambda x: torch.softmax(x @ U, 1) * torch.softmax(x @ V, 1),
    )
    return draw.pick(ways), out


def stacked(draw: Draw, width: int) -> tuple[Function, int]:
    """One state against several matrices, and products with more letters."""
    heads, out = draw.integer(2, 3), draw.integer(1, 3)
    A, v = draw.scaled(heads, width, out), draw.scaled(width)
    ways = (
        (lambda x: (x[:, None, None] @ A).flatten(1), heads * out),
        (lambda x: (A.mT @ x[:, None, :, None]).flatten(1), heads * out),
        (lambda x: (x @ A).movedim(0, 1).flatten(1), heads * out),
        (lambda x: torch.einsum("bi,hij->bhj", x, A).flatten(1), heads * out),
        (lambda x: torch.einsum("bi,i->b", x, v)[:, None], 1),
        (lambda x: x @ v[:, None], 1),
        (lambda x: (x @ v)[:, None], 1),
        (lambda x: torch.einsum("bhi,i->b", x[:, None].expand(-1, heads, -1), v)[:, None], 1),
        (lambda x: torch.einsum("bi,bj->bi", torch.tanh(x), torch.softmax(x @ A[0], 1)), width),
    )
    return draw.pick(ways)


def residual(draw: Draw, width: int) -> tuple[Function, int]:
    _, f, out = chain(draw, STEPS, width, 2)
    W = draw.scaled(out, width)
    return lambda x: x + f(x) @ W, width


def branches(draw: Draw, width: int) -> tuple[Function, int]:
    _, f, a = chain(draw, STEPS, width, draw.integer(1, 2))
    _, g, b = chain(draw, STEPS, width, draw.integer(1, 2))
    if a == b:
        return draw.pick((lambda x: f(x) - g(x), lambda x: torch.lerp(f(x), g(x), 0.3), lambda x: f(x) * g(x))), a
    return lambda x: torch.cat((f(x), g(x)), 1), a + b


def as_tokens(draw: Draw, width: int) -> tuple[Function, int]:
    """(R, n d) as (R, n, d) and back."""
    d = draw.pick([k for k in range(1, width + 1) if width % k == 0])
    n = width // d
    W, A = draw.scaled(d, d), draw.scaled(n, n)
    norm = draw.filled(nn.LayerNorm(d, eps=1e-2))
    ways = (
        lambda x: (x.view(-1, n, d) @ W).flatten(1),
        lambda x: (A @ x.reshape(len(x), n, d)).flatten(1),
        lambda x: norm(x.unflatten(1, (n, d))).reshape(x.shape),
        lambda x: x.view(-1, n, d).transpose(1, 2).reshape(x.shape),
        lambda x: torch.softmax(x.view(-1, n, d), 1).flatten(1),
        lambda x: x.view(-1, n, d).sum(1, keepdim=True).expand(-1, n, -1).flatten(1),
        lambda x: (x.view(-1, n, d).mT @ torch.tanh(x.view(-1, n, d)) @ W).mean(1).repeat(1, n),
    )
    return draw.pick(ways), width


STEPS: dict[str, Builder] = {
    f.__name__: f for f in (linear, product, simple, parametrised, power, normalised, scaled, reduced, moved, gated)
}
PIECES: dict[str, Builder] = STEPS | {f.__name__: f for f in (orthogonal, stacked, residual, branches, as_tokens)}


def vector_net(draw: Draw) -> Net:
    """1 to 5 pieces on two states of 1 to 6 entries, near 0 or far from it."""
    width = draw.integer(1, 6)
    names, call, _ = chain(draw, PIECES, width, draw.integer(1, 5))
    x = draw.normal(2, width) * draw.pick((0.0, 0.1, 1.0, 3.0))
    return Net(tuple(names), call, x, radii=draw.balls())
