"""Neural integro-differential equations: a slope that depends on all that was before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.integral import MemoryOperator
from settlepoint.layers.quadrature import Quadrature
from settlepoint.models.nie import bounded
from settlepoint.solve import FixedPoint


class NIDE(nn.Module):
    """dy/dt = c(t, y) + d(t, y) int_low^t K(t, s) F(y(s)) ds,  y(low) = y_0        (Zappala et al. 2023)

    Integrated once more, y = y_0 + int_low^t (...), it is a Volterra equation on the nodes of the rule, solved for all
    times at once. With Lipschitz constants Picard converges however large they are, factorially, after growing at
    first; without, as for products of unknowns, take NewtonKrylov(): Picard may leave, and the equation on the nodes
    may have more solutions than the one that it stands for. operator: a `MemoryOperator` of c, d, K and F. settle: the
    FixedPoint layer, with inject="f"; its `last` is the report of the latest pass. One row of the solve is one
    trajectory, in the norm of L2(low, high).

        >>> import torch, settlepoint as sp
        >>> from settlepoint.layers import MemoryOperator, gauss_legendre
        >>> from settlepoint.models import NIDE
        >>> one = lambda t, y: torch.ones_like(y)
        >>> memory = MemoryOperator(c=one, d=one, K=lambda t, s: torch.ones_like(t * s))  # y' = 1 + int y: y = sinh t
        >>> model = NIDE(memory, gauss_legendre(12), stop=sp.Tolerance(1e-12))
        >>> y = model(torch.zeros(1, 1, dtype=torch.float64), times=torch.tensor([1.0], dtype=torch.float64))
        >>> round(y.item(), 9)
        1.175201194
    """

    def __init__(
        self,
        operator: MemoryOperator,
        rule: Quadrature,
        *,
        solver: nn.Module | None = None,
        stop: object | None = None,
        adjoint: object | None = None,
    ):
        super().__init__()
        if not isinstance(rule, Quadrature):
            raise TypeError(f"rule must be a Quadrature, whose nodes are fixed, got {type(rule).__name__}")
        self.settle = FixedPoint(operator, solver, stop, adjoint, inject="f")  # type: ignore[arg-type]
        self.rule = rule

    def extra_repr(self) -> str:
        return f"rule={self.rule}"

    @property
    def operator(self) -> MemoryOperator:
        """T(y, rule)."""
        return self.settle.operator  # type: ignore[return-value]

    def started(self, start: Tensor) -> tuple[Tensor, Quadrature]:  # (B, n, k)
        """y_0 at every node, and the rule in its dtype. Raises ValueError unless start is (B, k)."""
        if start.ndim != 2:
            raise ValueError(f"start must be (B, k), one state a trajectory, got {tuple(start.shape)}")
        return start[:, None].expand(-1, len(self.rule), -1), self.rule.to(start)

    def posed(self, start: Tensor):
        """The equation that forward solves, and where it starts, at the constant y_0."""
        f, rule = self.started(start)
        return self.settle.posed(f, None, (rule,), weights=rule.weights[:, None])

    def forward(self, start: Tensor, times: Tensor | None = None) -> Tensor:  # (B, k) -> (B, n, k) or (B, m, k)
        """The trajectories at the nodes, or at times (m,). Raises ValueError for times outside of the interval."""
        f, rule = self.started(start)
        y = self.settle(f, None, (rule,), weights=rule.weights[:, None])
        return y if times is None else rule.at(y, times)

    def table(self, slope: float, memory: float | Tensor = 0.0) -> Tensor:  # (n, n)
        """N with |P(a) - P(b)|_i <= sum_j N_ij |a - b|_j, node by node: |q| (slope + memory |q|).

        slope: a Lipschitz constant in y, at fixed memory, of c + d m, for all m that occur. memory: one of d K(t, s) F,
        in y(s), a number or (n, n). Raises ValueError for a negative bound.
        """
        q = self.rule.cumulative.abs()
        inner = bounded("slope", slope, q) * torch.eye(len(q)).to(q) + bounded("memory", memory, q) * q
        return q @ inner
