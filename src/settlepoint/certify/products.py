"""Rules for products, quotients, soft-max and attention: where two things that depend on the state meet."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from settlepoint.certify.bound import Bound, level, times
from settlepoint.certify.certificate import Refused
from settlepoint.certify.elementwise import fitted, inverse, scaled
from settlepoint.certify.linear_maps import left_product, right_product
from settlepoint.certify.mixing import weighted
from settlepoint.certify.traced import Traced, bound_of, plain, rule

_MUL = (torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.multiply, Tensor.mul_, Tensor.__imul__)
_DIV = (torch.div, Tensor.div, Tensor.__truediv__, torch.true_divide, torch.divide, Tensor.div_, Tensor.__itruediv__)


@rule(*_MUL)
def _(y: Tensor, a: Any, b: Any) -> Bound:
    if bound_of(a) is None or bound_of(b) is None:
        x, c = (b, a) if bound_of(a) is None else (a, b)
        return weighted(x, c, y) or scaled(x, c, y)
    return _product(y, a, b)


def _product(y: Tensor, a: Traced, b: Traced) -> Bound:
    """d(ab) = a db + b da, entry by entry."""
    u, v = _spread(a, y), _spread(b, y)
    p, q = level([u.bound, v.bound])
    pa, pb = (t.peak if len(t.peak) == len(p.two) else t.peak.amax(0, keepdim=True) for t in (u, v))
    both = lambda name: times(pa, getattr(q, name)) + times(pb, getattr(p, name))  # noqa: E731
    bend = both("bend") + times(p.two, q.entry) + times(p.entry, q.two)
    return _checked(
        Bound(both("two"), both("node"), both("sup"), both("entry"), bend, times(pa, pb), p.radius), "a product"
    )


def _spread(x: Traced, y: Tensor) -> Traced:
    """x repeated to the shape of y."""
    b = fitted(x, y)
    assert b is not None
    return Traced.make(plain(x).expand(y.shape), b)


def _checked(b: Bound, what: str) -> Bound:
    if not bool(torch.isfinite(b.two).any()):
        raise Refused(
            f"{what} of two things that depend on the state has no bound on the whole space; it has one on a ball "
            "(region=), or near the solution"
        )
    return b


@rule(*_DIV)
def _(y: Tensor, a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        raise Refused("a division that rounds is not continuous")
    if bound_of(b) is None:
        c = plain(b)
        return weighted(a, 1 / c, y) or scaled(a, 1 / c, y)
    return a * torch.reciprocal(b)


@rule(torch.reciprocal, Tensor.reciprocal)
def _(y: Tensor, x: Traced) -> Bound:
    return inverse(x)


@rule(Tensor.__rtruediv__, Tensor.__rdiv__)
def _(y: Tensor, x: Traced, c: Any) -> Any:
    return torch.reciprocal(x) * c


@rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm,
      torch.sparse.mm)  # fmt: skip
def _(y: Tensor, a: Any, b: Any) -> Bound:
    if bound_of(a) is None:
        return left_product(plain(a), b, y)
    if bound_of(b) is None:
        return right_product(a, plain(b), y)
    p, q = level([a.bound, b.bound])
    sizes = [t if len(t) == len(p.two) else t.amax(0, keepdim=True) for t in (a.extent, b.extent)]
    both = lambda u, v: times(sizes[0], v) + times(sizes[1], u)  # noqa: E731
    two = both(p.two, q.two)
    bend = both(p.bend, q.bend) + 2 * times(p.two, q.two)
    unknown = torch.full_like(two, torch.inf)
    total = float((sizes[0] * sizes[1]).nan_to_num(nan=math.inf).max()) if len(two) else math.inf
    return _checked(Bound(two, unknown, unknown, two, bend, unknown, p.radius, total=total), "a matrix product")


@rule(torch.softmax, F.softmax, Tensor.softmax, torch.special.softmax)
def _(y: Tensor, x: Traced, dim: int | None = None, *args: Any, **kwargs: Any) -> Bound:
    """J = diag(p) - p p^T has norm at most 1/2 in every p-norm, by Gershgorin; of the second derivative 5/2:

    p_i'' = p_i ((u_i - u~)(v_i - v~) - cov(u, v)) with |u_i - u~| <= sqrt(2) and |cov| <= 1/2 for unit u, v.
    """
    b = x.bound
    along = x.ndim - 1 if dim is None else dim % x.ndim
    bend = 2.5 * times(b.two, b.two) + 0.5 * b.bend
    node = 0.5 * b.node if along == x.ndim - 1 else torch.full_like(b.node, torch.inf)
    sets = plain(x).numel() / max(1, x.shape[along] * (len(x) if b.rows > 1 else 1))  # each of 2-norm at most 1
    one = torch.ones_like(b.cap)
    return Bound(0.5 * b.two, node, 0.5 * b.sup, 0.5 * b.entry, bend, one, b.radius, total=math.sqrt(sets))


@rule(torch.log_softmax, F.log_softmax, Tensor.log_softmax)
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    """J = I - 1 p^T: at most 1 + sqrt(n) in the 2-norm, 2 in the sup norm; its derivative that of p, sqrt(n) / 2."""
    b, root = x.bound, math.sqrt(max(x.shape))
    two = times(b.two, 1 + root)
    bend = times(0.5 * root, times(b.two, b.two)) + times(1 + root, b.bend)
    unknown = torch.full_like(two, torch.inf)
    return Bound(two, unknown, 2 * b.sup, torch.minimum(2 * b.entry, two), bend, unknown, b.radius)


@rule(torch.logsumexp, Tensor.logsumexp)
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    """The gradient is the soft-max, of norm at most 1; the Hessian has norm at most 1/2."""
    b, unknown = x.bound, torch.full_like(x.bound.two, torch.inf)
    return Bound(b.two, unknown, b.sup, b.entry, 0.5 * times(b.two, b.two) + b.bend, unknown, b.radius).without_node()


@rule(F.scaled_dot_product_attention)
def _(
    y: Tensor, query: Any, key: Any, value: Any, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(scale Q K^T + mask) V, step by step."""
    if dropout_p > 0:
        raise Refused("attention drops out in training, where the operator is random; call .eval() on it first")
    if enable_gqa:
        raise Refused("grouped queries have no bound here")
    scores = (query @ key.transpose(-2, -1)) * (scale or query.shape[-1] ** -0.5)
    if is_causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(ahead, -torch.inf)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.softmax(scores, -1) @ value


@rule(F.multi_head_attention_forward)
def _(y: Any, *args: Any, **kwargs: Any) -> Any:
    """Self- or cross-attention with one embedding size and without extra keys, step by step."""
    names = (
        "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k",
        "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias",
    )  # fmt: skip
    given = dict(zip(names, args, strict=False)) | kwargs
    if given.get("training", True) and given["dropout_p"] > 0:
        raise Refused("attention drops out in training, where the operator is random; call .eval() on it first")
    if given["bias_k"] is not None or given["add_zero_attn"] or given["in_proj_weight"] is None:
        raise Refused("attention with extra keys or several embedding sizes has no bound here")
    heads, biases = given["num_heads"], given["in_proj_bias"]
    weights = given["in_proj_weight"].chunk(3)
    shifts = (None,) * 3 if biases is None else biases.chunk(3)
    parts = [F.linear(given[n], w, s) for n, w, s in zip(names[:3], weights, shifts, strict=True)]  # (n, B, d)
    split = [p.unflatten(-1, (heads, -1)).movedim(0, -2) for p in parts]  # (B, heads, n, d / heads)
    mask = _mask(given.get("attn_mask"), given.get("key_padding_mask"), split[0].shape[0], heads)
    mixed = F.scaled_dot_product_attention(*split, attn_mask=mask)
    out = F.linear(mixed.movedim(-2, 0).flatten(-2), given["out_proj_weight"], given["out_proj_bias"])
    if not torch.allclose(plain(out), y[0], rtol=1e-4, atol=1e-6, equal_nan=True):
        raise Refused("this form of attention has no bound here")
    return out, _unknown(given["query"].bound)  # the weights, should anybody use them


def _unknown(like: Bound) -> Bound:
    """Nothing is known but that it depends on the state."""
    none = torch.full_like(like.two, torch.inf)
    return Bound(none, none, none, none, none, none, like.radius)


def _mask(mask: Tensor | None, padding: Tensor | None, batch: int, heads: int) -> Tensor | None:
    """The two masks of nn.MultiheadAttention as one that is added to the scores."""
    found = None
    if mask is not None:
        mask = torch.zeros(mask.shape).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
        found = mask if mask.ndim == 2 else mask.unflatten(0, (batch, heads))
    if padding is not None:
        pad = torch.zeros(padding.shape).masked_fill(padding, -torch.inf) if padding.dtype == torch.bool else padding
        found = pad[:, None, None] if found is None else found + pad[:, None, None]
    return found


@rule(torch.einsum)
def _(y: Tensor, equation: str, *operands: Any) -> Bound:
    """Products of two factors: ||AB|| <= ||A|| ||B|| in the 2-norm of all entries, as for every contraction."""
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if len(operands) != 2 or not isinstance(equation, str):
        raise Refused("einsum of other than two factors has no bound here")
    a, b = operands
    _contraction(equation, tuple(a.shape), tuple(b.shape))
    moved = [f for f in (a, b) if bound_of(f) is not None]
    unknown = lambda two: torch.full_like(two, torch.inf)  # noqa: E731
    if len(moved) == 1:
        size = float(torch.linalg.vector_norm(plain(b if moved[0] is a else a).double())) * (1 + 1e-12)
        c = moved[0].bound.collapsed()
        return Bound(
            size * c.two, unknown(c.two), unknown(c.two), size * c.two, size * c.bend, unknown(c.two), c.radius
        )
    p, q = a.bound.collapsed(), b.bound.collapsed()
    sizes = [t.extent.amax(0, keepdim=True) for t in (a, b)]
    two = times(sizes[0], q.two) + times(sizes[1], p.two)
    bend = times(sizes[0], q.bend) + times(sizes[1], p.bend) + 2 * times(p.two, q.two)
    return _checked(Bound(two, unknown(two), unknown(two), two, bend, unknown(two), p.radius), "a contraction")


def _contraction(equation: str, *shapes: tuple[int, ...]) -> None:
    """Raise `Refused` for diagonals, and for indices of one factor that are summed by themselves."""
    sides, _, result = equation.replace(" ", "").partition("->")
    factors = sides.split(",")
    sizes: dict[str, int] = {}
    for factor, shape in zip(factors, shapes, strict=True):
        for letter, size in zip(factor, shape, strict=True) if "." not in factor else ():
            if sizes.setdefault(letter, size) != size:
                raise Refused("einsum that repeats a dimension of size 1 has no bound here; expand it first")
        if "." in factor and 1 in shape:
            raise Refused("einsum with dots and dimensions of size 1 has no bound here")
    for factor, other in (factors, factors[::-1]):
        letters = factor.replace(".", "")
        if len(set(letters)) < len(letters):
            raise Refused("einsum along a diagonal has no bound here")
        if "->" in equation and any(c not in other and c not in result for c in letters):
            raise Refused("einsum that sums one factor by itself has no bound here; write the sum apart")
