"""Making it so by construction: operators that contract whatever their weights are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from settlepoint.certify.projection import size_of, weights_of


class Bounded(nn.Module):
    """W -> W min(1, rate / ||W||), differentiable: a parametrisation under which the operator of W has norm <= rate.

    layer: whose weight it is. ||W||_2 of a matrix by SVD; of a convolution the bound of the operator with its padding,
    taken as a constant in the gradient.
    """

    def __init__(self, rate: float, layer: nn.Module):
        super().__init__()
        self.rate, self._layer = rate, (layer,)  # in a tuple: the layer holds this module, not the other way round

    def extra_repr(self) -> str:
        return f"rate={self.rate}"

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 2:
            size = torch.linalg.matrix_norm(weight, ord=2) * (1 + 4 * max(weight.shape) * torch.finfo(weight.dtype).eps)
            return weight * (self.rate / size).clamp(max=1.0)
        size = size_of(weight, self._layer[0]) * (1 + 4 * torch.finfo(weight.dtype).eps)
        return weight * min(1.0, self.rate / size) if size else weight


def contractive(module: nn.Module, rate: float) -> nn.Module:
    """module with every matrix and convolution parametrised to norm <= rate in place; the module itself is returned.

    Training then moves free weights, and the operator keeps its bound at every step: no projection, no penalty.
    `lipschitz_upper` sees it, and so does every certificate:

        layer = sp.FixedPoint(certify.contractive(Cell(), 0.9), inject="input")

    With several layers in a chain of 1-Lipschitz activations the bound is rate^n. `Blend` adds the input in a way that
    contracts too. Raises ValueError unless 0 < rate.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"rate must be a finite number > 0, got {rate}")
    for part, name, _ in list(weights_of(module)):
        if not parametrize.is_parametrized(part, name):
            parametrize.register_parametrization(part, name, Bounded(rate, part))
    return module


class Blend(nn.Module):
    """T(x, u) = (1 - share) block(x) + share u: contracts by 1 - share where block does not expand.

    x, u, result: one shape. What PIGN does with a graph convolution (`layers.Propagation`), for any block.
    """

    def __init__(self, block: nn.Module, share: float = 0.1):
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share must lie in (0, 1), got {share}")
        self.block, self.share = block, share

    def extra_repr(self) -> str:
        return f"share={self.share}"

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.lerp(self.block(x), u, self.share)
