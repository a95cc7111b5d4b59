"""Matrices over the nodes of a graph, kept until all linear steps of a message are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sparse
from torch import Tensor

from settlepoint.certify.bound import Bound, Mixing
from settlepoint.certify.norms import nonnegative_norm, row_sum
from settlepoint.certify.traced import Traced, plain


def mixed(matrix: sparse.spmatrix, before: Bound) -> Bound:
    """Behind y_i = sum_j A_ij z_j over the nodes: ||A||_2 in the 2-norm, row sums in the node and sup norms."""
    A, start = sparse.csr_matrix(matrix, dtype=np.float64), before
    two, sup = nonnegative_norm(A), row_sum(A)
    two = min(two, math.sqrt(sup * row_sum(A.T)))
    return start.linear(two, sup, sup, two).kept(mixing=(A, start))


def so_far(x: Traced) -> Mixing:
    """The matrix that has gathered up to here, and what it acts on; (N, h) has nodes where others have rows."""
    if x.bound.mixing is not None:
        return x.bound.mixing
    nodes = x.shape[-2] if x.ndim > 1 else len(x)
    return sparse.csr_matrix(sparse.identity(nodes)), x.bound if x.ndim > 2 else x.bound.collapsed()


def over_nodes(x: Traced, dim: int) -> bool:
    """Whether dim counts nodes: (N, h) and (N,), or (..., N, h)."""
    return dim % x.ndim == max(0, x.ndim - 2)


def multiplied(matrix: Tensor, x: Traced) -> Bound:
    """A @ x for a sparse A."""
    coo = matrix.to_sparse_coo().coalesce()
    index, values = coo.indices().cpu().numpy(), coo.values().detach().double().cpu().numpy()
    A = sparse.csr_matrix((values, (index[0], index[1])), shape=tuple(matrix.shape))
    before, start = so_far(x)
    return mixed(A @ before, start)


def weighted(x: Traced, c: Any, y: Tensor) -> Bound | None:
    """Messages times a number each: rows of the matrix that gathers; None for other products."""
    if x.bound.mixing is None or not isinstance(c, Tensor) or x.shape != y.shape:
        return None
    factors = per_node(plain(c).detach().double().expand(y.shape))
    if factors is None:
        return None
    matrix, start = x.bound.mixing
    return mixed(sparse.diags(factors.cpu().numpy()) @ matrix, start)


def per_node(values: Tensor) -> Tensor | None:
    """One value a node of a tensor (..., N, h) or (N,), where its other entries agree; else None."""
    if values.ndim == 1:
        return values
    flat = values.reshape(-1, *values.shape[-2:])
    one = flat[:1, :, :1]
    return one[0, :, 0] if flat.numel() and bool((flat == one).all()) else None
