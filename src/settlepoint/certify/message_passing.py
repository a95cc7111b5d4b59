"""Rules for graphs: messages along edges are one matrix over the nodes, whose norm is far below that of its steps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from settlepoint.certify.bound import Bound
from settlepoint.certify.certificate import Refused
from settlepoint.certify.mixing import mixed, over_nodes, per_node, so_far
from settlepoint.certify.traced import Traced, bound_of, plain, rule


@rule(torch.index_select, Tensor.index_select)
def _(y: Tensor, x: Traced, dim: int, index: Any) -> Bound:
    if bound_of(index) is not None:
        raise Refused("the operator picks entries by its state, which is not continuous")
    places = plain(index).cpu().numpy()
    if over_nodes(x, dim):
        before, start = so_far(x)
        least = None if x.bound.least is None else x.bound.least.index_select(dim, plain(index))
        return replace(mixed(before[places], start), least=least)
    root = math.sqrt(np.bincount(places).max(initial=0))
    b = x.bound.collapsed() if dim % x.ndim == 0 else x.bound
    return b.linear(root, root, 1.0, 1.0)


@rule(Tensor.scatter_add_, torch.scatter_add, Tensor.scatter_add, Tensor.index_add_, torch.index_add, Tensor.index_add)
def _(y: Tensor, into: Any, dim: int, index: Any, source: Any, **kwargs: Any) -> Bound:
    """Sums of messages at their targets."""
    if bound_of(into) is not None or kwargs.get("alpha", 1) != 1:
        raise Refused("sums into something that depends on the state, or with alpha=, have no bound here")
    places = per_node(plain(index)) if over_nodes(source, dim) else None
    if places is None:
        count = math.sqrt(float(torch.bincount(plain(index).flatten()).max())) if plain(index).numel() else 0.0
        return source.bound.collapsed().linear(count, torch.inf, count**2, count**2)
    before, start = so_far(source)
    nodes, messages = y.shape[max(0, y.ndim - 2)], len(places)
    gather = sparse.csr_matrix(
        (np.ones(messages), (places.cpu().numpy(), np.arange(messages))), shape=(nodes, messages)
    )
    least = source.bound.least
    if least is not None and into.ndim == source.ndim and plain(index).shape == least.shape and not plain(into).any():
        least = torch.zeros_like(y, dtype=least.dtype).scatter_add(dim, plain(index), least)
    else:
        least = None
    return replace(mixed(gather @ before, start), least=least)


@rule(Tensor.scatter_reduce_, torch.scatter_reduce, Tensor.scatter_reduce)
def _(y: Tensor, into: Any, dim: int, index: Any, source: Any, reduce: str = "", **kwargs: Any) -> Bound:
    """Largest messages, each of which goes to one target: |max a - max b| <= max |a - b|, with the absolute value that
    Lemma 3 of Operator Learning Meets Numerical Analysis lacks. The messages themselves repeat a node as often as it
    is a neighbour, C times at most: so L sqrt(C) in the 2-norm, L in the sup norm.
    """
    if reduce not in ("amax", "amin"):
        raise Refused(f"scatter with reduce={reduce!r} has no bound here")
    if bound_of(into) is not None:
        raise Refused("maxima with something that depends on the state have no bound here")
    found = source.bound.collapsed().linear(1.0, torch.inf, 1.0, 1.0)
    return found.kept(bend=torch.full_like(found.bend, torch.inf))
