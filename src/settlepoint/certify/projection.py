"""Making it true: weights put back to where their operator has a norm, in one call after a step of an optimiser."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from settlepoint.certify.norms import convolution_norm
from settlepoint.layers import clipped

_SLACK = 1e-6


@torch.no_grad()
def project_(module: nn.Module, target: float) -> nn.Module:
    """Every matrix and convolution in module changed in place so that its norm as an operator is at most target.

    Matrices (parameters of two dimensions): the nearest one in the Frobenius norm, by one SVD; norm <= target (1 +
    1e-6), exact after one call. Convolutions: scaled by target over the bound of the operator with its padding, which
    is not that of the flattened kernel. A chain of n layers then has at most target^n. The module itself is returned,
    so that

        optimizer.step(); certify.project_(cell, 0.95)

    is one line of a training loop. Embeddings and normalisations are left alone. Raises ValueError unless target > 0.
    """
    if not (math.isfinite(target) and target > 0):
        raise ValueError(f"target must be a finite number > 0, got {target}")
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            continue
        groups = part.groups if isinstance(part, nn.modules.conv._ConvNd) else 1
        for weight in part.parameters(recurse=False):
            weight.copy_(projected(weight, target, groups))
    return module


def projected(weight: Tensor, target: float, groups: int = 1) -> Tensor:
    """weight with operator norm at most target: a matrix clipped, a kernel (out, in / groups, k, ...) scaled."""
    if weight.ndim == 2:
        return clipped(weight.double(), target).to(weight.dtype)
    if weight.ndim < 3:
        return weight
    size = convolution_norm(weight, groups)
    return weight if size <= target else weight * (target / size)
