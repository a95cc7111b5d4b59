"""The point of a certificate: an equation in float64 where it can be had, its residual, and what rounding may hide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from settlepoint.certify.certificate import Certificate, Refused, refused
from settlepoint.certify.following import refuse_training, traced
from settlepoint.certify.rounding import Coarsest
from settlepoint.certify.traced import Traced
from settlepoint.equation import Equation
from settlepoint.outcome import evaluate
from settlepoint.solvers.solver import map_state
from settlepoint.spaces import Rows, State

_UNITS = 16.0  # of eps sqrt(W) (||x|| + ||P(x)||) that an evaluation is taken to be off by, at most
_ALIKE = 8.0  # of the same, by which two evaluations may differ before the operator counts as another one
_FEW = 16  # rows that are told apart pair by pair
_BITS = 2  # of random numbers by which more rows are told apart; each costs two evaluations


@dataclass(frozen=True)
class Point:
    """A bound equation at a point: what every certificate begins with.

    eq: bound, with its weights in float64 where the operator is a module or promotes. x: the state. z: (R, W). image:
    P(z). residual: (R,) float64, ||P(z) - z|| in the norm of the space. rounding: (R,), what an evaluation of P is
    taken to be off by, at most: a model of rounding, not an enclosure. unit: rounding unit of the coarsest numbers that
    the operator works in.
    """

    eq: Equation
    x: State
    z: Tensor
    image: Tensor
    residual: Tensor
    rounding: Tensor
    unit: float

    @classmethod
    @torch.no_grad()
    def at(cls, eq: Equation, x: State) -> Point:
        """The point x. Raises `Refused` for operators that are random, or whose rows depend on each other."""
        refuse_training(eq.operator)
        here = cls._seen(eq, detached(x))
        exact = _exact(eq, here.x)
        if exact is not None:
            try:
                finer = cls._seen(*exact)
            except Exception:  # the operator takes its own dtype alone: the point stays in it
                finer = here
            gap = torch.linalg.vector_norm(finer.image.double() - here.image.double(), dim=1)
            here = finer if bool((~(gap > _ALIKE * here.rounding)).all()) else here
        here._check()
        return here

    @classmethod
    def _seen(cls, eq: Equation, x: State) -> Point:
        bound = eq.at(x)
        assert bound.layout is not None
        z = bound.layout.flatten(x).detach().clone()  # an operator that writes in place must not reach the caller's
        with Coarsest(bound.layout.eps) as seen:
            image = evaluate(bound, z).detach()
        sizes = bound.measure(z) + bound.measure(image)
        delta = _UNITS * seen.unit * max(1, z.shape[1]) ** 0.5 * sizes
        return cls(bound, x, z, image, bound.measure(image - z), delta, seen.unit)

    def rows(self, index: Tensor) -> Point:
        """Some of the rows; all of them where the space cannot be restricted."""
        if not self.eq.selectable or len(index) == len(self.z):
            return self
        eq, z, take = self.eq.rows(index), self.z[index], lambda v: v[index]
        assert eq.layout is not None
        return Point(eq, eq.layout.restore(z), z, take(self.image), take(self.residual), take(self.rounding), self.unit)

    def moved(self, step: Tensor) -> Point:
        """The point z + step (R, W); rows whose step is not finite stay."""
        z = torch.where(torch.isfinite(step).all(1, keepdim=True), self.z + step, self.z)
        assert self.eq.layout is not None
        return self._seen(self.eq, self.eq.layout.restore(z))

    def lacks(self, text: str) -> list[str]:
        """text for every row, but for those whose value or image is not finite."""
        finite = torch.isfinite(self.residual).tolist()
        return [text if good else "the value, or its image, is not finite" for good in finite]

    def followed(self, radius: Tensor | float = torch.inf) -> Traced:
        """P with its bounds on balls around the point; rows that are not finite stand in the first one that is."""
        finite = torch.isfinite(self.residual)
        if bool(finite.all()) or not bool(finite.any()):
            return traced(self.eq, self.x, radius)
        z = torch.where(finite[:, None], self.z, self.z[finite.int().argmax()])
        radius = torch.where(finite, torch.as_tensor(radius, dtype=torch.float64, device=z.device), 1.0)
        assert self.eq.layout is not None
        return traced(self.eq, self.eq.layout.restore(z), radius)

    def _check(self) -> None:
        """Some rows moved: the others must give what they gave."""
        draw = torch.Generator().manual_seed(0)
        for others in _masks(len(self.z), draw):
            others = others.to(self.z.device)
            noise = torch.randn(self.z.shape, dtype=torch.float64, generator=draw).to(self.z)
            step = 0.1 * (1 + self.z.abs()) * noise
            image = self.eq.flat(torch.where(others[:, None], self.z, self.z + step))
            if self._differs(image, others):
                self._blame()

    def _differs(self, image: Tensor, rows: Tensor) -> bool:
        gap = torch.linalg.vector_norm(image.double() - self.image.double(), dim=1)
        return bool((rows & (gap > _ALIKE * self.rounding + 1e-300)).any())

    def _blame(self) -> None:
        """Raise `Refused`: the operator is random, or its rows depend on each other."""
        if self._differs(self.eq.flat(self.z), torch.ones(len(self.z), dtype=torch.bool, device=self.z.device)):
            raise Refused(
                "the operator gives another result when it is called again: it is random or has a state; call .eval() "
                "on it, or draw its noise once, outside"
            )
        raise Refused(
            "the rows depend on each other: give what a row needs through context, and make one row of what belongs "
            "together"
        )


def _masks(rows: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Rows that stay, while the others are moved: by bits of their numbers, and the other way round.

    Few rows are all told apart, pair by pair, more by two random halves. One row stays, to be called again.
    """
    if rows == 1:
        yield torch.ones(1, dtype=torch.bool)
    number = torch.arange(rows) if rows <= _FEW else torch.randperm(rows, generator=draw)
    bits = math.ceil(math.log2(rows)) if 1 < rows <= _FEW else _BITS
    for bit in range(bits if rows > 1 else 0):
        stay = (number >> bit) % 2 == 0
        yield stay
        yield ~stay


def attempt(name: str, eq: Equation, x: State, claim: Callable[[Point], Certificate]) -> Certificate:
    """claim(point), or a refusal of all rows with the reason."""
    try:
        with torch.inference_mode(False), torch.no_grad():
            here = Point.at(eq, x)
            if not here.z.shape[1]:
                raise Refused("the state has no entries")
            return claim(here)
    except Refused as error:
        layout = eq.at(detached(x)).layout
        assert layout is not None
        return refused(layout.rows, torch.zeros(0, device=_first(x).device), str(error), name)


def plain_norm(eq: Equation) -> None:
    """Raise `Refused` unless rows are measured in the plain 2-norm."""
    if isinstance(eq.space, Rows) and eq.space.weights is not None:
        raise Refused("the bounds are in the plain 2-norm, and the rows of this space have weights")


def _exact(eq: Equation, x: State) -> tuple[Equation, State] | None:
    """The equation and the state in float64; None where they are already, or cannot be."""
    if _first(x).dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return None
    given = {name: map_state(_up, getattr(eq, name)) for name in ("f", "lam", "context")}
    operator = _Lifted.of(eq.operator) if isinstance(eq.operator, nn.Module) else eq.operator
    return replace(eq, operator=operator, **given), map_state(_up, x)  # pyright: ignore[reportReturnType]


def _up(v: Tensor) -> Tensor:
    """v in float64 where it is floating; what asks for a gradient still does, which keeps torch from fused layers."""
    return v.detach().double().requires_grad_(v.requires_grad) if v.is_floating_point() else v


@dataclass(frozen=True)
class _Lifted:
    """A module called with its parameters and buffers in float64; the module itself is left as it is."""

    module: nn.Module
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> _Lifted:
        return cls(module, {name: _up(t) for name, t in (*module.named_parameters(), *module.named_buffers())})

    def __call__(self, *args: State) -> State:
        return torch.func.functional_call(self.module, self.weights, args)


def detached(x: State) -> State:
    """x without a graph."""
    return tuple(t.detach() for t in x) if isinstance(x, tuple) else x.detach()


def _first(x: State) -> Tensor:
    return x[0] if isinstance(x, tuple) else x
