"""Initial-value problems x' = f(x), with exact solutions from SciPy."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch
from settlepoint.problems.family import Family
from settlepoint.problems.sampling import check_count

RTOL, ATOL = 1e-12, 1e-13


class InitialValueFamily(Family):
    """x' = f(x; parameters) and a step size h a row: P(x) = x + h f(x), and the target is x after one step."""

    form = "rhs"

    @abstractmethod
    def field(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:  # (R, m)
        """f(x), row by row."""

    def equation(self, batch: Batch) -> Equation:
        return Equation(_Step(self, tuple(batch.parameters)), context=(_steps(batch), *batch.parameters.values()))

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """x after one step of size h: `trajectory` to 1."""
        return self.trajectory(batch, 1)[:, 0]

    def trajectory(self, batch: Batch, steps: int) -> Tensor:  # (n, steps, m)
        """x after 1, ..., steps steps of size h, by scipy.integrate.solve_ivp (DOP853, rtol 1e-12, atol 1e-13).

        All rows are one system in the time tau = t/h, dx/dtau = h f(x), whose error SciPy measures as a root mean
        square. Where that system fails, the rows are solved one by one; those that fail are NaN.
        """
        check_count("steps", steps)
        exact = batch.to(torch.float64, "cpu")
        path = self._integrated(exact, steps)
        if path is None:
            single = [self._integrated(exact.rows(slice(i, i + 1)), steps) for i in range(len(exact))]
            lost = torch.full((1, steps, exact.x0.shape[1]), torch.nan, dtype=torch.float64)
            path = torch.cat([lost if p is None else p for p in single])
        return path.to(batch.x0)

    def _integrated(self, batch: Batch, steps: int) -> Tensor | None:
        shape, h = batch.x0.shape, _steps(batch)[:, None]

        def slope(_: float, x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return (h * self.field(torch.from_numpy(x).reshape(shape), batch.parameters)).numpy().ravel()

        times = np.arange(1.0, steps + 1)
        with np.errstate(all="ignore"):
            found = solve_ivp(
                slope, (0.0, float(steps)), batch.x0.numpy().ravel(), "DOP853", times, rtol=RTOL, atol=ATOL
            )
        if not found.success or not np.isfinite(found.y).all():
            return None
        return torch.from_numpy(found.y.T.copy()).reshape(steps, *shape).transpose(0, 1)


def _steps(batch: Batch) -> Tensor:
    h = batch.h
    if h is None:
        raise ValueError("h must hold one step size a row, got None")
    wrong = h[~((h > 0) & torch.isfinite(h))]
    if len(wrong):
        raise ValueError(f"h must be positive and finite, got {wrong[0].item():g}")
    return h


@dataclass(frozen=True, eq=False)
class _Step:
    """P(x) = x + h f(x), with h and the parameters as context."""

    family: InitialValueFamily
    names: tuple[str, ...]

    def __call__(self, x: Tensor, h: Tensor, *values: Tensor) -> Tensor:
        return x + h[:, None] * self.family.field(x, dict(zip(self.names, values, strict=True)))
