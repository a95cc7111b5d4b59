"""A family made of a user's own function and sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch, shape_of
from settlepoint.problems.family import Family
from settlepoint.problems.initial_value import InitialValueFamily
from settlepoint.problems.sampled import batch_from
from settlepoint.problems.sampling import check_sampling

Function = Callable[..., Tensor]  # f(x, parameters), or f(x, parameters, t)
Sampler = Callable[[int, torch.Generator], dict[str, Any]]
Reference = Callable[[Batch], Tensor]

FORMS = ("fixed_point", "root", "rhs")


def from_callable(
    f: Function,
    sampler: Sampler,
    form: str = "fixed_point",
    name: str = "custom",
    reference: Reference | None = None,
    timed: bool = False,
) -> Family:
    """A family from f(x, parameters) -> (R, m) and sampler(n, generator) -> {"x0": (n, m), "parameters": {...}}.

    form: "fixed_point", x = f(x); "root", f(x) = 0, solved as x = x - f(x); "rhs", x' = f(x), where the sampler gives
    step sizes "h" (n,) too. parameters: a dict of tensors with one leading entry a row. f is pure, works row by row and
    overwrites nothing; functions of NumPy come in through `settlepoint.compat.scipy.torched`.

    timed: f(x, parameters, t) depends on the time as well. The state gets one more column, t, which starts at the
    sampler's "t0" (n,), default 0, and whose slope is 1, so that stage times come out by themselves.

    reference: solutions of a batch (n, m), instead of SciPy's. Samples are taken to float64.

        >>> import torch, settlepoint as sp
        >>> def kepler(E, p):
        ...     return p["M"] + p["e"] * torch.sin(E)
        >>> def orbits(n, generator):
        ...     M = 3 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        ...     e = 0.9 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
        ...     return {"x0": M, "parameters": {"M": M, "e": e}}
        >>> family = from_callable(kepler, orbits, name="kepler")
        >>> batch = family.sample(5, torch.Generator().manual_seed(0))
        >>> found = sp.solve(family.equation(batch), batch.x0, sp.Anderson(2), sp.Tolerance(1e-10))
        >>> bool(torch.allclose(found.require().value, family.reference(batch)))
        True
    """
    for key, value in (("f", f), ("sampler", sampler)):
        if not callable(value):
            raise TypeError(f"{key} must be callable, got {type(value).__name__}")
    if reference is not None and not callable(reference):
        raise TypeError(f"reference must be callable or None, got {type(reference).__name__}")
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(map(repr, FORMS))}, got {form!r}")
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a string that is not empty, got {name!r}")
    if timed and form != "rhs":
        raise ValueError(f"timed must be False unless form is 'rhs', got form {form!r}")
    if form == "rhs":
        return CustomInitialValue(f, sampler, name, reference, timed)
    return CustomFixedPoint(f, sampler, name, reference, form == "root")


@dataclass(frozen=True)
class CustomFixedPoint(Family):
    """x = f(x), or f(x) = 0 when root; made by `from_callable`."""

    f: Function
    sampler: Sampler
    name: str = "custom"
    given: Reference | None = None
    root: bool = False

    form = "fixed_point"

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        return batch_from(self.sampler(n, generator), n, stepped=False)

    def equation(self, batch: Batch) -> Equation:
        _probe(lambda x, p: self.f(x, p), batch)
        operator = _Named(self.f, tuple(batch.parameters))
        context = tuple(batch.parameters.values())
        return Equation.from_root(operator, context=context) if self.root else Equation(operator, context=context)

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """What the user's reference gives, else SciPy's as in `Family.reference`."""
        return super().reference(batch) if self.given is None else _checked(self.given(batch), batch)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "form": "root" if self.root else self.form} | _origins(self.f, self.sampler)


@dataclass(frozen=True)
class CustomInitialValue(InitialValueFamily):
    """x' = f(x), or x' = f(x, t) when timed; made by `from_callable`."""

    f: Function
    sampler: Sampler
    name: str = "custom"
    given: Reference | None = None
    timed: bool = False

    form = "rhs"

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        return batch_from(self.sampler(n, generator), n, stepped=True, timed=self.timed)

    def field(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        if not self.timed:
            return self.f(x, parameters)
        slope = self.f(x[:, :-1], parameters, x[:, -1])
        return torch.cat((slope, torch.ones_like(x[:, -1:])), 1)

    def equation(self, batch: Batch) -> Equation:
        _probe(self.field, batch)
        return super().equation(batch)

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """What the user's reference gives, else SciPy's as in `InitialValueFamily.reference`."""
        return super().reference(batch) if self.given is None else _checked(self.given(batch), batch)

    def settings(self) -> dict[str, Any]:
        return {"name": self.name, "form": self.form, "timed": self.timed} | _origins(self.f, self.sampler)


@dataclass(frozen=True, eq=False)
class _Named:
    """f(x, {name: value}) as an operator with the values as context."""

    f: Function
    names: tuple[str, ...]

    def __call__(self, x: Tensor, *values: Tensor) -> Tensor:
        return self.f(x, dict(zip(self.names, values, strict=True)))


def _probe(f: Function, batch: Batch) -> None:
    """Raise unless f maps the first row to one of its shape and dtype."""
    one = batch.rows(slice(0, 1))
    try:
        with torch.no_grad():
            y = f(one.x0, one.parameters)
    except Exception as error:
        raise ValueError(
            f"f must take x {tuple(one.x0.shape)} of {one.x0.dtype} and the parameters {list(one.parameters)}, "
            f"but raised {error!r}"
        ) from error
    if not isinstance(y, Tensor):
        raise TypeError(f"f must return a tensor, got {type(y).__name__}; NumPy functions come in through torched")
    if y.shape != one.x0.shape:
        raise ValueError(f"f must return the shape of x, {tuple(one.x0.shape)}, got {tuple(y.shape)}")
    if y.dtype != one.x0.dtype:
        raise ValueError(f"f must return the dtype of x, {one.x0.dtype}, got {y.dtype}")


def _checked(x: Tensor, batch: Batch) -> Tensor:
    if not isinstance(x, Tensor) or x.shape != batch.x0.shape:
        raise ValueError(f"reference must return a tensor of shape {tuple(batch.x0.shape)}, got {shape_of(x)}")
    return x.to(batch.x0)


def _origins(*functions: Callable) -> dict[str, str]:
    names = [f"{getattr(f, '__module__', '')}.{getattr(f, '__qualname__', type(f).__name__)}" for f in functions]
    return dict(zip(("f", "sampler"), names, strict=True))
