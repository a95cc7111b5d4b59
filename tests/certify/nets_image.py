"""Pieces on signals (R, C, L) and images (R, C, H, W)."""

from __future__ import annotations

import torch.nn.functional as F
from tests.certify.nets import Draw, Function, Net, chained
from tests.certify.nets_vector import SIMPLE
from torch import Tensor, nn

CONV = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d)}
POOL = {1: (F.avg_pool1d, F.max_pool1d, F.adaptive_avg_pool1d), 2: (F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d)}
NORM = {1: (nn.BatchNorm1d, nn.InstanceNorm1d), 2: (nn.BatchNorm2d, nn.InstanceNorm2d)}


def convolution(draw: Draw, shape: tuple[int, ...]) -> Function:
    """Every padding, stride, dilation and number of groups that torch has."""
    channels, size, kernel = shape[0], min(shape[1:]), draw.integer(1, 3)
    groups = draw.pick([g for g in (1, 2) if channels % g == 0])
    out, dilation = groups * draw.integer(1, 2), draw.integer(1, 2)
    mode = draw.pick(("zeros", "circular", "reflect", "replicate"))
    needed = dilation * (kernel - 1) + 1
    padding = min(draw.integer(0, 2), size - 1) if mode != "zeros" else draw.integer(0, 2)
    if size + 2 * padding < needed:
        padding, mode = needed, "zeros"
    return draw.filled(
        CONV[len(shape) - 1][0](
            channels, out, kernel, stride=draw.integer(1, 2), padding=padding, dilation=dilation, groups=groups,
            padding_mode=mode,
        )
    )  # fmt: skip


def transposed(draw: Draw, shape: tuple[int, ...]) -> Function:
    groups = draw.pick([g for g in (1, 2) if shape[0] % g == 0])
    stride = draw.integer(1, 2)
    return draw.filled(
        CONV[len(shape) - 1][1](
            shape[0], groups * draw.integer(1, 2), draw.integer(1, 3), stride=stride, groups=groups,
            output_padding=draw.integer(0, stride - 1),
        )
    )  # fmt: skip


def pooled(draw: Draw, shape: tuple[int, ...]) -> Function:
    average, largest, adaptive = POOL[len(shape) - 1]
    kernel, stride, out = draw.integer(1, min(shape[1:])), draw.integer(1, 2), draw.integer(1, 5)
    ways = (
        lambda x: average(x, kernel, stride),
        lambda x: average(x, kernel, stride=1, padding=kernel // 2),
        lambda x: largest(x, kernel, stride),
        lambda x: largest(x, kernel, stride=1, padding=kernel // 2),
        lambda x: adaptive(x, out),
    )
    return draw.pick(ways)


def normalised(draw: Draw, shape: tuple[int, ...]) -> Function:
    batch, instance = NORM[len(shape) - 1]
    ways = [
        nn.GroupNorm(draw.pick([g for g in (1, 2) if shape[0] % g == 0]), shape[0], eps=1e-2),
        nn.LayerNorm(list(shape[1:]), eps=1e-2),
        nn.LayerNorm(list(shape), eps=1e-1),
        nn.RMSNorm(shape[-1], eps=1e-2),
        batch(shape[0]),
    ]
    if max(shape[1:]) > 1:
        ways.append(instance(shape[0], affine=True, eps=1e-2))
    return draw.filled(draw.pick(ways))


def other(draw: Draw, shape: tuple[int, ...]) -> Function:
    c = draw.scaled(shape[0], *(1,) * (len(shape) - 1))
    ways = (
        lambda x: x * c,
        lambda x: x + c * x.mean((1, 2), keepdim=True),
        lambda x: x.flip(-1).roll(1, 2),
        lambda x: x.transpose(-1, -2) if x.ndim > 3 and x.shape[-1] == x.shape[-2] else -x,
        lambda x: F.pad(x, (1, 1), mode="circular" if x.ndim == 3 else "constant"),
        lambda x: x - x.amax(1, keepdim=True),
        lambda x: F.softmax(x, dim=1),
    )
    return draw.pick(ways)


def activation(draw: Draw, shape: tuple[int, ...]) -> Function:
    return SIMPLE[draw.pick(tuple(SIMPLE))]


PIECES = (convolution, convolution, transposed, pooled, normalised, activation, other)


def image_net(draw: Draw) -> Net:
    """1 to 4 pieces on two states of 1 or 2 channels of 2 to 4 places a side."""
    dims = draw.integer(1, 2)
    shape = (draw.integer(1, 2), *(draw.integer(2, 3 if dims == 2 else 4),) * dims)
    x = draw.normal(2, *shape) * draw.pick((0.0, 0.1, 1.0, 3.0))
    names, functions, y = [], [], x
    for _ in range(draw.integer(1, 4)):
        piece = draw.pick(PIECES)
        f = piece(draw, _row(y))
        names.append(piece.__name__ if not isinstance(f, nn.Module) else str(f))
        functions.append(f)
        y = f(y)
        if y[0].numel() > 30:
            break
    return Net(tuple(names), chained(functions), x, radii=draw.balls())


def _row(y: Tensor) -> tuple[int, ...]:
    return tuple(y.shape[1:])
