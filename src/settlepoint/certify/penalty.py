"""Making it likely: the norm of the Jacobian as a term of a loss  (Operator Learning Meets Numerical Analysis, A.2)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from settlepoint.certify.jacobian import unfused
from settlepoint.equation import Equation
from settlepoint.spaces import State


def jacobian_penalty(
    eq: Equation,
    x: State,
    *,
    kind: Literal["hutchinson", "power"] = "hutchinson",
    samples: int = 1,
    target: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mean over rows of max(0, s - target)^2, s a size of the Jacobian of P at x; differentiable in the weights.

    "hutchinson": s^2 = ||J||_F^2 / W, without bias from ||J^T v||^2 / W for `samples` random v of unit variance, where
    target is 0 (Bai, Koltun and Kolter 2021). "power": s = ||J v||, v from `samples` steps of power iteration on J^T J:
    from below, the largest singular value. x is taken as it is, without a graph: give the fixed point.

        loss = task(y) + 0.1 * certify.jacobian_penalty(eq, z.detach())
    """
    if kind not in ("hutchinson", "power"):
        raise ValueError(f"kind must be 'hutchinson' or 'power', got {kind!r}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be an integer >= 1, got {samples!r}")
    if not (math.isfinite(target) and target >= 0):
        raise ValueError(f"target must be a finite number >= 0, got {target}")
    bound = eq.at(x)
    assert bound.layout is not None
    with unfused():
        z = bound.layout.flatten(x).detach().requires_grad_()
        image = bound.flat(z)
        size = (
            _hutchinson(z, image, samples, generator)
            if kind == "hutchinson"
            else _power(bound, z, image, samples, generator)
        )
        return (size - target).clamp(min=0).square().mean() if kind == "power" or target else size.square().mean()


def _noise(z: Tensor, generator: torch.Generator | None) -> Tensor:
    home = "cpu" if generator is None else generator.device
    return torch.randn(z.shape, dtype=z.dtype, device=home, generator=generator).to(z.device)


def _pulled(image: Tensor, z: Tensor, v: Tensor, *, graph: bool) -> Tensor:
    if not image.requires_grad:
        return torch.zeros_like(z)
    (g,) = torch.autograd.grad(image, z, v, create_graph=graph, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if g is None else g


def _hutchinson(z: Tensor, image: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:  # (R,)
    """(sum_s ||J^T v_s||^2 / (S W))^{1/2}, smooth at 0."""
    squares = [_pulled(image, z, _noise(z, generator), graph=True).square().sum(1) for _ in range(samples)]
    mean = torch.stack(squares).mean(0) / max(1, z.shape[1])
    return (mean + torch.finfo(z.dtype).tiny).sqrt()


def _power(eq: Equation, z: Tensor, image: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:  # (R,)
    """||J^T v|| with v near the first left singular vector."""
    v = _noise(z, generator)
    for _ in range(samples):
        v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        pulled = _pulled(image, z, v, graph=False)
        v = torch.func.jvp(eq.flat, (z.detach(),), (pulled,))[1].detach()
    v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
    return torch.linalg.vector_norm(_pulled(image, z, v, graph=True), dim=1)
