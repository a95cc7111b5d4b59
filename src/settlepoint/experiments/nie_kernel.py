"""A kernel learned from solutions: y = f + int_0^1 G(y(s), t, s) ds with G unknown, y known for many f."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from settlepoint import Anderson, Implicit, Tolerance
from settlepoint.experiments.integral_fit import TRAINED, fit
from settlepoint.layers import IntegralOperator, Quadrature, joined
from settlepoint.models import NIE

SERVED = Tolerance(0.0, 1e-9, max_steps=200, growth=1e6)


class Samples(NamedTuple):
    """Right-hand sides and solutions at the nodes, (B, n, 1) each."""

    f: Tensor
    y: Tensor


def truth(y: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """G = exp(-4 (t - s)^2) tanh y: |G_y| <= 1, so that the sup norm contracts by 3/4 at most."""
    return torch.exp(-4 * (t - s).square()) * torch.tanh(y)


def samples(count: int, rule: Quadrature, draw: torch.Generator, finer: Quadrature) -> Samples:
    """f = a + b sin(2 pi t + p) + c sin(4 pi t + q) with normal a, b, c; y on a finer rule, then at the nodes."""
    a, b, c = torch.randn(3, count, 1, 1, generator=draw, dtype=torch.float64)
    p, q = 2 * torch.pi * torch.rand(2, count, 1, 1, generator=draw, dtype=torch.float64)
    f = lambda t: a + b * torch.sin(2 * torch.pi * t + p) + c / 2 * torch.sin(4 * torch.pi * t + q)  # noqa: E731
    with torch.no_grad():
        y = NIE(IntegralOperator(truth), finer, solver=Anderson(5), stop=Tolerance(1e-12))(f, times=rule.nodes)
    return Samples(f(rule.nodes[:, None]), y)


class Network(nn.Module):
    """G(y, t, s) = N(y, t, s) - N(0, t, s), two hidden layers of tanh.

    G(0, t, s) = 0 is not a restriction but a choice among equals: solutions tell nothing of a g(t, s) without integral.
    """

    def __init__(self, hidden: int):
        super().__init__()
        layers = (nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.net = nn.Sequential(*layers)

    def forward(self, y: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return self.net(joined(y, t, s)) - self.net(joined(torch.zeros_like(y[:1]), t, s))


def learned(model: NIE, train: Samples, phases: tuple[int, int], batch: int, lr: float, draw: torch.Generator) -> float:
    """First the equation is met at the known solutions, then its settled solution is brought to them.

    The first loss is ||f + T(y) - y||^2, one evaluation a step; the second ||y_settled - y||^2, with the gradient of
    the solution.
    """
    rule = model.rule.held().to(train.y)
    share = train.y.square().mean()

    def met(rows: Tensor) -> Tensor:
        f, y = train.f[rows], train.y[rows]
        return (f + model.operator(y, rule) - y).square().mean() / share

    def settled(rows: Tensor) -> Tensor:
        return (model(train.f[rows]) - train.y[rows]).square().mean() / share

    model.settle.stop, model.settle.adjoint = TRAINED, Implicit(order=1)
    each = zip(phases, (met, settled), (lr, lr / 10), strict=True)
    seconds = sum(fit(loss, model, len(train.y), steps=n, batch=batch, lr=rate, draw=draw) for n, loss, rate in each)
    model.settle.stop, model.settle.adjoint = SERVED, None
    return seconds


@torch.no_grad()
def kernel_error(kernel: Callable, test: Samples, rule: Quadrature) -> float:
    """100 ||G - G_true|| / ||G_true|| at all (t, s) and all values that the solutions take at s."""
    y, t, s = test.y[:, None], rule.nodes[:, None, None], rule.nodes[:, None]
    true = truth(y, t, s)
    return 100 * float((kernel(y, t, s) - true).norm() / true.norm())


def linear_kernel(train: Samples, test: Samples, ridge: float = 1e-6) -> Tensor:
    """The control: y = f + M y with the matrix M of least squares, solved for the held-out f."""
    y, gap = train.y[..., 0], (train.y - train.f)[..., 0]
    gram = y.T @ y
    M = torch.linalg.solve(gram + ridge * gram.trace() * torch.eye(len(gram)).to(gram), y.T @ gap).T
    return torch.linalg.solve(torch.eye(len(M)).to(M) - M, test.f[..., 0].T).T[..., None]
