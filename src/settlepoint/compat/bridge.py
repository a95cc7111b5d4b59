"""One function seen from NumPy and from torch."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

NO_DERIVATIVE = (
    "functions of NumPy carry no derivative, so nothing can be differentiated through them: train with "
    "LevenbergMarquardt(jacobian='difference'), solve with Anderson or Broyden, or write the function in torch"
)


class Map(ABC):
    """A map of tensors whose values and directional derivatives come from anywhere, NumPy included."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """The image of x, a tensor of its own memory."""

    @abstractmethod
    def slope(self, x: Tensor, v: Tensor) -> Tensor:
        """The derivative at x along v."""

    def __call__(self, x: Tensor) -> Tensor:
        """The image of x, for which torch.func.jvp works."""
        return _Value.apply(x, self)  # type: ignore[return-value]


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, mapping: Map) -> Tensor:
        return mapping.value(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.mapping = inputs
        ctx.save_for_forward(x)

    @staticmethod
    def jvp(ctx, v: Tensor, *_):  # type: ignore[override]
        return _Slope.apply(ctx.saved_tensors[0], v, ctx.mapping)


class _Slope(torch.autograd.Function):
    """A function of its own, because only `forward` is given tensors that NumPy can read."""

    @staticmethod
    def forward(x: Tensor, v: Tensor, mapping: Map) -> Tensor:
        return mapping.slope(x, v)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Nothing to keep."""


class Remembered(Map):
    """A map that knows its last value, since a derivative asks for the value at the same point again."""

    def __init__(self):
        self._last: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def evaluate(self, x: Tensor) -> Tensor:
        """The image of x, worked out."""

    def value(self, x: Tensor) -> Tensor:
        if self._last is None or not torch.equal(x, self._last[0]):
            self.remember(x, self.evaluate(x))
        assert self._last is not None
        return self._last[1].clone()

    def remember(self, x: Tensor, image: Tensor) -> None:
        """Take image as the value at x."""
        self._last = x.clone(), image


def length(v: Tensor) -> Tensor:
    """|v| in float64, whose squares neither overflow nor vanish."""
    v = v.to(torch.complex128 if v.is_complex() else torch.float64)
    unit = v.abs().amax() if v.numel() else v.new_zeros(()).abs()
    unit = torch.where((unit > 0) & torch.isfinite(unit), unit, 1.0)
    return unit * torch.linalg.vector_norm(v / unit)


def array_of(x: Tensor) -> np.ndarray:
    """x as an array of its own memory, so that who writes into it changes nothing here; bfloat16 becomes float32."""
    x = x.detach().cpu()
    return (x.float() if x.dtype is torch.bfloat16 else x).numpy().copy()


def tensor_of(y: Any, dtype: torch.dtype) -> Tensor:
    """y as a tensor of its own memory; any strides and byte order, writable or not."""
    double = np.complex128 if dtype.is_complex else np.float64
    return torch.from_numpy(np.array(y, dtype=double, order="C")).to(dtype)


def tensor_like(name: str, y: Any, x: Tensor) -> Tensor:
    """y as a tensor of its own memory in shape, dtype and device of x; name says whose value it is."""
    y = np.asarray(y)
    if y.dtype.kind not in "biufc":
        raise TypeError(f"{name} must return numbers, got {y.dtype}")
    if np.iscomplexobj(y) and not x.is_complex():
        raise ValueError(f"{name} must return real numbers for real ones, got {y.dtype}")
    if y.size != x.numel():
        raise ValueError(f"{name} must return the shape it is given, {tuple(x.shape)}, got {y.shape}")
    return tensor_of(y, x.dtype).reshape(x.shape).to(x.device)


def torched(f: Callable) -> Callable[..., Tensor]:
    """f(x) or f(x, parameters) of NumPy as a function of torch, for `problems.from_callable`.

    f is given arrays (R, m), and a dict of arrays (R, ...) as second and the time as third argument where it takes
    them; its value goes back to the dtype and the device of x. It has no derivative: who asks for one gets a
    RuntimeError with what works without.

        >>> import numpy as np, torch
        >>> wave = torched(lambda x, p: np.cos(x) + p["shift"])
        >>> wave(torch.zeros(2, 1), {"shift": torch.tensor([[1.0], [2.0]])}).tolist()
        [[2.0], [3.0]]
    """
    if not callable(f):
        raise TypeError(f"f must be callable, got {type(f).__name__}")
    count = _arguments(f)

    def torch_function(x: Tensor, parameters: dict[str, Tensor] | None = None, *more: Tensor) -> Tensor:
        parameters = {} if parameters is None else parameters
        names = tuple(parameters)

        def call(arrays: list[np.ndarray]) -> Any:
            x, values, rest = arrays[0], arrays[1 : 1 + len(names)], arrays[1 + len(names) :]
            return f(*[x, dict(zip(names, values, strict=True)), *rest][:count])

        return _Torched.apply(call, x, *parameters.values(), *more)  # type: ignore[return-value]

    return torch_function


class _Torched(torch.autograd.Function):
    @staticmethod
    def forward(call: Callable[[list[np.ndarray]], Any], x: Tensor, *rest: Tensor) -> Tensor:
        return tensor_like("f", call([array_of(t) for t in (x, *rest)]), x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Nothing to keep: there is no derivative."""

    @staticmethod
    def backward(ctx, *_):  # type: ignore[override]
        raise RuntimeError(NO_DERIVATIVE)

    @staticmethod
    def jvp(ctx, *_):  # type: ignore[override]
        raise RuntimeError(NO_DERIVATIVE)

    @staticmethod
    def vmap(info, in_dims, *_):  # type: ignore[override]
        raise RuntimeError(f"functions of NumPy know no vmap; {NO_DERIVATIVE}")


def _arguments(f: Callable) -> int | None:
    """How many positional arguments f needs; None for as many as come. NumPy's own functions of one array: 1."""
    if isinstance(f, np.ufunc):
        return f.nin
    kinds = inspect.Parameter
    parameters = inspect.signature(f).parameters.values()
    if any(p.kind is kinds.VAR_POSITIONAL for p in parameters):
        return None
    needed = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    return max(1, sum(p.kind in needed and p.default is kinds.empty for p in parameters))
