"""The integral operators of neural integral and integro-differential equations, on the nodes of a quadrature."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from settlepoint.layers.quadrature import Quadrature

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # G(y, t, s)
Local = Callable[[Tensor, Tensor], Tensor]  # h(y, t)


def joined(*parts: Tensor) -> Tensor:
    """Tensors side by side along the last dimension, the dimensions before it broadcast: what a network reads.

    >>> y, t, s = torch.zeros(5, 1, 4, 2), torch.zeros(3, 1, 1), torch.zeros(4, 1)
    >>> joined(y, t, s).shape
    torch.Size([5, 3, 4, 4])
    """
    lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], dim=-1)


class IntegralOperator(nn.Module):
    """T(y)(t) = h(y(t), t) + int G(y(s), t, s) ds over [low, high] (Fredholm) or [low, t] (Volterra).

    kernel: G, called once with y (B, 1, S, d), t (T, 1, 1) and s (S, 1), which broadcast; gives what broadcasts to
    (B, T, S, d). local: h, called with y (B, T, d) and t (T, 1). y, result: (B, n, d), values at the nodes of the rule.
    Raises ValueError where a kernel gives another shape.
    """

    def __init__(self, kernel: Kernel, *, volterra: bool = False, local: Local | None = None):
        super().__init__()
        self.kernel, self.local, self.volterra = kernel, local, volterra

    def extra_repr(self) -> str:
        return f"volterra={self.volterra}"

    def table(self, rule: Quadrature) -> Tensor:  # (n, n)
        """W with int G(y(s), t_i, s) ds = sum_j W_ij G(y_j, t_i, s_j)."""
        return rule.cumulative if self.volterra else rule.weights.expand(len(rule), -1)

    def forward(self, y: Tensor, rule: Quadrature) -> Tensor:
        t = rule.nodes
        G = self.kernel(y[:, None], t[:, None, None], t[:, None])
        found = torch.einsum("ts,btsd->btd", self.table(rule), shaped("kernel", G, y))
        return found if self.local is None else found + self.local(y, t[:, None])


class MemoryOperator(nn.Module):
    """T(y)(t) = int_low^t [c(tau, y) + d(tau, y) int_low^tau K(tau, s) F(y(s)) ds] dtau

    c, d: called with t (T, 1) and y (B, T, k), give what broadcasts to (B, T, k); without d there is no memory, and c
    gives (B, T, k) itself. K:
    called with t (T, 1, 1) and s (S, 1), gives (T, S, 1) or (T, S, k), a number or one a component, or (T, S, k, k),
    matrices. F: from (B, S, k) to (B, S, k), the identity by default. y, result: (B, n, k), values at the nodes of the
    rule. Raises ValueError for d without K, and for shapes other than these.
    """

    def __init__(
        self,
        c: Local,
        d: Local | None = None,
        K: Callable[[Tensor, Tensor], Tensor] | None = None,
        F: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        if (d is None) != (K is None):
            raise ValueError(f"d and K must be given together, got d={d!r} and K={K!r}")
        self.c, self.d, self.K, self.F = c, d, K, F

    def slope(self, y: Tensor, rule: Quadrature) -> Tensor:  # (B, n, k)
        """dy/dt at the nodes."""
        t = rule.nodes[:, None]
        found = self.c(t, y)
        return found if self.d is None else found + self.d(t, y) * self.memory(y, rule)

    def memory(self, y: Tensor, rule: Quadrature) -> Tensor:  # (B, n, k)
        """int_low^t K(t, s) F(y(s)) ds at the nodes."""
        assert self.K is not None
        t, width = rule.nodes, y.shape[-1]
        F, K = y if self.F is None else self.F(y), self.K(t[:, None, None], t[:, None])
        if F.shape != y.shape:
            raise ValueError(f"F must give the shape of y, {tuple(y.shape)}, got {tuple(F.shape)}")
        allowed = [(len(t), len(t), *tail) for tail in ((1,), (width,), (width, width))]
        if tuple(K.shape) not in allowed:
            raise ValueError(f"K must give one of the shapes {allowed}, got {tuple(K.shape)}")
        if K.ndim == 4:
            return torch.einsum("ts,tskl,bsl->btk", rule.cumulative, K, F)
        return torch.einsum("tsk,bsk->btk", rule.cumulative[:, :, None] * K.expand(-1, -1, width), F)

    def forward(self, y: Tensor, rule: Quadrature) -> Tensor:
        slope = self.slope(y, rule)
        if slope.shape != y.shape:
            raise ValueError(f"c and d must give the shape of y, {tuple(y.shape)}, got {tuple(slope.shape)}")
        return rule.integrals(slope)


def shaped(name: str, G: Tensor, y: Tensor) -> Tensor:  # (B, T, S, d)
    """G broadcast to all rows, times and nodes."""
    wanted = (len(y), y.shape[1], *y.shape[1:])
    try:
        return G.expand(wanted)
    except RuntimeError:
        raise ValueError(f"{name} must give what broadcasts to {wanted}, got {tuple(G.shape)}") from None
