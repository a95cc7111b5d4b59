"""Classical Runge-Kutta tableaus, as values: x + h sum_j b_j v_j,  v_j = f(x + h sum_l A[j,l] v_l)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction as F

import torch
from torch import Tensor

Number = float | F


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method (Hairer, Norsett & Wanner 1993, II.1): A strictly lower triangular, weights b.

    rows: rows 1 to n-1 of A, row j with j entries.
    """

    rows: tuple[tuple[Number, ...], ...]
    b: tuple[Number, ...]

    def __post_init__(self):
        if [len(row) for row in self.rows] != list(range(1, len(self.b))):
            raise ValueError(
                f"rows must hold 1, 2, ..., {len(self.b) - 1} entries for {len(self.b)} weights b, "
                f"got {[len(row) for row in self.rows]}"
            )

    @property
    def inner(self) -> tuple[float, ...]:
        """The rows of A one after the other."""
        return tuple(float(a) for row in self.rows for a in row)

    def matrices(self) -> tuple[Tensor, Tensor]:
        """A (n, n) and b (n,) in float64."""
        return square(self.inner, len(self.b)), torch.tensor([float(b) for b in self.b], dtype=torch.float64)


def square(inner: Sequence[float] | Tensor, stages: int) -> Tensor:  # (n, n)
    """Packed rows as the strictly lower triangle of a matrix; differentiable in inner."""
    packed = inner if isinstance(inner, Tensor) else torch.tensor(inner, dtype=torch.float64)
    i, j = torch.tril_indices(stages, stages, -1, device=packed.device)
    return packed.new_zeros(stages, stages).index_put((i, j), packed)


EULER = Tableau((), (1,))
HEUN = Tableau(((1,),), (F(1, 2), F(1, 2)))
MIDPOINT = Tableau(((F(1, 2),),), (0, 1))
RALSTON = Tableau(((F(2, 3),),), (F(1, 4), F(3, 4)))
KUTTA3 = Tableau(((F(1, 2),), (-1, 2)), (F(1, 6), F(2, 3), F(1, 6)))
SSPRK3 = Tableau(((1,), (F(1, 4), F(1, 4))), (F(1, 6), F(1, 6), F(2, 3)))
BOGACKI_SHAMPINE = Tableau(((F(1, 2),), (0, F(3, 4))), (F(2, 9), F(1, 3), F(4, 9)))
RK4 = Tableau(((F(1, 2),), (0, F(1, 2)), (0, 0, 1)), (F(1, 6), F(1, 3), F(1, 3), F(1, 6)))


def richardson(damping: float = 0.0, steps: int = 1) -> Tableau:
    """`steps` damped Richardson steps x + (1 - damping) v in one: damped Picard for v = P(x) - x."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    weight = 1 - damping
    return Tableau(tuple((weight,) * j for j in range(1, steps)), (weight,) * steps)
