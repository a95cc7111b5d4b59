"""The rule of everything that only moves entries about, and of joining: seen by moving the places of the entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from settlepoint.certify.bound import Bound, joined
from settlepoint.certify.certificate import Refused
from settlepoint.certify.traced import VIEW, Traced, bound_of, plain, rule, still

MOVES: tuple[Callable[..., Any], ...] = (
    torch.reshape, Tensor.reshape, Tensor.view, torch.flatten, Tensor.flatten, Tensor.unflatten, torch.unflatten,
    torch.unsqueeze, Tensor.unsqueeze, torch.squeeze, Tensor.squeeze, Tensor.view_as, Tensor.reshape_as, torch.ravel,
    Tensor.ravel, torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes,
    torch.movedim, Tensor.movedim, torch.t, Tensor.t, VIEW["T"], VIEW["mT"], torch.swapdims, Tensor.swapdims,
    torch.moveaxis, Tensor.moveaxis, torch.flip, Tensor.flip, torch.fliplr, torch.flipud, torch.roll, Tensor.roll,
    torch.rot90, Tensor.expand, Tensor.expand_as, torch.broadcast_to, Tensor.broadcast_to, Tensor.repeat, torch.tile,
    Tensor.tile, torch.repeat_interleave, Tensor.repeat_interleave, Tensor.__getitem__, torch.narrow, Tensor.narrow,
    torch.select, Tensor.select, torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.tensor_split,
    torch.unbind, Tensor.unbind, torch.gather, Tensor.gather, torch.take_along_dim, Tensor.unfold, torch.diagonal,
    Tensor.diagonal, torch.tril, torch.triu, Tensor.tril, Tensor.triu,
)  # fmt: skip
"""Functions of which every entry of the result is an entry of the first argument, or 0."""


def moved(function: Callable[..., Any], y: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """An entry that is taken k times counts k times: sqrt(k) in the 2-norm, once in the sup norm."""
    if bound_of(x) is None:
        if any(bound_of(a) is not None for a in (*args, *kwargs.values())) and function not in _LIKE:
            raise Refused("the operator picks entries by its state, which is not continuous")
        return still(y, x, *args)
    if any(bound_of(a) is not None for a in _flat((*args, *kwargs.values()))) and function not in _LIKE:
        raise Refused("the operator picks entries by its state, which is not continuous")
    value = plain(x)
    places = torch.arange(1, value.numel() + 1, device=value.device).reshape(value.shape)  # 0 stands for a zero
    given, named = (_plain_all(a) for a in (args, kwargs))
    found = function(places, *given, **named)
    if isinstance(found, Tensor):
        return _taken(x, found)
    return tuple(_taken(x, part) for part in found)


def _flat(values: Sequence[Any]) -> list[Any]:
    """Arguments, and what stands in tuples among them, as in x[:, index]."""
    return [entry for v in values for entry in (v if isinstance(v, tuple | list) else (v,))]


def _plain_all(given: Any) -> Any:
    if isinstance(given, dict):
        return {name: _plain_all(v) for name, v in given.items()}
    return type(given)(_plain_all(v) for v in given) if isinstance(given, tuple | list) else plain(given)


_LIKE = (Tensor.view_as, Tensor.reshape_as, Tensor.expand_as)  # the second argument gives a shape alone


def _taken(x: Traced, places: Tensor) -> Bound:
    """Of the entries of x at these places, counted from 1."""
    b, shape = x.bound, plain(x).shape
    most = int(torch.bincount(places.flatten(), minlength=2)[1:].max()) if places.numel() else 0
    root = math.sqrt(most)
    aligned = _aligned(places, shape)
    b = b if aligned or b.rows == 1 else b.collapsed()
    nodes = _nodes(places, shape)
    table = b.table[places[0] - 1] if b.table is not None and _columns(places, aligned) else None
    found = b.linear(root, math.sqrt(most) if nodes else torch.inf, min(1, most), min(1, most), table)
    found = found.kept(cap=b.cap, table=table)
    return replace(found, total=b.total * root) if most == 1 else found


def _aligned(places: Tensor, shape: torch.Size) -> bool:
    """Whether row i of the result holds entries of row i alone."""
    if places.ndim == 0 or not shape or len(places) != shape[0] or not places.numel():
        return False
    width = math.prod(shape[1:])
    rows = torch.div(places.reshape(len(places), -1) - 1, max(1, width), rounding_mode="floor")
    return bool(
        ((rows == torch.arange(len(places), device=places.device)[:, None]) | (places == 0).reshape(rows.shape)).all()
    )


def _nodes(places: Tensor, shape: torch.Size) -> bool:
    """Whether the last dimension stays whole: each of its lines is a line of x."""
    if places.ndim == 0 or not shape or places.shape[-1] != shape[-1] or not places.numel():
        return False
    first = places[..., :1]
    line = torch.arange(shape[-1], device=places.device)
    return bool((places == first + line).all() & ((first - 1) % shape[-1] == 0).all())


def _columns(places: Tensor, aligned: bool) -> bool:
    """Whether the same entries are taken of every row."""
    if not aligned or places.ndim != 2 or not bool((places > 0).all()):
        return False
    step = places - places[:1]
    return bool((step == step[:, :1]).all())


for _function in MOVES:
    rule(_function)(partial(moved, _function))


@rule(torch.cat, torch.concat, torch.concatenate, torch.stack)
def _(y: Tensor, parts: Sequence[Any], dim: int = 0, **kwargs: Any) -> Bound:
    moving = [p.bound for p in parts if bound_of(p) is not None]
    where = dim % y.ndim
    if where == 0:
        moving = [b.collapsed() for b in moving]
    found = joined(moving, along_last=where == y.ndim - 1)
    return found if len(moving) == len(parts) else found.uncapped()


@rule(torch.index_copy, Tensor.index_copy)
def _(y: Tensor, into: Any, dim: int, index: Any, source: Any) -> Bound:
    """Entries put elsewhere, none twice."""
    given = [t.bound.collapsed() for t in (into, source) if bound_of(t) is not None]
    return joined(given, along_last=False).uncapped().without_node()


rule(
    torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like, torch.rand_like, torch.randn_like,
    Tensor.new_zeros, Tensor.new_ones, Tensor.new_full, Tensor.new_empty, Tensor.new_tensor,
)(still)  # fmt: skip
