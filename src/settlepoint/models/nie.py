"""Neural integral equations: an answer on an interval that equals its own integral transform."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from settlepoint.layers.integral import IntegralOperator
from settlepoint.layers.quadrature import Quadrature, RandomNodes
from settlepoint.solve import FixedPoint

Forcing = Tensor | Callable[[Tensor], Tensor]


class NIE(nn.Module):
    """y(t) = f(t) + h(y(t), t) + int G(y(s), t, s) ds        (neural integral equations: Zappala et al. 2024)

    The integral is over the interval of the rule (Fredholm) or from its start to t (Volterra). operator: an
    `IntegralOperator` of G and h, functions or modules. rule: a `Quadrature`, or `RandomNodes`, a sample of which is
    drawn for each solve. The unknowns are the values at the nodes, one row of the solve a function, in the norm of
    L2(low, high): the weights of the rule are those of the norm, so that a tolerance means the same for any number of
    nodes. settle: the FixedPoint layer, with inject="f"; its `last` is the report of the latest pass, and its solver,
    stop and adjoint may be set. held: the rule of the latest pass.

        >>> import torch, settlepoint as sp
        >>> from settlepoint.layers import IntegralOperator, gauss_legendre
        >>> from settlepoint.models import NIE
        >>> model = NIE(IntegralOperator(lambda y, t, s: t * s * y), gauss_legendre(8), stop=sp.Tolerance(1e-12))
        >>> y = model(lambda t: t[None], times=torch.tensor([0.5, 1.0], dtype=torch.float64))  # y = t / (1 - 1/3)
        >>> [round(v, 9) for v in y.flatten().tolist()]
        [0.75, 1.5]
    """

    def __init__(
        self, operator: IntegralOperator, rule: Quadrature | RandomNodes, solver=None, stop=None, adjoint=None
    ):
        super().__init__()
        self.settle = FixedPoint(operator, solver, stop, adjoint, inject="f")
        self.rule, self.held = rule, rule if isinstance(rule, Quadrature) else None

    def extra_repr(self) -> str:
        return f"rule={self.rule}"

    @property
    def operator(self) -> IntegralOperator:
        """T(y, rule)."""
        return self.settle.operator  # type: ignore[return-value]

    def forced(self, f: Forcing) -> tuple[Tensor, Quadrature]:  # (B, n, d)
        """f at the nodes, and the rule of a solve in its dtype.

        f: values (B, n, d), or a function that gives (B, n, d) for times (n, 1) in float64. Raises ValueError for
        another shape, and for values where the nodes are yet to be drawn.
        """
        if isinstance(f, Tensor) and isinstance(self.rule, RandomNodes):
            raise ValueError("f must be a function of t where the nodes are random, got a tensor")
        rule = self.rule.held()
        values = f if isinstance(f, Tensor) else f(rule.nodes[:, None])
        if values.ndim != 3 or values.shape[1] != len(rule):
            raise ValueError(f"f must be (B, {len(rule)}, d), one value a node, got {tuple(values.shape)}")
        return values, rule.to(values)

    def posed(self, f: Forcing):
        """The equation that forward solves, and where it starts, at f."""
        values, rule = self.forced(f)
        self.held = rule
        return self.settle.posed(values, None, (rule,), weights=rule.weights[:, None])

    def forward(self, f: Forcing, times: Tensor | None = None) -> Tensor:  # (B, n, d), or (B, m, d) at times (m,)
        """The solution at the nodes, or between them. Raises ValueError for times outside of the interval."""
        values, rule = self.forced(f)
        self.held = rule
        y = self.settle(values, None, (rule,), weights=rule.weights[:, None])
        return y if times is None else rule.at(y, times)

    def table(self, kernel: float | Tensor, local: float = 0.0) -> Tensor:  # (n, n)
        """N with |P(a) - P(b)|_i <= sum_j N_ij |a - b|_j, node by node: what certify.nodewise asks for.

        kernel: L with |G(a, t, s) - G(b, t, s)| <= L |a - b| in the 2-norm of the components, one number, or (n, n),
        one a pair of nodes (t_i, s_j). local: the same of h. For a Fredholm equation with numbers its Perron root is
        local + length * kernel. Raises ValueError for a negative bound, and before random nodes are drawn.
        """
        if self.held is None:
            raise ValueError("table needs nodes, and those of random rules are drawn by a solve: call the model first")
        W = self.operator.table(self.held).double().abs()
        return bounded("kernel", kernel, W) * W + bounded("local", local, W) * torch.eye(len(W)).to(W)


def bounded(name: str, bound: float | Tensor, like: Tensor) -> Tensor:
    """A Lipschitz constant as a tensor; raises ValueError unless it is >= 0 and fits the table."""
    found = torch.as_tensor(bound, dtype=torch.float64).to(like)
    if not bool((found >= 0).all()):
        raise ValueError(f"{name} must be >= 0, got {float(found.min()):g}")
    if found.ndim and found.shape != like.shape:
        raise ValueError(f"{name} must be a number or {tuple(like.shape)}, got {tuple(found.shape)}")
    return found
