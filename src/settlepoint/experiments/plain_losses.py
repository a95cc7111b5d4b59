"""The losses of the R2N2 paper as a user would write them by hand, and Adam on them: the peer of our trainers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.problems import Batch, Chandrasekhar, LinearFamily, VanDerPol

Loss = Callable[[Tensor], Tensor]  # theta (p,) -> the loss
Field = Callable[[Tensor], Tensor]


def steps(f: Field, x: Tensor, theta: Tensor, stages: int, count: int, h: Tensor | None = None) -> list[Tensor]:
    """x_1, f(x_1), x_2, f(x_2), ... of so many R2N2 iterations, the last f left out; theta packed as in R2N2."""
    rows = [row.unbind() for row in theta.split([*range(1, stages), stages])]
    found = []
    v0 = f(x)
    for k in range(count):
        v = [v0]
        for row in rows[:-1]:
            v.append(f(_moved(x, v, row, h)))
        x = _moved(x, v, rows[-1], h)
        found.append(x)
        if k + 1 < count:
            v0 = f(x)
            found.append(v0)
    return found


def _moved(x: Tensor, vectors: list[Tensor], weights: Sequence[Tensor], h: Tensor | None) -> Tensor:
    """x + h sum weights vectors, one fused operation a term."""
    if h is None:
        for w, v in zip(weights, vectors, strict=True):
            x = torch.addcmul(x, w, v)
        return x
    d = weights[0] * vectors[0]
    for w, v in zip(weights[1:], vectors[1:], strict=True):
        d = torch.addcmul(d, w, v)
    return torch.addcmul(x, h, d)


def linear(batch: Batch, iterations: int = 3, stages: int = 4) -> Loss:
    """sum_k 4^k mean |b - A x_k|^2 for LinearFamily()."""
    A, b = LinearFamily().dense, batch.parameters["b"]
    f = lambda x: b - x @ A.T  # noqa: E731

    def loss(theta: Tensor) -> Tensor:
        found = steps(f, batch.x0, theta, stages, iterations)
        residuals = [*found[1::2], f(found[-1])]
        return sum(4.0**k * r.square().sum() for k, r in enumerate(residuals, 1)) / len(b)  # type: ignore[return-value]

    return loss


def chandrasekhar(batch: Batch, iterations: int = 2, stages: int = 3) -> Loss:
    """The same for Chandrasekhar(): one group of rows a size, without padding."""
    groups = []
    for m in Chandrasekhar().sizes:
        rows = batch.parameters["m"] == m
        mu = (torch.arange(m, dtype=torch.float64) + 0.5) / m
        kernel = (mu[:, None] / (2 * m * (mu[:, None] + mu))).T.contiguous()
        groups.append((batch.x0[rows, :m], batch.parameters["c"][rows, None], kernel))

    def loss(theta: Tensor) -> Tensor:
        total = theta.new_zeros(())
        for x0, c, kernel in groups:
            f = lambda x, c=c, kernel=kernel: 1 / (1 - c * (x @ kernel)) - x  # noqa: E731
            found = steps(f, x0, theta, stages, iterations)
            residuals = [*found[1::2], f(found[-1])]
            total = total + sum(4.0**k * r.square().sum() for k, r in enumerate(residuals, 1))
        return total / len(batch)

    return loss


def van_der_pol(batch: Batch, stages: int = 3) -> Loss:
    """mean |x_1 - x*|^2 / h^n for VanDerPol()."""
    assert batch.h is not None
    exact, a, h = VanDerPol().reference(batch), batch.parameters["a"], batch.h[:, None]
    scale = 1 / (len(batch) * h**stages)

    def f(x: Tensor) -> Tensor:
        x1, x2 = x[:, 0], x[:, 1]
        return torch.stack((x2, a * (1 - x1 * x1) * x2 - x1), 1)

    def loss(theta: Tensor) -> Tensor:
        return ((steps(f, batch.x0, theta, stages, 1, h)[-1] - exact).square() * scale).sum()

    return loss


@dataclass(frozen=True)
class Trained:
    """seconds: CPU seconds of the run. loss: the lowest seen."""

    seconds: float
    loss: float


def adam(loss: Loss, theta: Tensor, epochs: int, rate: float = 1e-3) -> Trained:
    """torch.optim.Adam on one start, with nothing in the loop but what is needed."""
    theta = theta.clone().requires_grad_()
    rule = torch.optim.Adam([theta], lr=rate, foreach=False)
    least = torch.tensor(torch.inf, dtype=theta.dtype)
    begin = time.process_time()
    for _ in range(epochs):
        rule.zero_grad()
        value = loss(theta)
        value.backward()
        rule.step()
        least = torch.minimum(least, value.detach())
    return Trained(time.process_time() - begin, float(least))
