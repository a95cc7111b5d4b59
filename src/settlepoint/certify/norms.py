"""Upper bounds on norms of matrices, of nonnegative sparse matrices and of convolutions, rounded up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from settlepoint.certify.certificate import Refused

_EPS = torch.finfo(torch.float64).eps
_DENSE = 300  # rows up to which eigenvectors are computed
_GRID = 32  # frequencies a dimension, at least 8 a tap


def spectral_norm(matrix: Tensor) -> float:
    """||A||_2 of a matrix, rounded up: the largest singular value in float64 times 1 + 4 n eps."""
    exact = finite(matrix)
    return float(torch.linalg.matrix_norm(exact, ord=2)) * (1 + 4 * max(exact.shape) * _EPS) if exact.numel() else 0.0


def finite(weight: Tensor) -> Tensor:
    """weight in float64 without a graph; raises `Refused` when an entry is not finite."""
    exact = weight.detach().double()
    if not bool(torch.isfinite(exact).all()):
        raise Refused("a weight is not finite")
    return exact


def nonnegative_norm(matrix: sparse.spmatrix, steps: int = 60) -> float:
    """||A||_2 from above: the square root of a Collatz-Wielandt bound for |A|^T |A|.

    For a nonnegative B and any v > 0 the spectral radius is at most max_i (B v)_i / v_i; v comes from power iteration,
    so that the bound is close, and is a bound whatever v is. Signs of A are dropped, which only enlarges.
    """
    A = abs(sparse.csr_matrix(matrix, dtype=np.float64))
    if not np.isfinite(A.data).all():
        raise Refused("a weight is not finite")
    scale = float(A.data.max(initial=0.0))
    if not scale:
        return 0.0
    A = A / scale
    v, least = np.ones(A.shape[1]), math.inf
    for _ in range(steps):
        image = A.T @ (A @ v)
        least = min(least, float((image / v).max()))
        v = image / image.max() + 1e-9  # positive, whatever the graph
    return scale * math.sqrt(least) * (1 + 4 * A.shape[1] * _EPS)


def row_sum(matrix: sparse.spmatrix) -> float:
    """max_i sum_j |A_ij|, the norm in the sup norm."""
    A = abs(sparse.csr_matrix(matrix, dtype=np.float64))
    return float(np.asarray(A.sum(1)).max(initial=0.0)) * (1 + 4 * max(1, A.shape[1]) * _EPS)


def perron_bound(table: Tensor, steps: int = 200) -> tuple[float, Tensor]:
    """The Perron root of a nonnegative matrix (W, W) from above, and v > 0 with N v <= root v  (Collatz-Wielandt)."""
    if not bool((table >= 0).all()):
        raise ValueError(f"table must be nonnegative, got a smallest entry of {float(table.min())}")
    least, best = math.inf, table.new_ones(len(table))
    for v in _candidates(table, steps):
        bound = float((table @ v / v).max()) if len(v) else 0.0
        if bound < least:
            least, best = bound, v
    return least * (1 + 4 * len(table) * _EPS), best


def _candidates(table: Tensor, steps: int) -> Iterator[Tensor]:
    """Positive vectors near the Perron vector: by iteration with a shift, which cycles do not stop, and by eig."""
    v = table.new_ones(len(table))
    shift = table.sum(1).mean() if len(table) else 0.0
    for _ in range(steps):
        yield v
        v = table @ v + shift * v
        v = v / v.max().clamp(min=1e-300) + 1e-12
    if 0 < len(table) <= _DENSE:
        values, vectors = torch.linalg.eig(table)
        v = vectors[:, values.real.argmax()].abs()
        yield from (v / v.max() + tiny for tiny in (1e-3, 1e-6, 1e-9, 1e-12))
        yield from _resolvents(table, float(values.abs().max()))


def _resolvents(table: Tensor, root: float) -> Iterator[Tensor]:
    """v = (I - N / r)^{-1} 1 with r a little above the root, so that N v = r (v - 1): close where N is triangular."""
    one = table.new_ones(len(table), 1)
    for above in (1e-6, 1e-3, 1e-2, 1e-1) if root else ():
        v = torch.linalg.solve_ex(torch.eye(len(table)).to(table) - table / (root * (1 + above)), one)[0][:, 0]
        yield torch.where((v > 0) & torch.isfinite(v), v, 1.0)


def convolution_norm(weight: Tensor, groups: int = 1) -> float:
    """An upper bound of ||K||_2 for the convolution by weight (out, in / groups, k_1, ..., k_d), zeros outside.

    sup over all frequencies of ||K^(w)||_2 bounds it for every size of image, stride and dilation, with zero or
    circular padding; not the norm of the flattened kernel, which is no bound. From a grid of N frequencies a
    dimension: a trigonometric polynomial of degree n has sup |p| <= max over the grid / cos(pi n / N).
    """
    kernel = finite(weight)
    taps = kernel.shape[2:]
    sizes = [max(_GRID, 8 * k) if k > 1 else 1 for k in taps]
    factor = math.prod(1 / math.cos(math.pi * (k // 2) / n) for k, n in zip(taps, sizes, strict=True))
    return max(_symbol(part, sizes) for part in kernel.chunk(groups)) * factor * (1 + 1e-12)


def _symbol(kernel: Tensor, sizes: list[int]) -> float:
    """max over the grid of the spectral norm of the symbol (out, in)."""
    symbol = torch.fft.fftn(kernel, s=sizes, dim=tuple(range(2, kernel.ndim)))
    return float(torch.linalg.matrix_norm(symbol.movedim((0, 1), (-2, -1)), ord=2).max())


def padded_norm(weight: Tensor, groups: int, mode: str, padding: tuple[int, ...], taps: tuple[int, ...]) -> float:
    """`convolution_norm` times what the padding of a convolution repeats: zeros nothing.

    taps: dilation (k - 1), a dimension. Circular padding repeats nothing where the output is no larger than the input,
    else every entry once at most; reflection two times at most; replication p times an entry of the border.
    """
    norm = convolution_norm(weight, groups)
    if mode == "zeros":
        return norm
    same = all(2 * p <= t for p, t in zip(padding, taps, strict=True))
    copies = {"circular": [1 if same else 2] * len(padding), "reflect": [3 if p else 1 for p in padding]}
    return norm * math.sqrt(math.prod(copies.get(mode, [1 + p for p in padding])))
