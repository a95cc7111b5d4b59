"""Rules for functions of every entry by itself, and for sums and multiples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from settlepoint.certify.bound import Bound, sums, times
from settlepoint.certify.certificate import Refused
from settlepoint.certify.traced import Traced, bound_of, guard, plain, rule

_INF = math.inf

SMOOTH: dict[str, tuple[float, float, float]] = {
    "tanh": (1.0, 4 / (3 * math.sqrt(3)) + 1e-12, 1.0),
    "sigmoid": (0.25, 1 / (6 * math.sqrt(3)) + 1e-12, 1.0),
    "logsigmoid": (1.0, 0.25, _INF),
    "softsign": (1.0, 2.0, 1.0),
    "silu": (1.1, 0.5 + 1e-12, _INF),
    "gelu": (1.13, 0.82, _INF),
    "mish": (1.0885, 0.7, _INF),
    "sin": (1.0, 1.0, 1.0),
    "cos": (1.0, 1.0, 1.0),
    "atan": (1.0, 0.65, math.pi / 2 + 1e-12),
    "erf": (1.12838, 0.97, 1.0),
    "tanhshrink": (1.0, 4 / (3 * math.sqrt(3)) + 1e-12, _INF),
}
"""Largest slope, largest second derivative and largest value of functions that are smooth everywhere, rounded up."""

KINKED: dict[str, tuple[float, float, tuple[float, ...], float]] = {
    "relu": (1.0, 0.0, (0.0,), _INF),
    "relu6": (1.0, 0.0, (0.0, 6.0), _INF),
    "abs": (1.0, 0.0, (0.0,), _INF),
    "hardsigmoid": (0.16667, 0.0, (-3.0, 3.0), 1.0),  # torch's derivative is 1 / 6 in float32
    "hardswish": (1.5, 1 / 3 + 1e-12, (-3.0, 3.0), _INF),
    "selu": (1.7581, 1.7581, (0.0,), _INF),
}
"""Slope, second derivative between the kinks, where the kinks are, largest value."""


def _all(name: str) -> list[Any]:
    """The functions of torch that go by a name."""
    homes = (torch, Tensor, F, torch.special, torch._C._nn)  # pyright: ignore[reportAttributeAccessIssue]
    found = [vars(home).get(n) for home in homes for n in (name, f"{name}_")]
    found += [getattr(Tensor, n, None) for n in (name, f"{name}_")]
    return [f for f in found if callable(f)]


def _smooth(slope: float, bend: float, cap: float) -> Callable[..., Bound]:
    return lambda y, x, *args, **kwargs: x.bound.mapped(slope, bend, cap)


for _name, _numbers in SMOOTH.items():
    rule(*_all(_name))(_smooth(*_numbers))


def kinked(x: Traced, slope: float, bend: float, kinks: tuple[float, ...], cap: float = _INF) -> Bound:
    """Of a function that is smooth between its kinks: the Jacobian jumps where an entry may cross one."""
    gaps = [x.by_row(((x.low <= k) & (x.high >= k)).double()) for k in kinks]
    crossed = torch.stack(gaps).amax(0) > 0
    return x.bound.mapped(slope, torch.where(crossed, torch.inf, bend), cap)


def _kinked(slope: float, bend: float, kinks: tuple[float, ...], cap: float) -> Callable[..., Bound]:
    return lambda y, x, *args, **kwargs: kinked(x, slope, bend, kinks, cap)


for _name, _pieces in KINKED.items():
    rule(*_all(_name))(_kinked(*_pieces))


@rule(*_all("softplus"))
def _(y: Tensor, x: Traced, beta: float = 1.0, threshold: float = 20.0) -> Bound:
    if threshold < 15 or not beta > 0:
        raise Refused("softplus jumps at a small threshold, and beta must be > 0")
    return x.bound.mapped(1.0, 0.25 * beta + 1e-8)


@rule(*_all("leaky_relu"))
def _(y: Tensor, x: Traced, negative_slope: float = 0.01, inplace: bool = False) -> Bound:
    return kinked(x, max(1.0, abs(negative_slope)), 0.0, (0.0,))


@rule(*_all("softshrink"))
def _(y: Tensor, x: Traced, lambd: float = 0.5) -> Bound:
    return kinked(x, 1.0, 0.0, (-lambd, lambd))


@rule(*_all("elu"), *_all("celu"))
def _(y: Tensor, x: Traced, alpha: float = 1.0, *args: Any, **kwargs: Any) -> Bound:
    if not alpha > 0:
        raise Refused("elu and celu have a bound for alpha > 0")
    slope, bend = max(1.0, alpha) * (1 + 1e-6), max(alpha, 1 / alpha) * (1 + 1e-6)  # torch rounds alpha to float32
    return x.bound.mapped(slope, bend) if alpha == 1 else kinked(x, slope, bend, (0.0,))


@rule(*_all("hardtanh"), *_all("clamp"), *_all("clip"))
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    given = [a for a in (*args, *kwargs.values()) if isinstance(a, int | float) and not isinstance(a, bool)]
    if len(given) != len([a for a in (*args, *kwargs.values()) if a is not None and not isinstance(a, bool)]):
        raise Refused("clamp with tensors as limits has no bound here")
    return kinked(x, 1.0, 0.0, tuple(given) or (-1.0, 1.0))


@rule(*_all("clamp_min"), *_all("clamp_max"))
def _(y: Tensor, x: Traced, limit: float) -> Bound:
    return kinked(x, 1.0, 0.0, (float(limit),))


@rule(*_all("prelu"))
def _(y: Tensor, x: Traced, weight: Tensor) -> Bound:
    return kinked(x, max(1.0, float(plain(weight).detach().abs().max())), 0.0, (0.0,))


def monotone(x: Traced, slope: Callable[[Tensor], Tensor], bend: Callable[[Tensor], Tensor], positive: bool) -> Bound:
    """Of a function whose |s'| and |s''| are largest at an end of the range; positive: defined for x > 0 alone."""
    low, high = x.low, x.high
    sound = low > 0 if positive else torch.ones_like(low, dtype=torch.bool)
    _somewhere(x, sound, "a logarithm, root or power may meet 0")
    inside = torch.where(sound, low, 1.0)
    largest = lambda s: x.by_row(torch.where(sound, torch.maximum(s(inside).abs(), s(high).abs()), torch.inf))  # noqa: E731
    return x.bound.mapped(largest(slope) * (1 + 1e-12), largest(bend) * (1 + 1e-12))


@rule(*_all("exp"))
def _(y: Tensor, x: Traced) -> Bound:
    return replace(monotone(x, torch.exp, torch.exp, positive=False), least=x.low.exp() * (1 - 1e-12))


@rule(*_all("log"))
def _(y: Tensor, x: Traced) -> Bound:
    return monotone(x, lambda v: 1 / v, lambda v: v**-2, positive=True)


@rule(*_all("sqrt"))
def _(y: Tensor, x: Traced) -> Bound:
    return monotone(x, lambda v: 0.5 * v**-0.5, lambda v: 0.25 * v**-1.5, positive=True)


@rule(*_all("rsqrt"))
def _(y: Tensor, x: Traced) -> Bound:
    return monotone(x, lambda v: 0.5 * v**-1.5, lambda v: 0.75 * v**-2.5, positive=True)


def _somewhere(x: Traced, sound: Tensor, what: str) -> None:
    """Raise `Refused` unless some row is sound in all its entries."""
    if not bool((x.by_row((~sound).double()) == 0).any()):
        raise Refused(f"{what}: it has a bound only near a point away from 0, none on the whole space")


def inverse(x: Traced) -> Bound:
    """Of 1 / x, where x stays away from 0."""
    low, high = x.low, x.high
    sound = (low > 0) | (high < 0)
    _somewhere(x, sound, "a quotient may divide by 0")
    least = torch.where(sound, torch.minimum(low.abs(), high.abs()), 0.0)
    return x.bound.mapped(x.by_row(least**-2), x.by_row(2 * least**-3), x.by_row(1 / least))


@rule(*_all("reciprocal"))
def _(y: Tensor, x: Traced) -> Bound:
    return inverse(x)


@rule(*_all("square"))
def _(y: Tensor, x: Traced) -> Bound:
    return x.bound.mapped(2 * x.peak, 2.0)


@rule(torch.pow, Tensor.pow, Tensor.__pow__)
def _(y: Tensor, x: Traced, exponent: float) -> Bound:
    if not isinstance(exponent, int | float):
        raise Refused("a power with a tensor as exponent has no bound here")
    n = float(exponent)
    if n == int(n) and n >= 1:
        peak = x.peak
        return x.bound.mapped(n * peak ** (n - 1), n * (n - 1) * (peak ** (n - 2) if n >= 2 else 0.0))
    return monotone(x, lambda v: n * v ** (n - 1), lambda v: n * (n - 1) * v ** (n - 2), positive=True)


_DROPOUT = (torch.dropout, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)


@guard(*_DROPOUT)
def _(x: Any, p: float = 0.5, training: bool = True, *args: Any, **kwargs: Any) -> None:
    if training and p > 0:
        raise Refused("Dropout is in training, where the operator is random; call .eval() on it first")


@rule(*_DROPOUT)
def _(y: Tensor, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False) -> Bound:
    return x.bound


@rule(torch.neg, Tensor.neg, Tensor.__neg__, torch.negative, Tensor.negative)
def _(y: Tensor, x: Traced) -> Bound:
    return x.bound.kept(table=x.bound.table, mixing=x.bound.mixing)


def fitted(x: Any, y: Tensor) -> Bound | None:
    """The bound of an argument, repeated to the shape of the result; None for constants."""
    b = bound_of(x)
    if b is None or x.shape == y.shape:
        return b
    times_over = y.numel() / max(1, x.numel())
    wide = y.shape[-1] / max(1, x.shape[-1]) if x.ndim else math.inf
    if x.ndim != y.ndim or (x.ndim and len(x) != len(y)):
        b = b.collapsed()
    root = math.sqrt(times_over)
    return b.linear(root, math.sqrt(wide), 1.0, 1.0).kept(cap=b.cap)


def scaled(x: Traced, c: Any, y: Tensor) -> Bound:
    """Of c x for a constant c, number or tensor."""
    b = fitted(x, y)
    assert b is not None
    if not isinstance(c, Tensor):
        size: Tensor | float = abs(float(c))
        return b.linear(size, size, size, size, None if b.table is None else b.table * size).kept(
            cap=times(b.cap, size), table=None if b.table is None else b.table * size
        )
    whole = plain(c).double().abs().expand(y.shape)
    size = Traced.make(y, b).by_row(whole)
    table = None
    if b.table is not None and y.ndim == 2:
        table = b.table * whole.amax(0)[:, None]
    return b.linear(size, size, size, size).kept(cap=times(b.cap, size), table=table)


_ADD = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__)
_SUB = (
    torch.sub,
    Tensor.sub,
    Tensor.__sub__,
    Tensor.__rsub__,
    torch.rsub,
    Tensor.sub_,
    Tensor.__isub__,
    torch.subtract,
)


@rule(*_ADD, *_SUB)
def _(y: Tensor, a: Any, b: Any, *, alpha: float = 1.0, out: None = None) -> Bound:
    if alpha != 1:
        raise Refused("a sum with alpha= has no bound here; write a + alpha * b")
    pair = [fitted(a, y), fitted(b, y)]
    if pair[0] is not None and pair[1] is not None:
        return sums([pair[0], pair[1]])
    moved, other = (pair[0], b) if pair[0] is not None else (pair[1], a)
    assert moved is not None
    if isinstance(other, int | float) and other > 0 and moved.least is not None:
        return replace(moved.uncapped(), least=moved.least)
    return moved.uncapped()


@rule(torch.lerp, Tensor.lerp)
def _(y: Tensor, a: Any, b: Any, weight: Any) -> Any:
    """a + w (b - a) = (1 - w) a + w b."""
    return (1 - weight) * a + weight * b


@rule(torch.where, Tensor.where)
def _(y: Tensor, condition: Any, a: Any = None, b: Any = None) -> Bound:
    """Tensor.where(x, condition, other) has another order of arguments."""
    if a is not None and isinstance(a, Tensor) and a.dtype == torch.bool:
        condition, a = a, condition
    if bound_of(condition) is not None:
        raise Refused("the operator switches where its state crosses a threshold: no bound is known for torch.where")
    given = [f for f in (fitted(a, y), fitted(b, y)) if f is not None]
    if len(given) == 1:
        return given[0].uncapped()
    both = sums(given)
    first, second = given
    pair = torch.stack([first.collapsed().two.amax(0, keepdim=True), second.collapsed().two.amax(0, keepdim=True)])
    return both.kept(two=torch.linalg.vector_norm(pair, dim=0).expand(both.rows))


@rule(torch.maximum, Tensor.maximum, torch.minimum, Tensor.minimum)
def _(y: Tensor, a: Any, b: Any) -> Bound:
    """|max(a, b) - max(a', b')| <= |a - a'| + |b - b'|; the derivative jumps where the two meet."""
    found = sums([f for f in (fitted(a, y), fitted(b, y)) if f is not None])
    return found.uncapped().kept(bend=torch.full_like(found.bend, torch.inf))


@rule(torch.masked_fill, Tensor.masked_fill)
def _(y: Tensor, x: Traced, mask: Tensor, value: Any) -> Bound:
    if bound_of(mask) is not None or bound_of(value) is not None or not isinstance(x, Traced):
        raise Refused("a mask that depends on the state has no bound")
    found = fitted(x, y)
    assert found is not None
    return found.uncapped()


def _same(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    if y.dtype not in (torch.float32, torch.float64) or plain(x).dtype not in (torch.float32, torch.float64):
        raise Refused(f"the operator rounds its state to {y.dtype} on the way")
    return x.bound


rule(
    Tensor.to, Tensor.type_as, Tensor.float, Tensor.double, Tensor.contiguous, Tensor.clone, torch.clone,
    Tensor.type, torch.positive, Tensor.__pos__, Tensor.requires_grad_, Tensor.cpu,
    torch.nan_to_num, Tensor.nan_to_num, Tensor.resolve_conj, Tensor.resolve_neg,
)(_same)  # fmt: skip


@rule(Tensor.detach, torch.detach, Tensor.detach_)
def _(y: Tensor, x: Traced) -> Bound:
    """The same values, of which autograd knows nothing: the Jacobian that it gives is not the operator's."""
    return x.bound.kept(bend=torch.full_like(x.bound.bend, torch.inf), table=x.bound.table)
