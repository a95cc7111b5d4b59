"""Fitting the learned first step: least squares on solutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.first_step import FirstStep, FirstStepState, inputs, monomials, scaled
from settlepoint.solvers.solver import Solver


def fit_first_step(
    solver: Solver, eq: Equation, x0: Tensor, solution: Tensor, *, degree: int = 3, context: bool = False
) -> FirstStep:
    """The FirstStep before `solver` whose polynomial is nearest to these solutions, component by component.

    x0, solution: (n, m); rows of solution that are not finite, and components with P(x0) = x0, are left out. Raises
    ValueError when fewer components remain than the polynomial has coefficients.
    """
    eq = eq.at(x0)
    with torch.no_grad():
        z = x0 if eq.layout is None else eq.layout.flatten(x0)
        r = eq.flat(z) - z
        columns = inputs(eq, z, r, context)
        used = (r != 0) & torch.isfinite(r).all(1, keepdim=True) & torch.isfinite(solution).all(1, keepdim=True)
        columns = [u.expand_as(z)[used] for u in columns]
        terms = monomials(len(columns), degree)
        if len(columns[0]) < len(terms):
            raise ValueError(
                f"solution must leave {len(terms)} components to fit {len(terms)} weights, got {len(columns[0])}"
            )
        low, high = (torch.stack([f(u) for u in columns]) for f in (torch.min, torch.max))
        units = scaled(columns, low, high)
        design = torch.stack([_product(units, term) for term in terms], 1)
        weights = torch.linalg.lstsq(design, solution[used][:, None], driver="gelsd").solution[:, 0]
    step = FirstStep(solver, degree, context=context, coefficients=weights, low=low, high=high)
    return within_reach(step, eq, x0)


@torch.no_grad()
def within_reach(step: FirstStep, eq: Equation, x0: Tensor) -> FirstStep:
    """A copy of step that is taken where residuals are no larger than on these problems, before and after it."""
    free = with_reach(step, ())
    eq = eq.at(x0)
    z = x0 if eq.layout is None else eq.layout.flatten(x0)
    r = eq.flat(z) - z
    moved, state, _ = free.step(eq, z, r, free.init(eq, z, r))
    after = eq.flat(moved) - moved
    assert isinstance(state, FirstStepState)
    assert state.jumped is not None
    good = state.jumped & (eq.norm(after) < eq.norm(r))
    sizes = [torch.where(good, v.abs().amax(1), 0.0).max() if len(z) else z.new_zeros(()) for v in (r, after)]
    return with_reach(step, torch.stack(sizes))


def with_reach(step: FirstStep, reach: Sequence[float] | Tensor) -> FirstStep:
    """A copy of step with another reach; () sets no limits."""
    options = {"coefficients": step.coefficients.detach(), "low": step.low, "high": step.high}
    return FirstStep(step.solver, step.degree, context=step.context, reach=reach, **options)


def _product(columns: list[Tensor], term: tuple[int, ...]) -> Tensor:
    product = torch.ones_like(columns[0])
    for i in term:
        product = product * columns[i]
    return product
