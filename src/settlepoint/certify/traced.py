"""`Traced`: a tensor that carries its `Bound` through an operator, whatever code the operator is made of.

`following.traced` calls the operator once on such a tensor. Every torch function that meets one looks up its rule

    @rule(torch.tanh, torch.Tensor.tanh)
    def _(y, x):                 # y: the plain result; x: the argument, Traced where it depends on the state
        return x.bound.mapped(1.0, 0.77, cap=1.0)

and a function without a rule is a refusal that names it. Values are those at the point, so that code may branch on
shapes, but not on entries. Rules take *args and **kwargs, since they stand for torch's own signatures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from settlepoint.certify.bound import Bound, times
from settlepoint.certify.certificate import Refused

Rule = Callable[..., "Bound | tuple[Bound, ...] | Traced"]
RULES: dict[Any, Rule] = {}
"""torch function to the rule that bounds its result; grown by `rule`."""

WITNESS: ContextVar[Witness | None] = ContextVar("witness", default=None)
"""Who looks on while an operator is followed; nobody while a rule is at work."""

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


class Leaks(TorchDispatchMode):
    """Refuses what touches the state's memory outside of rules: vmap, compiled code, plain views of a traced tensor."""

    def __init__(self):
        super().__init__()
        self.kept: dict[int, Tensor] = {}  # by address, and kept alive, so that no address is used again

    def keep(self, value: Tensor) -> None:
        """Memory that depends on the state from now on."""
        if value.layout == torch.strided and value.numel():
            self.kept[value.untyped_storage().data_ptr()] = value

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not _AT_WORK.get():
            for t in pytree.tree_leaves((args, kwargs)):
                if isinstance(t, Tensor) and t.layout == torch.strided and t.numel() and self._knows(t):
                    raise Refused(_LEAK)
        return func(*args, **(kwargs or {}))

    def _knows(self, t: Tensor) -> bool:
        try:
            with untraced():
                return t.untyped_storage().data_ptr() in self.kept
        except (NotImplementedError, RuntimeError):  # tensors without memory of their own
            return False


LEAKS: ContextVar[Leaks | None] = ContextVar("leaks", default=None)
_AT_WORK: ContextVar[bool] = ContextVar("at_work", default=False)
_LEAK = (
    "something that depends on the state reaches the result past torch's functions, or is random: NumPy, vmap, "
    "compiled code, or a new tensor made of the state's numbers"
)


class Witness:
    """Holds the constants that meet the state, in order, so that a second run elsewhere can be held against them.

    What is a constant in a rule but differs when the state is moved depends on it behind torch's back: through NumPy,
    vmap, compiled code, a new tensor made from old numbers.
    """

    def __init__(self):
        self.constants: list[Any] = []
        self.still: list[bool] = []  # whether the result of a call was one more constant
        self.replay = False
        self.met = self.calls = 0

    def note(self, given: Any) -> None:
        """The constants among the arguments of one call."""
        for a in pytree.tree_leaves(given):
            if isinstance(a, Traced) and not a.bound.constant:
                continue
            if isinstance(a, Traced):
                self._meet(a.value.clone())  # one that the operator made, and may write into
            elif isinstance(a, Tensor | int | float):
                self._meet(a)

    def rule_of(self, func: Any) -> Rule | None:
        """In the second run what a call was in the first, a constant or not; the bounds no longer matter."""
        if not self.replay:
            return RULES.get(func)
        self.calls += 1
        return still if self.calls <= len(self.still) and self.still[self.calls - 1] else _somehow

    def _meet(self, value: Tensor | float) -> None:
        if not self.replay:
            self.constants.append(value)
            return
        self.met += 1
        if self.met > len(self.constants) or not _same(self.constants[self.met - 1], value):
            raise Refused(_LEAK)


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
        leaks = LEAKS.get()
        if leaks is not None and not bound.constant:
            leaks.keep(value)
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
        far = times(self.bound.entry, self.bound.radius) * (1 + _SLACK)
        return torch.full_like(far, torch.inf) if self.bound.free else far

    @property
    def sway(self) -> Tensor:  # (R,)
        """How far a row can move in the ball, in the 2-norm."""
        far = times(self.bound.two, self.bound.radius) * (1 + _SLACK)
        return torch.full_like(far, torch.inf) if self.bound.free else far

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
        moved = torch.linalg.vector_norm(flat, dim=1) * (1 + _SLACK) + self.sway
        return torch.minimum(moved, times(bound.cap, flat.shape[1] ** 0.5)).clamp(max=bound.total)

    def _ends(self) -> tuple[Tensor, Tensor]:
        value, bound = self.value.double(), self.bound
        reach = spread(self.reach, value) + _SLACK * value.abs()
        cap = spread(bound.cap, value)
        low = torch.maximum(value - reach, -cap)
        return low if bound.least is None else torch.maximum(low, bound.least), torch.minimum(value + reach, cap)

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
        token = _AT_WORK.set(True)
        try:
            return cls._call(func, args, kwargs or {})
        finally:
            _AT_WORK.reset(token)

    @classmethod
    def _call(cls, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A torch function on arguments of which one is traced at least."""
        if _asks(func):
            with untraced():
                return func(*args, **kwargs)
        if func in _READS:
            raise _branches()
        if func in GUARDS:
            GUARDS[func](*args, **kwargs)
        if kwargs.get("out") is not None:
            raise Refused(f"{_called(func)} writes into out=, a tensor made apart from the state; leave it out")
        func, args, kwargs, writes = _out_of_place(func, args, kwargs)
        if writes and not isinstance(args[0], Traced):
            raise Refused(f"{_called(func)} writes into a tensor made apart from the state; write y = f(x) instead")
        seen = [a.bound for a in pytree.tree_leaves((args, kwargs)) if isinstance(a, Traced)]
        moves, free = any(not b.constant for b in seen), any(b.free for b in seen)
        witness = WITNESS.get()
        if moves and witness is not None:
            witness.note((args, kwargs))
        plain_args, plain_kwargs = pytree.tree_map(plain, (args, kwargs))
        if writes:  # computed on a copy first, since the rule looks at the arguments as they were
            plain_args = (plain_args[0].clone(), *plain_args[1:])
        rule_of = still if not moves else RULES.get(func) if witness is None else witness.rule_of(func)
        if rule_of is None:
            raise Refused(
                f"no bound is known for {_called(func)}; register one with certify.rule, or give the bound by hand"
            )
        with untraced():
            y = func(*plain_args, **plain_kwargs)
        found = _bounded(rule_of, y, args, kwargs, free)
        if moves and witness is not None and not witness.replay:
            witness.still.append(_all_still(found))
        return args[0]._written(y, found) if writes else _carried(y, found)

    def _written(self, y: Tensor, bound: Bound) -> Traced:
        """This tensor with y written into it; other views of it are out of date from now on."""
        with untraced():
            self.as_subclass(Tensor).copy_(y)
            self.bound, self.version = Traced.make(y, bound).bound, self._version
        return self


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


def _out_of_place(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any, bool]:
    """The call without inplace=True, and whether its result is to be written into the first argument."""
    place = _inplace_place(func)
    if place is None:
        return func, args, kwargs, _writes(func)
    inplace = kwargs.get("inplace", args[place] if len(args) > place else False)
    if not inplace:
        return func, args, kwargs, _writes(func)
    if len(args) > place:
        return func, (*args[:place], False, *args[place + 1 :]), kwargs, True
    return func, args, {**kwargs, "inplace": False}, True


@cache
def _inplace_place(func: Any) -> int | None:
    """Which argument inplace is, of Python functions that have it."""
    if not inspect.isfunction(func):
        return None
    names = list(inspect.signature(func, follow_wrapped=False).parameters)
    return names.index("inplace") if "inplace" in names else None


def _bounded(bound: Rule, y: Any, args: Any, kwargs: Any, free: bool) -> Any:
    """The rule at work, without a witness; free where an argument is."""
    # inside a no_grad of the operator itself autograd has another Jacobian than the values
    hidden = WITNESS.get() is not None and not torch.is_grad_enabled()
    token = WITNESS.set(None)
    try:
        with torch.no_grad():
            found = bound(y, *args, **kwargs)
    finally:
        WITNESS.reset(token)
    return pytree.tree_map(lambda b: _marked(b, free, hidden), found) if free or hidden else found


def _all_still(found: Any) -> bool:
    """Whether a result, or all of several, is constant."""
    parts = found if isinstance(found, tuple | list) else (found,)
    return all((p.bound if isinstance(p, Traced) else p).constant for p in parts)


def _marked(found: Any, free: bool, hidden: bool) -> Any:
    b = found.bound if isinstance(found, Traced) else found
    if not isinstance(b, Bound):
        return found
    b = replace(
        b, free=b.free or free, bend=torch.full_like(b.bend, torch.inf) if hidden and not b.constant else b.bend
    )
    if not isinstance(found, Traced):
        return b
    found.bound = b
    return found


def _somehow(y: Any, *args: Any, **kwargs: Any) -> Any:
    """Depends on the state, no matter how: the rule of the second run."""
    none = torch.full((1,), torch.inf, dtype=torch.float64)
    b = Bound(none, none, none, none, none, none, none)
    return tuple(b for _ in y) if isinstance(y, tuple | list) else b


def _same(a: Any, b: Any) -> bool:
    """Whether two constants are one."""
    if a is b:
        return True
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and bool(a == b or (a != a and b != b))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.layout != torch.strided:
        a, b = (t.values() if t.layout != torch.sparse_coo else t.coalesce().values() for t in (a, b))
    return bool(((a == b) | ((a != a) & (b != b))).all()) if a.shape == b.shape else False


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
