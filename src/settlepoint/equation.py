"""An `Equation` is the question: which x has x = lam*T(x) + f?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from settlepoint.spaces import Layout, Rows, Space, State

Operator = Callable[..., State]

_ONE = 1.0


@dataclass(frozen=True)
class Equation:
    """x = P(x) with P(x) = lam*T(x) + f, one equation a row (Operator Learning Meets Numerical Analysis, Eq. 1).

    operator: T(x, *context), from a state to a state of the same shape and dtype. lam: a number, a 0-d tensor or one
    value a row. f: anything that broadcasts to x. context: tensors with one leading entry a row, handed to T and
    gathered with the rows. scale: (R,) step sizes h for learned and Runge-Kutta solvers. select(eq, rows): the equation
    on those rows; `Rows` has one, `Segments` needs one to be compacted. layout: bound by `at`, not given by users.
    triangular: n when every row of x is a chain of n entries and entry k of T(x) depends on those before k alone. Then
    n Picard sweeps reach the fixed point from anywhere, contraction or not, so a search gives no row up before them.

    An equation is made anew for every solve and owns no parameters.
    """

    operator: Operator
    f: State | None = None
    lam: float | Tensor = _ONE
    space: Space = field(default_factory=Rows)
    context: tuple = ()
    select: "Callable[[Equation, Tensor], Equation] | None" = None
    scale: Tensor | None = None
    layout: Layout | None = None
    triangular: int = 0

    def __post_init__(self):
        if not callable(self.operator):
            raise TypeError(f"operator must be callable, got {type(self.operator).__name__}")
        if not isinstance(self.lam, int | float | Tensor):
            raise TypeError(f"lam must be a number or a tensor, got {type(self.lam).__name__}")
        if not isinstance(self.context, tuple):
            raise TypeError(f"context must be a tuple, got {type(self.context).__name__}")
        if isinstance(self.triangular, bool) or not isinstance(self.triangular, int) or self.triangular < 0:
            raise ValueError(f"triangular must be a number of entries >= 0, got {self.triangular!r}")

    @classmethod
    def from_root(
        cls,
        F: Operator,
        *,
        space: Space | None = None,
        context: tuple = (),
        select: "Callable[[Equation, Tensor], Equation] | None" = None,
        scale: Tensor | None = None,
    ) -> "Equation":
        """F(x) = 0 written as x = x - F(x)."""
        if not callable(F):
            raise TypeError(f"F must be callable, got {type(F).__name__}")
        return cls(_RootStep(F), space=space or Rows(), context=context, select=select, scale=scale)

    def at(self, x0: State) -> "Equation":
        """This equation bound to states that look like x0; raises when f, lam, scale or context do not fit them."""
        layout = self.space.layout(x0)
        f = None if self.f is None else _fitted(self.f, x0, layout)
        bound = replace(self, layout=layout, f=f, lam=_fitted_lam(self.lam, layout))
        if isinstance(self.space, Rows):
            for name, value in (("context", self.context), ("scale", (self.scale,))):
                _check_leading(name, value, layout)
        return bound

    def image(self, x: State) -> State:
        """P(x) = lam*T(x) + f."""
        y = self.operator(x, *self.context)
        if self.f is None and self.lam is _ONE:
            return y
        if isinstance(y, tuple):
            f = self.f if self.f is not None else (None,) * len(y)
            return tuple(self._affine(a, b) for a, b in zip(y, f, strict=True))
        return self._affine(y, self.f)  # type: ignore[arg-type]

    def _affine(self, y: Tensor, f: Tensor | None) -> Tensor:
        lam = self.lam
        if isinstance(lam, Tensor) and lam.ndim:
            lam = self.space.spread(lam)
            lam = lam.reshape(lam.shape[:1] + (1,) * (y.ndim - 1))
        if isinstance(lam, Tensor) or lam != 1:
            y = lam * y
        return y if f is None else y + f

    def residual(self, x: State) -> State:
        """P(x) - x, always undamped."""
        y = self.image(x)
        if isinstance(y, tuple):
            return tuple(a - b for a, b in zip(y, x, strict=True))
        return y - x  # type: ignore[operator]

    def flat(self, z: Tensor) -> Tensor:  # (R, W) -> (R, W)
        """P on the flat view."""
        if self.layout is None:
            return self.image(z)  # type: ignore[return-value]
        return self.layout.flatten(self.image(self.layout.restore(z)), "the result of operator")

    def norm(self, z: Tensor) -> Tensor:  # (R, W) -> (R,)
        """Norm of the equation's space on the flat view."""
        return torch.linalg.vector_norm(z, dim=1) if self.layout is None else self.layout.norm(z)

    def measure(self, z: Tensor) -> Tensor:  # (R, W) -> (R,) float64
        """The same norm in float64, which neither overflows nor vanishes where the dtype's own squares do."""
        return (
            torch.linalg.vector_norm(z, dim=1, dtype=torch.float64) if self.layout is None else self.layout.measure(z)
        )

    def gram(self, u: Tensor, v: Tensor) -> Tensor:  # (R, m, W), (R, k, W) -> (R, m, k)
        """Inner products of the equation's space on the flat view."""
        return u @ v.mT if self.layout is None else self.layout.gram(u, v)

    def dot(self, u: Tensor, v: Tensor) -> Tensor:  # (R, W), (R, W) -> (R,)
        """Inner product of every row of u with the same row of v."""
        return self.gram(u[:, None], v[:, None])[:, 0, 0]

    def rows(self, index: Tensor) -> "Equation":
        """The bound equation on the rows in index alone."""
        assert self.layout is not None
        if self.select is not None:
            chosen = self.select(self, index)
            relaid = isinstance(chosen.space, Rows)
            layout = self.layout.with_rows(len(index)) if relaid else chosen.space.relaid(self.layout)
            return replace(chosen, layout=layout)
        return select_rows(self, index)

    @property
    def selectable(self) -> bool:
        """True when the equation can be restricted to some of its rows."""
        return self.select is not None or isinstance(self.space, Rows)


def select_rows(eq: Equation, index: Tensor) -> Equation:
    """The `select` of `Rows`: gathers f, lam, scale and context along their leading dimension."""
    assert eq.layout is not None
    take = lambda v: v.index_select(0, index) if isinstance(v, Tensor) and v.ndim else v  # noqa: E731
    f = tuple(map(take, eq.f)) if isinstance(eq.f, tuple) else take(eq.f)
    context = tuple(map(take, eq.context))
    layout = eq.layout.with_rows(len(index))
    return replace(eq, f=f, lam=take(eq.lam), scale=take(eq.scale), context=context, layout=layout)


@dataclass(frozen=True)
class _RootStep:
    F: Operator

    def __call__(self, x: State, *context: Tensor) -> State:
        y = self.F(x, *context)
        if isinstance(y, tuple):
            return tuple(a - b for a, b in zip(x, y, strict=True))
        return x - y  # type: ignore[operator]


def _fitted(f: State, x0: State, layout: Layout) -> State:
    if isinstance(f, tuple) != layout.several:
        raise TypeError("f must be a tuple of tensors exactly when x0 is one")
    if isinstance(f, tuple) and isinstance(x0, tuple):
        if len(f) != len(x0):
            raise ValueError(f"f must hold {len(x0)} tensors as x0 does, got {len(f)}")
        return tuple(_fitted_one(a, b) for a, b in zip(f, x0, strict=True))
    return _fitted_one(f, x0)  # type: ignore[arg-type]


def _fitted_one(f: Tensor, x0: Tensor) -> Tensor:
    if not isinstance(f, Tensor):
        raise TypeError(f"f must be a tensor, got {type(f).__name__}")
    if f.dtype != x0.dtype:
        raise ValueError(f"f must have the dtype of x, {x0.dtype}, got {f.dtype}")
    try:
        return f.expand(x0.shape)
    except RuntimeError:
        raise ValueError(f"f must broadcast to the shape of x, {tuple(x0.shape)}, got {tuple(f.shape)}") from None


def _fitted_lam(lam: float | Tensor, layout: Layout) -> float | Tensor:
    if isinstance(lam, Tensor) and lam.ndim and tuple(lam.shape) not in ((1,), (layout.rows,)):
        raise ValueError(
            f"lam must be a number or one value for each of the {layout.rows} rows, got {tuple(lam.shape)}"
        )
    if isinstance(lam, Tensor) and lam.numel() > 1 and lam.dtype not in (layout.dtype, layout.dtype.to_real()):
        raise ValueError(f"lam must have the dtype of x, {layout.dtype}, got {lam.dtype}")
    if isinstance(lam, Tensor):
        return lam.reshape(()) if lam.numel() == 1 else lam
    return _ONE if lam == 1 else float(lam)


def _check_leading(name: str, values: tuple, layout: Layout) -> None:
    for v in values:
        if isinstance(v, Tensor) and v.ndim and layout.batched and v.shape[0] != layout.rows:
            raise ValueError(
                f"{name} must have one leading entry for each of the {layout.rows} rows, got {tuple(v.shape)}; "
                "what all rows share belongs into the operator itself"
            )
