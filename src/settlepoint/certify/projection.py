"""Making it true: weights put back to where their operator has a norm, in one call after a step of an optimiser."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from settlepoint.certify.norms import padded_norm, spectral_norm
from settlepoint.layers import clipped


@torch.no_grad()
def project_(module: nn.Module, target: float) -> nn.Module:
    """Every matrix and convolution in module changed in place so that its norm as an operator is at most target.

    Matrices (parameters of two dimensions): the nearest one in the Frobenius norm, by one SVD, norm <= target
    (1 + 1e-6), exact after one call. Convolutions: scaled by target over the bound of the operator with its padding,
    which is not that of the flattened kernel. A chain of n layers then has at most target^n. The module is returned:

        optimizer.step(); certify.project_(cell, 0.95)

    is one line of a training loop. Embeddings, normalisations and stacks of matrices are left alone. Raises ValueError
    unless target > 0.
    """
    if not (math.isfinite(target) and target > 0):
        raise ValueError(f"target must be a finite number > 0, got {target}")
    for part, _, weight in weights_of(module):
        weight.copy_(projected(weight, target, part))
    return module


def weights_of(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Every matrix and every kernel of a convolution, with its layer and name."""
    for part in module.modules():
        if isinstance(part, _NOT_LINEAR):
            continue
        convolution = isinstance(part, nn.modules.conv._ConvNd)
        for name, weight in list(part.named_parameters(recurse=False)):
            if weight.ndim == 2 or (convolution and weight.ndim > 2):
                yield part, name, weight


def size_of(weight: Tensor, part: nn.Module) -> float:
    """A bound on the norm of a layer with this weight, as an operator."""
    if not isinstance(part, nn.modules.conv._ConvNd):
        return spectral_norm(weight)
    pairs = zip(part.dilation, part.kernel_size, strict=True)
    padding = part.padding if not isinstance(part.padding, str) else (0,) * len(part.kernel_size)
    taps = tuple(d * (k - 1) for d, k in pairs)
    return padded_norm(weight, part.groups, part.padding_mode, tuple(int(p) for p in padding), taps)


_NOT_LINEAR = (
    nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase,
)  # fmt: skip


def projected(weight: Tensor, target: float, part: nn.Module) -> Tensor:
    """weight of a layer with operator norm at most target: a matrix clipped, a kernel scaled."""
    if weight.ndim == 2:
        return clipped(weight.double(), target).to(weight.dtype)
    size = size_of(weight, part)
    return weight if size <= target else weight * (target / size)
