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
    A = sparse.csr_matrix(matrix, dtype=np.float64)
    start = before.collapsed()
    two, sup = nonnegative_norm(A), row_sum(A)
    two = min(two, math.sqrt(sup * row_sum(A.T)))
    return start.linear(two, sup, sup, two).kept(mixing=(A, start))


def so_far(x: Traced) -> Mixing:
    """The matrix that has gathered up to here, and what it acts on."""
    if x.bound.mixing is not None:
        return x.bound.mixing
    nodes = x.shape[-2] if x.ndim > 1 else len(x)
    return sparse.csr_matrix(sparse.identity(nodes)), x.bound


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
    """Messages times a number each, (E, 1) or (E,): rows of the matrix that gathers; None for other products."""
    if x.bound.mixing is None or not isinstance(c, Tensor) or x.ndim > 2 or x.shape != y.shape:
        return None
    factors = plain(c).detach().double()
    if x.ndim == 2 and factors.ndim == 2 and factors.stride(1) != 0 and factors.shape[1] != 1:
        return None
    if factors.ndim == 1 and x.ndim == 2:
        return None
    column = factors.expand(y.shape)
    column = column[:, 0] if x.ndim == 2 else column
    matrix, start = x.bound.mixing
    return mixed(sparse.diags(column.cpu().numpy()) @ matrix, start)
