"""Rules for linear maps: matrices, convolutions, pooling, sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from settlepoint.certify.bound import Bound
from settlepoint.certify.certificate import Refused
from settlepoint.certify.mixing import multiplied
from settlepoint.certify.norms import convolution_norm, finite, spectral_norm
from settlepoint.certify.traced import Traced, bound_of, plain, rule

_UP = 1 + 1e-12


def through(b: Bound, matrix: Tensor, along_last: bool) -> Bound:
    """Behind A (out, in), applied along the last dimension, or along another one."""
    A = finite(matrix)
    if not A.numel():
        return b.linear(0.0, 0.0, 0.0, 0.0)
    two, sup = spectral_norm(A), float(A.abs().sum(1).max()) * _UP
    rows = float(torch.linalg.vector_norm(A, dim=1).max()) * _UP
    table = A.abs() @ b.table * _UP if along_last and b.table is not None else None
    return b.linear(two, two if along_last else sup, sup, rows, table)


@rule(F.linear)
def _(y: Tensor, x: Any, weight: Any, bias: Tensor | None = None) -> Bound:
    if bound_of(weight) is not None or bound_of(bias) is not None:
        raise Refused("a layer whose weights depend on the state has no bound here; write it as a matrix product")
    return through(x.bound, plain(weight), along_last=True)


@rule(torch.addmm, Tensor.addmm)
def _(y: Tensor, bias: Any, x: Any, weight: Any, *, beta: float = 1.0, alpha: float = 1.0) -> Any:
    return (x @ weight) * alpha + bias * beta


@rule(torch.baddbmm)
def _(y: Tensor, bias: Any, x: Any, weight: Any, *, beta: float = 1.0, alpha: float = 1.0) -> Any:
    return (x @ weight) * alpha + (bias * beta if beta else 0.0)


def right_product(x: Traced, matrix: Tensor, y: Tensor) -> Bound:
    """x @ A for a constant A."""
    if matrix.ndim == 2 and x.ndim > 1:
        return through(x.bound, matrix.T, along_last=True)
    if matrix.ndim == 1 or x.ndim == 1:
        if matrix.ndim > 2:
            raise Refused("a vector times a stack of matrices has no bound here")
        b = x.bound if x.ndim > 1 else x.bound.collapsed()
        return through(b, matrix.reshape(len(matrix), -1).T, along_last=True).without_node()
    return _stacked(x.bound, matrix, _copies(x, y), along_last=True)


def left_product(matrix: Tensor, x: Traced, y: Tensor) -> Bound:
    """A @ x for a constant A, dense or sparse: along the last dimension but one."""
    if matrix.layout != torch.strided:
        return multiplied(matrix, x)
    if x.ndim == 1:
        if matrix.ndim > 2:
            raise Refused("a stack of matrices times a vector has no bound here")
        flat = matrix.reshape(-1, matrix.shape[-1])
        return through(x.bound.collapsed(), flat, along_last=True).without_node()
    if matrix.ndim == 1:
        return through(x.bound.collapsed(), matrix[None], along_last=False).without_node()
    if matrix.ndim == 2:
        b = x.bound if x.ndim > 2 else x.bound.collapsed()  # of (R, W) the rows themselves are mixed
        return through(b, matrix, along_last=False)
    return _stacked(x.bound, matrix, _copies(x, y), along_last=False)


def _copies(x: Traced, y: Tensor) -> float:
    """How often x is repeated to meet a stack of matrices."""
    return math.prod(y.shape[:-2]) / max(1, math.prod(plain(x).shape[:-2]))


def _stacked(b: Bound, matrices: Tensor, copies: float, along_last: bool) -> Bound:
    """A matrix for every leading entry."""
    A, b = finite(matrices).flatten(0, -3), b.collapsed()
    if not A.numel():
        return b.linear(0.0, 0.0, 0.0, 0.0)
    norm = float(torch.linalg.matrix_norm(A, ord=2).max()) * (1 + 1e-12 * max(A.shape[1:]))
    across = float(A.abs().sum(-2 if along_last else -1).max()) * _UP
    return b.linear(norm * math.sqrt(copies), norm if along_last else across, across, norm * _UP)


@rule(torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d)
def _(
    y: Tensor, x: Any, weight: Any, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Bound:  # fmt: skip
    if bound_of(weight) is not None:
        raise Refused("a convolution whose kernel depends on the state has no bound here")
    kernel = finite(plain(weight))
    two, sup = convolution_norm(kernel, groups), float(kernel.abs().flatten(1).sum(1).max()) * _UP
    rows = float(torch.linalg.vector_norm(kernel.flatten(1), dim=1).max()) * _UP
    found = x.bound.linear(two, torch.inf, sup, rows)
    if x.bound.wrapped is None:
        return found
    before, sizes = x.bound.wrapped
    if not _once_around(y, sizes, stride, padding):
        return found
    reach = [d * (k - 1) for d, k in zip(_each(dilation, len(sizes)), kernel.shape[2:], strict=True)]
    apart = all(r < size for r, size in zip(reach, sizes, strict=True))  # no two taps meet the same entry
    return before.linear(two, torch.inf, sup, rows if apart else two)  # part of a convolution on the torus


def _once_around(y: Tensor, sizes: tuple[int, ...], stride: Any, padding: Any) -> bool:
    """Whether no place of a torus of these sizes gives two entries of the result, and nothing else was padded."""
    steps = _each(stride, len(sizes))
    inside = all((n - 1) * s < size for n, s, size in zip(y.shape[-len(sizes) :], steps, sizes, strict=True))
    return inside and _each(padding, len(sizes)) == (0,) * len(sizes)


@rule(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
def _(
    y: Tensor, x: Any, weight: Any, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Bound:  # fmt: skip
    """The transpose of a convolution has its norm."""
    two = convolution_norm(plain(weight), groups)
    return x.bound.linear(two, torch.inf, torch.inf, two)


@rule(F.pad)
def _(y: Tensor, x: Traced, pad: Any, mode: str = "constant", value: float | None = None) -> Bound:
    """Zeros and constants add nothing; copies count as often as they are made."""
    if mode == "constant":
        return x.bound.uncapped().without_node()
    found = _positive(lambda v: F.pad(v, pad, mode), y, x)
    sizes = tuple(plain(x).shape[y.ndim - len(pad) // 2 :])
    return replace(found, wrapped=(x.bound.without_node(), sizes)) if mode == "circular" else found


def _positive(function: Callable[[Tensor], Tensor], y: Tensor, x: Traced) -> Bound:
    """A linear map with nonnegative weights: its norms are sums of them, ||A||_2^2 <= ||A||_1 ||A||_inf."""
    with torch.enable_grad():
        ones = torch.ones_like(plain(x)).requires_grad_()
        sums = function(ones)
        (columns,) = torch.autograd.grad(sums.sum(), ones)
    across, down = float(sums.detach().max()) * _UP, float(columns.max()) * _UP
    return x.bound.linear(math.sqrt(across * down), torch.inf, across, across)


_POOLS = (
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
)  # fmt: skip


def _pooled(function: Callable[..., Tensor]) -> Callable[..., Bound]:
    return lambda y, x, *args, **kwargs: _positive(lambda v: function(v, *args, **kwargs), y, x)


for _pool in _POOLS:
    rule(_pool)(_pooled(_pool))


@rule(F.interpolate)
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    mode = kwargs.get("mode", args[2] if len(args) > 2 else "nearest")
    if mode == "bicubic":
        raise Refused("bicubic interpolation has negative weights, for which no bound is known here")
    return _positive(lambda v: F.interpolate(v, *args, **kwargs), y, x)


def _largest(dims: int) -> Callable[..., Bound]:
    def largest(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
        """|max a - max b| <= max |a - b| in every window."""
        found = x.bound.linear(_overlap(dims, args, kwargs), torch.inf, 1.0, 1.0)
        return found.kept(bend=torch.full_like(found.bend, torch.inf))

    return largest


rule(F.max_pool1d, torch.max_pool1d)(_largest(1))
rule(F.max_pool2d, torch.max_pool2d)(_largest(2))
rule(F.max_pool3d, torch.max_pool3d)(_largest(3))


def _overlap(dims: int, args: tuple, kwargs: dict) -> float:
    """The square root of the number of windows that an entry can lie in: one for every tap at most."""
    given = dict(zip(("kernel_size", "stride", "padding", "dilation"), args, strict=False)) | kwargs
    size = _each(given["kernel_size"], dims)
    stride = _each(given.get("stride") or size, dims)
    if _each(given.get("dilation", 1), dims) != (1,) * dims:
        return math.sqrt(math.prod(size))
    return math.sqrt(math.prod(math.ceil(k / s) for k, s in zip(size, stride, strict=True)))


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * dims


def _gathered(mean: bool):
    def gathered(y: Tensor, x: Traced, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Bound:
        """n entries each: sqrt(n) in the 2-norm, n in the sup norm; a mean is an n-th of it."""
        count = plain(x).numel() / max(1, y.numel())
        share = 1 / count if mean and count else 1.0
        dims = range(x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
        b = x.bound.collapsed() if 0 in [d % x.ndim for d in dims] else x.bound
        return b.linear(math.sqrt(count) * share, torch.inf, count * share, math.sqrt(count) * share)

    return gathered


rule(torch.sum, Tensor.sum)(_gathered(mean=False))
rule(torch.mean, Tensor.mean)(_gathered(mean=True))


@rule(torch.amax, Tensor.amax, torch.amin, Tensor.amin)
def _(y: Tensor, x: Traced, dim: Any = None, keepdim: bool = False) -> Bound:
    """|max a - max b| <= max |a - b|."""
    found = x.bound.collapsed().linear(1.0, torch.inf, 1.0, 1.0)
    return found.kept(bend=torch.full_like(found.bend, torch.inf))
