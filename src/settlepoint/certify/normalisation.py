"""Rules for normalisations in evaluation: batch, layer, group and root-mean-square."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from settlepoint.certify.bound import Bound, times
from settlepoint.certify.certificate import Refused
from settlepoint.certify.norms import finite
from settlepoint.certify.traced import Traced, guard, plain, rule, spread


@guard(F.batch_norm)
def _(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, *args: Any, **kwargs: Any
) -> None:
    if training or var is None:
        raise Refused("BatchNorm mixes the rows of a batch in training; call .eval() on it first")


@rule(F.batch_norm)
def _(
    y: Tensor, x: Traced, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Bound:  # fmt: skip
    """max |gamma / sqrt(var + eps)|, in evaluation."""
    scale = (finite(running_var) + eps).rsqrt()
    scale = (scale if weight is None else finite(weight) * scale).abs()
    size = float(scale.max()) * (1 + 1e-14)
    table = x.bound.table
    return x.bound.linear(size, size, size, size, None if table is None else table * scale[:, None] * (1 + 1e-14))


def normalised(x: Traced, width: int, eps: float, centred: bool, gamma: Tensor | None) -> Bound:
    """Of gamma c / s with s = sqrt(|c|^2 / n + eps), c = x, or x less its mean, over the last n entries (merged).

    The Jacobian of c / s has norm at most 1 / s, and changes by at most 6 / (s^2 sqrt(n)) a unit: every part of the
    second derivative has norm at most 1 / (s^2 sqrt(n)), one of them three times. s is bounded from below by its value
    at the point less what the ball allows, and by sqrt(eps).
    """
    b, value = x.bound, plain(x).double()
    groups = value.reshape(*value.shape[:1], -1, width) if value.ndim > 1 else value.reshape(1, 1, width)
    spreads = groups.std(-1, correction=0) if centred else groups.square().mean(-1).sqrt()
    reach = spread(x.sway, spreads) / math.sqrt(width)
    least = ((spreads - reach).clamp(min=0) ** 2 + eps).rsqrt()
    inverse = (least.reshape(b.rows, -1) if b.rows > 1 else least.reshape(1, -1)).amax(1) * (1 + 1e-12)
    size = 1.0 if gamma is None else float(finite(gamma).abs().max()) * (1 + 1e-14)
    two = size * inverse
    bend = size * 6 * inverse**2 / math.sqrt(width)
    unknown = torch.full_like(b.two, torch.inf)
    return Bound(
        times(two, b.two),
        times(two, b.node) if width == x.shape[-1] else unknown,
        unknown,
        times(two, b.two),
        times(bend, times(b.two, b.two)) + times(two, b.bend),
        unknown,
        b.radius,
    )


@rule(F.layer_norm, torch.layer_norm)
def _(
    y: Tensor, x: Traced, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *args: Any
) -> Bound:
    return normalised(x, math.prod(normalized_shape), eps, True, weight)


@rule(F.group_norm, torch.group_norm)
def _(
    y: Tensor, x: Traced, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *args: Any
) -> Bound:
    return normalised(x, x[0].numel() // num_groups, eps, True, weight)


@guard(F.instance_norm)
def _(x: Any, mean: Any = None, var: Any = None, weight: Any = None, bias: Any = None, use_input_stats: bool = True,
      *args: Any, **kwargs: Any) -> None:  # fmt: skip
    if use_input_stats and mean is not None:
        raise Refused("InstanceNorm keeps running statistics in training; call .eval() on it first")


@rule(F.instance_norm)
def _(
    y: Tensor, x: Traced, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *args: Any,
) -> Bound:  # fmt: skip
    if not use_input_stats:
        raise Refused("InstanceNorm with running statistics has no bound here")
    return normalised(x, math.prod(x.shape[2:]), eps, True, weight)


@rule(F.rms_norm, torch.rms_norm)
def _(y: Tensor, x: Traced, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Bound:
    small = torch.finfo(plain(x).dtype).eps if eps is None else eps
    return normalised(x, math.prod(normalized_shape), small, False, weight)


@rule(F.normalize)
def _(y: Tensor, x: Traced, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Bound:
    raise Refused(
        "x / ||x|| is not Lipschitz at 0; leave the normalisation out of the operator, or add an eps (rms_norm)"
    )
