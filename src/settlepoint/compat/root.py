"""`root`: F(x) = 0 under the signature of scipy.optimize.newton_krylov, by any solver of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import NoConvergence
from torch import Tensor

from settlepoint.compat.bridge import Remembered, array_of, length, tensor_like
from settlepoint.compat.observed import Observed, watched
from settlepoint.equation import Equation
from settlepoint.solvers.newton_krylov import NewtonKrylov
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Tolerance

_WINDOW = 50  # looks without progress after which nothing more is expected


def root(
    F: Callable[[Any], Any],
    x0: Any,
    *,
    solver: Solver | None = None,
    f_tol: float = 6e-6,
    maxiter: int | None = None,
    callback: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """x with max|F(x)| <= f_tol, called like scipy.optimize.newton_krylov.

    x0: array, number or tensor, of any shape; F is given, and x returned, in that shape and kind. solver: None for
    NewtonKrylov, whose derivatives are exact where x0 is a tensor and forward differences (step sqrt(eps) (1 + |x|))
    where F is of NumPy; or any Solver, which then iterates P(x) = x - F(x). maxiter: its steps, 100 (N + 1) by default.
    callback(x, F(x)) after every step, both flat. No gradients are carried.

    Raises scipy.optimize.NoConvergence, with the best x, where the tolerance is not met, and ValueError or TypeError
    for an F that does not fit x0.

        >>> import numpy as np
        >>> from settlepoint.compat.scipy import root
        >>> root(lambda x: np.exp(x) - [2.0, 3.0], [0.0, 0.0]).round(4).tolist()
        [0.6931, 1.0986]
    """
    if not callable(F):
        raise TypeError(f"F must be callable, got {type(F).__name__}")
    if solver is not None and not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as Anderson(), got {solver!r}")
    if not f_tol >= 0 or f_tol == float("inf"):
        raise ValueError(f"f_tol must be a finite number >= 0, got {f_tol}")
    if maxiter is not None and (isinstance(maxiter, bool) or int(maxiter) != maxiter or maxiter < 1):
        raise ValueError(f"maxiter must be an integer >= 1 or None, got {maxiter!r}")
    start, function = _opened(F, x0)
    if not start.numel():
        raise ValueError(f"x0 must hold at least one value, got shape {np.shape(x0)}")
    finish = _finisher(x0)
    tell = None if callback is None else lambda x, y: callback(*(finish(v.reshape(-1)) for v in (x, y)))
    steps = int(maxiter or 100 * (start.numel() + 1))
    with torch.no_grad():
        x, settled = _searched(function, start, solver, float(f_tol), steps, tell)
    if not settled:
        raise NoConvergence(finish(x.reshape(np.shape(x0))))
    return finish(x.reshape(np.shape(x0)))


class Function(Remembered):
    """F and its derivative on rows (1, N); steps counts how often it was called.

    image: (1, N) -> (1, N).
    """

    def __init__(self, image: Callable[[Tensor], Tensor], *, exact: bool):
        super().__init__()
        self.image, self.exact = image, exact

    def evaluate(self, x: Tensor) -> Tensor:
        return self.image(x)

    def slope(self, x: Tensor, v: Tensor) -> Tensor:
        """F'(x) v: exact in torch, else (F(x + t v) - F(x)) / t with t = sqrt(eps) (1 + |x|) / |v|."""
        if self.exact:
            return torch.func.jvp(self.image, (x,), (v,))[1].to(v.dtype)
        size = torch.linalg.vector_norm(v)
        if not bool(torch.isfinite(size) & (size > 0)):
            return v * torch.nan if size else torch.zeros_like(v)
        t = torch.finfo(x.dtype).eps ** 0.5 * (1 + torch.linalg.vector_norm(x)) / size
        return (self.image(x + t * v) - self.value(x)) / t


class _Step(Remembered):
    """P(x) = x - s F(x)."""

    def __init__(self, function: Function, s: Tensor | float):
        super().__init__()
        self.function, self.s = function, s

    def evaluate(self, x: Tensor) -> Tensor:
        return x - self.s * self.function.value(x)

    def slope(self, x: Tensor, v: Tensor) -> Tensor:
        return v - self.s * self.function.slope(x, v)


class _Settled(Exception):
    """The iterate meets the tolerance in the maximum norm, which the driver does not measure."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.x = x


def _searched(
    function: Function, x: Tensor, solver: Solver | None, f_tol: float, steps: int, tell: Callable | None
) -> tuple[Tensor, bool]:
    """The best x (1, N), and whether it meets the tolerance."""
    met = lambda x: bool(function.value(x).abs().amax() <= f_tol)  # noqa: E731
    if met(x):
        return x, True
    s = _scale(function, x) if solver is None else 1.0
    seen = 0

    def arrive(x: Tensor) -> None:
        nonlocal seen
        if seen and tell is not None:
            tell(x, function.value(x))
        seen += 1
        if met(x):
            raise _Settled(x)

    stop = Tolerance(min(f_tol * s, 1e300), max_steps=steps + 1, window=_WINDOW)
    chosen = Observed(solver or _newton(x), arrive, lambda state: None)
    try:
        found = watched(Equation(_Step(function, s)), x, chosen, stop)
    except _Settled as end:
        return end.x, True
    x = found.value  # type: ignore[assignment]
    if tell is not None:
        tell(x, function.value(x))
    return x, met(x)


def _scale(function: Function, x: Tensor) -> float:
    """s that makes s F' of size one along F(x): Krylov vectors of x - s F(x) then lose no digits."""
    y = function.value(x)
    size = float(length(function.slope(x, (y / length(y)).to(y.dtype))))
    return 1 / size if 1e-300 < size < float("inf") else 1.0


def _newton(x: Tensor) -> NewtonKrylov:
    unknowns = x.numel() * (2 if x.is_complex() else 1)
    return NewtonKrylov(min(8, unknowns), min(30, unknowns))


def _opened(F: Callable, x0: Any) -> tuple[Tensor, Function]:
    """x0 as a row (1, N), and F on rows."""
    if isinstance(x0, Tensor):
        if not (x0.is_floating_point() or x0.is_complex()):
            raise TypeError(f"x0 must be of a floating or complex dtype, got {x0.dtype}")
        return x0.detach().clone().reshape(1, -1), Function(_of_torch(F, x0.shape), exact=True)
    given = np.asarray(x0)
    if given.dtype.kind not in "biufc":
        raise TypeError(f"x0 must hold numbers, got {given.dtype}")
    if given.dtype.char not in "fdFD":
        given = given.astype(np.complex128 if given.dtype.kind == "c" else np.float64)
    image = lambda x: tensor_like("F", F(array_of(x).reshape(given.shape)), x)  # noqa: E731
    return torch.from_numpy(given.copy()).reshape(1, -1), Function(image, exact=False)


def _of_torch(F: Callable, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    def image(x: Tensor) -> Tensor:
        y = F(x.reshape(shape))
        if not isinstance(y, Tensor):
            raise TypeError(f"F must return a tensor for a tensor, got {type(y).__name__}")
        if y.numel() != x.numel():
            raise ValueError(f"F must return as many values as x0 holds, {x.numel()}, got shape {tuple(y.shape)}")
        if y.dtype != x.dtype:
            raise ValueError(f"F must return the dtype of x0, {x.dtype}, got {y.dtype}")
        return y.reshape(x.shape)

    return image


def _finisher(x0: Any) -> Callable[[Tensor], Any]:
    """From a tensor to the kind x0 is of, in memory of its own."""
    if isinstance(x0, Tensor):
        return lambda x: x.clone()
    return array_of
