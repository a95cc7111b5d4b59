"""The van der Pol oscillator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.problems.batch import Batch
from settlepoint.problems.initial_value import InitialValueFamily
from settlepoint.problems.sampling import Range, check_range, check_sampling, uniform


@dataclass(frozen=True)
class VanDerPol(InitialValueFamily):
    """x1' = x2,  x2' = a (1 - x1^2) x2 - x1        (R2N2, Sec. 4.3)

    a, x1, x2, h: ranges from which the parameter, the starting point and the step size are drawn uniformly.
    parameters: a (n,).

        >>> import torch
        >>> family = VanDerPol()
        >>> batch = family.sample(4, torch.Generator().manual_seed(0))
        >>> batch.x0.shape, family.trajectory(batch, 3).shape
        (torch.Size([4, 2]), torch.Size([4, 3, 2]))
    """

    a: Range = (1.35, 1.65)
    x1: Range = (-4.0, -3.0)
    x2: Range = (0.0, 2.0)
    h: Range = (0.01, 0.1)

    name = "vdp"

    def __post_init__(self):
        for key in ("a", "x1", "x2"):
            check_range(key, getattr(self, key))
        check_range("h", self.h, above=0.0)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        check_sampling(n, generator)
        a, x1, x2, h = (uniform(bounds, (n,), generator) for bounds in (self.a, self.x1, self.x2, self.h))
        return Batch(torch.stack((x1, x2), 1), {"a": a}, h)

    def field(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        x1, x2 = x[:, 0], x[:, 1]
        return torch.stack((x2, parameters["a"] * (1 - x1 * x1) * x2 - x1), 1)
