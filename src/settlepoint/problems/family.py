"""A `Family` is a class of problems as data: it samples them, states their equation, and knows their solutions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import root
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems.batch import Batch

TOLERANCE = 1e-10


class Family(ABC):
    """Problems x = P(x) that belong together.

    name: as on the command line. form: "fixed_point", with residual P(x) - x = -F(x) where a paper writes F(x) = 0; or
    "rhs", initial-value problems x' = f(x) with P(x) = x + h f(x), one step of Euler's method.

    Concrete families are frozen dataclasses of plain values; their repr is a valid constructor call.
    """

    name: str
    form: str = "fixed_point"

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Batch:
        """n problems in float64 on the CPU; everything random comes from the generator."""

    @abstractmethod
    def equation(self, batch: Batch) -> Equation:
        """x = P(x) for these problems, in the dtype and on the device of the batch.

        What differs from row to row is context of the Equation, so that rows can be gathered. P works under
        torch.func.vmap over x and torch.func.jvp.
        """

    def reference(self, batch: Batch) -> Tensor:  # (n, m)
        """The solutions, to max|P(x) - x| <= 1e-10 (1 + max|x|); rows that SciPy cannot solve are NaN.

        scipy.optimize.root (hybr, tol 1e-13) from x0, row by row in float64, checked afterwards.
        """
        exact = batch.to(torch.float64, "cpu")
        rows = [self._root(exact.rows(slice(i, i + 1))) for i in range(len(exact))]
        return torch.stack(rows).to(batch.x0)

    def _root(self, batch: Batch) -> Tensor:  # (m,)
        eq = self.equation(batch)

        def residual(x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return eq.residual(torch.from_numpy(x)[None])[0].numpy()  # type: ignore[index]

        with np.errstate(all="ignore"):
            x = root(residual, batch.x0[0].numpy(), tol=1e-13).x
        return verified(eq, torch.from_numpy(x)[None])[0]

    def trajectory(self, batch: Batch, steps: int) -> Tensor:  # (n, steps, m)
        """The exact solutions after 1, ..., steps steps of size h; of initial-value families alone."""
        raise TypeError(f"trajectory needs a family of form 'rhs', got {self.name} of form {self.form!r}")

    @property
    def interval(self) -> tuple[float, float] | None:
        """(low, high) holding the spectrum of P' for every problem, where that is known."""
        return None

    def settings(self) -> dict[str, Any]:
        """name and fields as JSON can hold them, for the header of a saved solver."""
        given = fields(self) if is_dataclass(self) else ()
        return {"name": self.name} | {f.name: getattr(self, f.name) for f in given}


def verified(eq: Equation, x: Tensor, tolerance: float = TOLERANCE) -> Tensor:
    """x, with NaN in the rows where max|P(x) - x| > tolerance (1 + max|x|)."""
    with torch.no_grad():
        gap = eq.residual(x).abs().amax(1)  # type: ignore[union-attr]
    good = gap <= tolerance * (1 + x.abs().amax(1))
    return torch.where(good[:, None], x, torch.nan)
