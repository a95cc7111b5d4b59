"""`Traced`: a tensor that carries its `Bound` through an operator, whatever code the operator is made of.

`traced(eq, x, radius)` calls the operator once on such a tensor. Every torch function that meets one looks up its rule

    @rule(torch.tanh, torch.Tensor.tanh)
    def _(y, x):                 # y: the plain result; x: the argument, Traced where it depends on the state
        return x.bound.mapped(1.0, 0.77, cap=1.0)

and a function without a rule is a refusal that names it. Values are those at the point, so that code may branch on
shapes, but not on entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from settlepoint.certify.bound import Bound, joined, times
from settlepoint.certify.certificate import Refused
from settlepoint.equation import Equation
from settlepoint.spaces import Rows, State

Rule = Callable[..., "Bound | tuple[Bound, ...] | Traced"]
RULES: dict[Any, Rule] = {}
"""torch function to the rule that bounds its result; grown by `rule`."""

GUARDS: dict[Any, Callable[..., None]] = {}
"""torch function to a check of its arguments that runs before it does; grown by `guard`."""

_SLACK = 1e-9  # by which ranges are widened, for the rounding of the value at the point


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Register the bound of functions: rule(y, *args, **kwargs) -> Bound of the plain result y.

    The arguments are those of the call, `Traced` where they depend on the state. For your own operations, write them as
    functions with torch.overrides.handle_torch_function, and register those.
    """

    def register(bound: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, bound))
        return bound

    return register


def guard(*functions: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a check that runs before the functions do, with their arguments: what must not even be tried."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        GUARDS.update(dict.fromkeys(functions, check))
        return check

    return register


class Traced(Tensor):
    """A value at the point, and how it depends on the state."""

    bound: Bound
    version: int

    @staticmethod
    def make(value: Tensor, bound: Bound) -> Traced:
        found = value.detach().as_subclass(Traced)
        if bound.rows > 1 and (value.ndim == 0 or len(value) != bound.rows):
            bound = bound.collapsed()
        found.bound, found.version = bound, value._version
        return found

    @property
    def value(self) -> Tensor:
        """The plain tensor. Raises `Refused` when it was changed in place since."""
        with untraced():
            if self._version != self.version:
                raise Refused("the operator changes a tensor in place and reads an older name of it")
            return self.as_subclass(Tensor)

    def by_row(self, values: Tensor) -> Tensor:  # like y -> (R,)
        """The largest of values, which are shaped like y, in every row of the bound."""
        if not values.numel():
            return values.new_zeros(self.bound.rows, dtype=torch.float64)
        flat = values.double().reshape(self.bound.rows, -1) if self.bound.rows > 1 else values.double().reshape(1, -1)
        return flat.amax(1)

    @property
    def reach(self) -> Tensor:  # (R,)
        """How far an entry can move in the ball."""
        return times(self.bound.entry, self.bound.radius) * (1 + _SLACK)

    @property
    def low(self) -> Tensor:
        """The smallest every entry can be in the ball."""
        return self._ends()[0]

    @property
    def high(self) -> Tensor:
        """The largest every entry can be in the ball."""
        return self._ends()[1]

    @property
    def peak(self) -> Tensor:  # (R,)
        """The largest |entry| in the ball."""
        low, high = self._ends()
        return self.by_row(torch.maximum(low.abs(), high.abs()))

    @property
    def extent(self) -> Tensor:  # (R,)
        """The largest 2-norm of a row in the ball."""
        value, bound = self.value.double(), self.bound
        flat = value.reshape(bound.rows, -1) if bound.rows > 1 else value.reshape(1, -1)
        moved = torch.linalg.vector_norm(flat, dim=1) * (1 + _SLACK) + times(bound.two, bound.radius)
        return torch.minimum(moved, times(bound.cap, flat.shape[1] ** 0.5)).clamp(max=bound.total)

    def _ends(self) -> tuple[Tensor, Tensor]:
        value, bound = self.value.double(), self.bound
        reach = spread(self.reach, value) + _SLACK * value.abs()
        cap = spread(bound.cap, value)
        return torch.maximum(value - reach, -cap), torch.minimum(value + reach, cap)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Traced{tuple(self.shape)}"

    def __bool__(self) -> bool:
        raise _branches()

    def __float__(self) -> float:
        raise _branches()

    def __int__(self) -> int:
        raise _branches()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _asks(func):
            with untraced():
                return func(*args, **kwargs)
        if func in _READS:
            raise _branches()
        if func in GUARDS:
            GUARDS[func](*args, **kwargs)
        writes = _writes(func)
        if writes and not isinstance(args[0], Traced):
            raise Refused(f"{_called(func)} writes into a tensor made apart from the state; write y = f(x) instead")
        moves = any(not a.bound.constant for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Traced))
        bound = RULES.get(func) if moves else still
        if bound is None:
            raise Refused(
                f"no bound is known for {_called(func)}; register one with certify.rule, or give the bound by hand"
            )
        plain_args, plain_kwargs = pytree.tree_map(plain, (args, kwargs))
        if writes:  # computed on a copy first, since the rule looks at the arguments as they were
            plain_args = (plain_args[0].clone(), *plain_args[1:])
        with untraced():
            y = func(*plain_args, **plain_kwargs)
        found = bound(y, *args, **kwargs)
        return args[0]._written(y, found) if writes else _carried(y, found)

    def _written(self, y: Tensor, bound: Bound) -> Traced:
        """This tensor with y written into it; other views of it are out of date from now on."""
        with untraced():
            self.as_subclass(Tensor).copy_(y)
            self.bound, self.version = Traced.make(y, bound).bound, self._version
        return self


def traced(eq: Equation, x: State, radius: Tensor | float = torch.inf) -> Traced:
    """P(x) with its bound, for all states within radius of x in the 2-norm of a row; inf: for all states.

    eq: an Equation. x: the point. radius: one value, or one a row (R,). Raises `Refused` where some step has no bound.
    """
    parts = x if isinstance(x, tuple) else (x,)
    if any(p.is_complex() for p in parts):
        raise Refused("bounds are known for real states")
    rows = len(parts[0]) if parts[0].ndim > 1 and isinstance(eq.space, Rows) else 1
    ball = torch.as_tensor(radius, dtype=torch.float64, device=parts[0].device).expand(rows)
    plain_rows = len(parts) == 1 and parts[0].ndim == 2 and isinstance(eq.space, Rows)
    width = parts[0].shape[1] if plain_rows and parts[0].shape[1] <= _WIDEST else None
    with torch.no_grad():
        given = tuple(Traced.make(p, Bound.of_state(ball, width)) for p in parts)
        image = _followed(eq, given if isinstance(x, tuple) else given[0])
    parts = image if isinstance(image, tuple) else (image,)
    found = [p for p in parts if isinstance(p, Traced)]
    if len(found) < len(parts):
        raise Refused("the operator's result does not depend on the state through torch functions; is it NumPy inside?")
    whole = found[0] if len(found) == 1 else _joined(found)
    if any(bool(torch.isnan(n).any()) for n in (whole.bound.two, whole.bound.bend)):
        raise Refused(
            "the bound depends on the values of other arguments, or on weights that are not finite; give example="
        )
    return whole


_WIDEST = 1000  # states for which a table of all pairs of entries is kept


def _followed(eq: Equation, given: State) -> State:
    try:
        return eq.image(given)
    except Refused:
        raise
    except Exception as error:  # an operator that takes plain tensors alone, as compiled ones do
        raise Refused(
            f"the operator cannot be followed: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


untraced = torch._C.DisableTorchFunctionSubclass
"""with untraced(): plain torch on plain values."""

VIEW = {name: type.__getattribute__(Tensor, name).__get__ for name in ("T", "mT", "data")}
"""Views that are attributes, as torch functions."""

_VIEWS = ("T", "mT", "H", "mH", "data")
_ASKS = {
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.is_floating_point,
    Tensor.is_complex, Tensor.__len__, Tensor.get_device, Tensor.element_size, Tensor.ndimension, Tensor.is_signed,
    Tensor.data_ptr, Tensor.storage_offset, torch.is_floating_point, torch.is_complex, torch.numel, torch.is_tensor,
    Tensor.__hash__, Tensor.as_subclass, Tensor.__repr__,
}  # fmt: skip
_READS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.numpy, Tensor.__array__,
          torch.equal, torch.allclose, Tensor.equal, Tensor.allclose}  # fmt: skip


def spread(a: Tensor, like: Tensor) -> Tensor:
    """a (R,) or (1,) shaped to meet like (R, ...)."""
    return a.reshape(-1, *(1,) * (like.ndim - 1)) if like.ndim else a.amax()


def bound_of(x: Any) -> Bound | None:
    """The bound of an argument that depends on the state, else None."""
    return x.bound if isinstance(x, Traced) and not x.bound.constant else None


def plain(x: Any) -> Any:
    """The value of an argument."""
    return x.value if isinstance(x, Traced) else x


def _branches() -> Refused:
    return Refused("the operator branches on values that depend on its state, or takes them out of torch")


def _asks(func: Any) -> bool:
    """Functions whose answer the state's entries do not change: shapes, dtypes, devices."""
    if getattr(func, "__name__", "") == "__get__":
        return getattr(func.__self__, "__name__", "") not in _VIEWS
    return func in _ASKS


def _writes(func: Any) -> bool:
    """add_, relu_, __setitem__, __iadd__."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in ("__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__")
    return name.endswith("_")


def _called(func: Any) -> str:
    return getattr(func, "__qualname__", None) or getattr(func, "__name__", str(func))


def still(y: Any, *args: Any, **kwargs: Any) -> Any:
    """What does not depend on the state: whose arguments do not, or which asks for shapes alone."""
    seen = next(a for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Traced)).bound
    zero = torch.zeros_like(seen.two[:1])
    still = Bound(zero, zero, zero, zero, zero, zero + torch.inf, seen.radius.amax(0, keepdim=True))
    return pytree.tree_map(lambda _: still, y) if isinstance(y, tuple | list) else still


def _carried(y: Any, bound: Any) -> Any:
    """The plain results with their bounds; integers stay plain where they do not move."""
    if isinstance(bound, Traced):
        return bound
    if isinstance(y, tuple | list):
        many = bound if isinstance(bound, tuple | list) else (bound,) * len(y)
        return tuple(_carried(a, b) for a, b in zip(y, many, strict=True))
    if not isinstance(y, Tensor) or (bound.constant and not y.is_floating_point()):
        return y
    return Traced.make(y, bound)


def _joined(parts: list[Traced]) -> Traced:
    """Several tensors of a state as one row each."""
    rows = len(parts[0]) if parts[0].ndim > 1 else 1
    values = torch.cat([p.value.reshape(rows, -1) for p in parts], 1)
    return Traced.make(values, joined([p.bound for p in parts], along_last=False).without_node())
