"""Upper bounds on Lipschitz constants and on curvature, by structure: every number is a proof, never a sample."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from settlepoint.certify.certificate import Refused
from settlepoint.certify.following import refuse_training, traced
from settlepoint.certify.traced import Traced
from settlepoint.equation import Equation

NORMS = ("two", "node", "sup")


@dataclass(frozen=True)
class Region:
    """Where a bound is to hold: states with ||x||_2 <= radius, a whole row with all its tokens. tokens: in a row."""

    radius: float
    tokens: int = 1

    def __post_init__(self):
        if not (math.isfinite(self.radius) and self.radius > 0):
            raise ValueError(f"radius must be a finite number > 0, got {self.radius}")
        if isinstance(self.tokens, bool) or not isinstance(self.tokens, int) or self.tokens < 1:
            raise ValueError(f"tokens must be an integer >= 1, got {self.tokens!r}")


def lipschitz_upper(
    module: Callable, region: Region | None = None, *, example: tuple[Tensor, ...] | None = None, norm: str = "two"
) -> float:
    """L with ||T(x) - T(y)|| <= L ||x - y|| for all x, y, or all in the region: proved, from what T is made of.

    T is run once on a tensor that carries bounds through every torch function (see `certify.rule`): norms of matrices
    by SVD in float64, rounded up, of convolutions as operators with their padding; products over compositions, sums
    over branches, so that x + F(x) has 1 + L(F). Dropout and BatchNorm count as they are in evaluation, and refuse in
    training. Raises `Refused` with the reason where some step has no bound: soft-max attention and GAT without a
    region.

    example: (x, *context), whose values of context count and those of x do not; without it the shape is taken from the
    first layer, and a bound that depends on the context is refused. norm: "two", "sup" (largest entry), or "node" (the
    largest 2-norm of a node or token).

        >>> from torch import nn
        >>> from settlepoint import certify
        >>> layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        >>> _ = nn.init.orthogonal_(layer[0].weight, 0.5)
        >>> round(certify.lipschitz_upper(layer), 6)
        0.5
    """
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    found = float(getattr(_followed(module, region, example).bound, norm).max())
    if not math.isfinite(found):
        raise Refused(
            f"no bound in the norm {norm!r}{'' if region else ' on the whole space; give a region=Region(r)'}"
        )
    return found


def curvature_upper(
    module: Callable, region: Region | None = None, *, example: tuple[Tensor, ...] | None = None
) -> float:
    """K with ||T'(x) - T'(y)||_2 <= K ||x - y||_2 for all x, y, or all in the region: proved, as in `lipschitz_upper`.

    For a composition A o B: K_A L_B^2 + L_A K_B; for s(W x + b) by entries: sup |s''| max_i ||w_i|| ||W||. inf, which
    is refused, where the derivative jumps, as that of relu.
    """
    found = float(_followed(module, region, example).bound.bend.max())
    if not math.isfinite(found):
        raise Refused("the derivative jumps, or is unbounded on the whole space: it has a bound only near a point")
    return found


def _followed(module: Callable, region: Region | None, example: tuple[Tensor, ...] | None) -> Traced:
    if not callable(module):
        raise TypeError(f"module must be an nn.Module or a function, got {type(module).__name__}")
    if example is not None and not isinstance(example, tuple):
        raise TypeError(f"example must be a tuple (x, *context), got {type(example).__name__}")
    refuse_training(module)
    x, *context = example if example is not None else _guess(module, region)
    if region is not None:
        x = torch.zeros_like(x)
    operator: Callable = _self_attention(module) if isinstance(module, nn.MultiheadAttention) else module
    eq = Equation(operator, context=tuple(context))
    free = () if example is not None else tuple(range(len(context)))
    try:
        return traced(eq, x, math.inf if region is None else region.radius, free=free)
    except Refused as error:
        if example is not None or "cannot be followed" not in str(error):
            raise
        raise Refused(
            f"the module does not take a state of the guessed shape {tuple(x.shape)}; give example="
        ) from error


def _self_attention(module: nn.Module) -> Callable:
    return lambda x: module(x, x, x, need_weights=False)[0]


def _guess(module: Callable, region: Region | None) -> list[Tensor]:
    """A state for the first layer that says what it takes, and the same for other arguments."""
    tokens = () if region is None or region.tokens == 1 else (region.tokens,)
    layers = module.modules() if isinstance(module, nn.Module) else ()
    found = next((s for s in map(_input, layers) if s is not None), None)
    shape = (1, *tokens, *(found or (4,)))
    kind = next((p.dtype for p in module.parameters()), torch.float32) if isinstance(module, nn.Module) else None
    x = torch.zeros(shape, dtype=kind)
    return [x, *(torch.zeros_like(x) for _ in range(_arguments(module) - 1))]


def _input(layer: nn.Module) -> tuple[int, ...] | None:
    """The shape of a row that a layer takes, where it says."""
    match layer:
        case nn.Linear():
            return (layer.in_features,)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return (
                layer.in_channels,
                *(max(8, 2 * k * d) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)),
            )
        case nn.LayerNorm() | nn.RMSNorm():
            return tuple(layer.normalized_shape)
        case nn.BatchNorm1d():
            return (layer.num_features,)
        case nn.BatchNorm2d() | nn.BatchNorm3d():
            return (layer.num_features, *(4,) * (2 if isinstance(layer, nn.BatchNorm2d) else 3))
        case nn.MultiheadAttention():
            return (layer.embed_dim,)
    square = [p for p in layer.parameters(recurse=False) if p.ndim == 2]
    return (square[0].shape[1],) if square else None


def _arguments(module: Callable) -> int:
    """How many arguments must be given."""
    call = module.forward if isinstance(module, nn.Module) else module
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (
        1
        if isinstance(module, nn.MultiheadAttention)
        else max(1, sum(p.default is p.empty and p.kind in kinds for p in parameters))
    )
