"""The Newton map at a point, and the radii at which it contracts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.certify.jacobian import jacobians, power_bound
from settlepoint.certify.point import Point
from settlepoint.certify.rounding import outward


@dataclass(frozen=True)
class Newton:
    """N(y) = y + B (P(y) - y) at a point, B a float64 inverse of I - J, each (R,).

    direction: B (P(x) - x) (R, W). step: Y, its norm, with rounding. defect: Z = ||I - B (I - J)||. size: ||B||. rate:
    a bound on the spectral radius of J.
    """

    direction: Tensor
    step: Tensor
    defect: Tensor
    size: Tensor
    rate: Tensor

    @classmethod
    def at(cls, here: Point) -> Newton:
        """From a dense Jacobian and its inverse."""
        width = here.z.shape[1]
        eps, unit = torch.finfo(torch.float64).eps, here.unit
        J = jacobians(here.eq, here.z).double()
        eye = torch.eye(width, dtype=torch.float64, device=J.device)
        A = eye - J
        B, trouble = torch.linalg.inv_ex(A)
        size = outward(_norm(B), 4 * width)
        direction = (B @ (here.image.double() - here.z.double())[:, :, None])[:, :, 0]
        step = torch.linalg.vector_norm(direction, dim=1)
        step = outward(step + size * (here.rounding + 4 * width * eps * here.residual), 4 * width)
        left = _norm(eye - B @ A)
        defect = outward(left + size * _norm(A) * (4 * width * eps + 8 * unit * width**0.5), 4 * width)
        defect = torch.where((trouble == 0) & torch.isfinite(step), defect, torch.inf)
        return cls(direction, step, defect, size, power_bound(J.nan_to_num()))


def _norm(A: Tensor) -> Tensor:  # (R, W, W) -> (R,)
    """||A||_2 from above, without singular values: the Frobenius norm, or sqrt(||A||_1 ||A||_inf) where it is less."""
    if not A.shape[1]:
        return A.new_zeros(len(A))
    mixed = (A.abs().sum(1).amax(1) * A.abs().sum(2).amax(1)).sqrt()
    return torch.minimum(torch.linalg.matrix_norm(A), mixed)


@dataclass(frozen=True)
class Radii:
    """Smallest and largest r that the radii polynomial allows, and where there is one, each (R,)."""

    small: Tensor
    large: Tensor
    holds: Tensor

    @classmethod
    def allowed(cls, newton: Newton, curvature: Tensor | float, ball: Tensor | float = torch.inf) -> Radii:
        """Y + Z r + ||B|| K r^2 / 2 <= r and Z + ||B|| K r < 1, within a ball on which P' has Lipschitz constant K."""
        as_double = lambda v: torch.as_tensor(v, dtype=torch.float64, device=newton.step.device)  # noqa: E731
        bend, gap = outward(newton.size * as_double(curvature), 4), 1 - newton.defect
        inside = gap**2 - 2 * bend * newton.step
        small = outward(2 * newton.step / (gap + inside.clamp(min=0).sqrt()))
        large = torch.where(bend > 0, gap / torch.where(bend > 0, bend, 1.0) * (1 - 1e-14), torch.inf)
        large = torch.minimum(large, as_double(ball))
        holds = (gap > 0) & (inside > 0) & torch.isfinite(small) & torch.isfinite(bend) & (small < large)
        return cls(small, large, holds)

    @classmethod
    def none(cls, rows: int, like: Tensor) -> Radii:
        """No row has one."""
        zero = like.new_zeros(rows, dtype=torch.float64)
        return cls(zero + torch.inf, zero, torch.zeros_like(zero, dtype=torch.bool))

    def seen_from(self, distance: Tensor) -> Radii:
        """About another point, so far away: a larger radius, a smaller ball of uniqueness."""
        return Radii(outward(self.small + distance), (self.large - distance).clamp(min=0) * (1 - 1e-14), self.holds)

    def or_else(self, other: Radii) -> Radii:
        """Row by row the one that holds; the smaller radius and the larger ball of uniqueness where both do."""
        both = self.holds & other.holds
        pick = lambda a, b, best: torch.where(both, best(a, b), torch.where(other.holds, b, a))  # noqa: E731
        small = pick(self.small, other.small, torch.minimum)
        return Radii(small, pick(self.large, other.large, torch.maximum), self.holds | other.holds)

    def put(self, index: Tensor, part: Radii) -> Radii:
        """With the rows in index replaced."""
        place = lambda a, b: a.index_copy(0, index, b)  # noqa: E731
        return Radii(place(self.small, part.small), place(self.large, part.large), place(self.holds, part.holds))
