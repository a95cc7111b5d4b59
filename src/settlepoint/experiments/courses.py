"""Residuals step by step, of our solvers and of the Newton-Krylov methods that the R2N2 paper compares with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.learn.objective import rollout
from settlepoint.problems import Batch, Family
from settlepoint.solvers import Solver


@dataclass(frozen=True)
class Course:
    """evals, residual: (R, K+1), evaluations spent to make x_k, and |P(x_k) - x_k|, k = 0 ... K. end: (R, m), x_K."""

    evals: Tensor
    residual: Tensor
    end: Tensor | None = None

    def within(self, tolerance: float) -> Tensor:  # (R,)
        """Evaluations to a residual below the tolerance, the one that shows it included; inf where never."""
        cost = torch.where(self.residual <= tolerance, self.evals + 1, torch.inf)
        return cost.amin(1)

    def share(self, tolerance: float, iterations: int) -> float:
        """Per cent of the rows below the tolerance within that many iterations."""
        return 100 * float((self.residual[:, : iterations + 1] <= tolerance).any(1).double().mean())


def course(solver: Solver, eq: Equation, x0: Tensor, iterations: int) -> Course:
    """A solver of ours whose every step makes `calls` evaluations of its own; nothing is stopped."""
    bound = eq.at(x0)
    with torch.no_grad():
        first = bound.flat(x0) - x0
        path = rollout(solver, bound, x0, iterations)
    residuals = [first, *path.residuals]
    norms = torch.stack([torch.linalg.vector_norm(r, dim=1) for r in residuals], 1)
    calls = 1 + solver.calls
    return Course(_counted(norms, calls), norms, path.iterates[-1] if path.iterates else x0)


def newton_gmres(eq: Equation, x0: Tensor, iterations: int, inner: int = 3) -> Course:
    """x_{k+1} = x_k + d, (I - P'(x_k)) d = r_k by `inner` steps of GMRES on exact products, no line search.

    An iteration is 1 + inner evaluations.
    """
    bound, x, norms = eq.at(x0), x0, []
    with torch.no_grad():
        for k in range(iterations + 1):
            r = bound.flat(x) - x
            norms.append(torch.linalg.vector_norm(r, dim=1))
            if k < iterations:
                x = x + _gmres(lambda v, x=x: v - torch.func.jvp(bound.flat, (x,), (v,))[1], r, inner)
    residual = torch.stack(norms, 1)
    return Course(_counted(residual, 1 + inner), residual, x)


def _gmres(product: Callable[[Tensor], Tensor], r: Tensor, inner: int) -> Tensor:
    """argmin |r - A d| over the Krylov space of dimension `inner`, row by row, from an orthonormal basis."""
    basis, images = [], []
    v = r
    for _ in range(inner):
        for _ in range(2):
            for q in basis:
                v = v - (q * v).sum(1, keepdim=True) * q
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
        basis.append(v)
        images.append(product(v))
        v = images[-1]
    Y = torch.stack(images, 2)
    weights = torch.linalg.lstsq(Y.nan_to_num(), r.nan_to_num()[:, :, None], driver="gelsd").solution
    return (torch.stack(basis, 2) @ weights)[:, :, 0]


def scipy_course(family: Family, batch: Batch, iterations: int, inner: int | None = None) -> Course:
    """scipy.optimize.newton_krylov, one row after the other, its calls counted. inner: GMRES of so many steps in the
    place of its defaults, LGMRES of at most 20.
    """
    rows = [_scipy_row(family, batch.rows(slice(i, i + 1)), iterations, inner) for i in range(len(batch))]
    evals, residual, end = (torch.tensor(np.array([row[i] for row in rows])) for i in (0, 1, 2))
    return Course(evals, residual, end)


def _scipy_row(
    family: Family, batch: Batch, iterations: int, inner: int | None
) -> tuple[list[float], list[float], np.ndarray]:
    from scipy.optimize import NoConvergence, newton_krylov

    eq, calls = family.equation(batch), 0

    def residual(v: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        with torch.no_grad():
            return eq.residual(torch.from_numpy(v)[None])[0].numpy()  # type: ignore[index]

    x0 = batch.x0[0].numpy()
    evals, norms, ends = [0.0], [float(np.linalg.norm(residual(x0)))], [x0]
    calls = 0

    def note(x: np.ndarray, r: np.ndarray) -> None:
        ends.append(x.copy())
        evals.append(float(calls))
        norms.append(float(np.linalg.norm(r)))

    options: dict[str, Any] = {} if inner is None else {"method": "gmres", "inner_maxiter": inner}
    options |= {"maxiter": iterations, "f_tol": 1e-14, "callback": note}
    with np.errstate(all="ignore"):
        try:
            newton_krylov(residual, x0, tol_norm=np.linalg.norm, **options)
        except (NoConvergence, ValueError, FloatingPointError):  # out of iterations, a singular Jacobian, or NaN
            pass
    lacking = iterations + 1 - len(norms)
    last = norms[-1] if np.isfinite(norms[-1]) else np.nan
    return evals + [evals[-1]] * lacking, norms + [last] * lacking, ends[-1]


def _counted(norms: Tensor, calls: int) -> Tensor:
    return (calls * torch.arange(norms.shape[1], dtype=torch.float64)).expand_as(norms)


def quartiles(name: str, values: Tensor, at: Sequence[float] = (0.25, 0.5, 0.75)) -> dict[str, float]:
    """ "name p25", "name p50", "name p75" over the rows; rows that never came count as infinite."""
    ordered = values.double().nan_to_num(torch.inf, torch.inf).sort().values
    return {f"{name} p{round(100 * q)}": float(ordered[round(q * (len(ordered) - 1))]) for q in at}
