"""Rules for everything that only moves entries about: views, slices, pieces and their joining."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from settlepoint.certify.bound import Bound, joined
from settlepoint.certify.certificate import Refused
from settlepoint.certify.traced import VIEW, Traced, bound_of, plain, rule, still


def moved(x: Traced, y: Tensor) -> Bound:
    """Of a view that keeps the order of the entries, so that rows stay rows where there are as many."""
    b = x.bound
    if y.shape == x.shape:
        return b
    same_last = x.ndim > 0 and y.ndim > 0 and x.shape[-1] == y.shape[-1]
    return b.kept() if same_last else b.without_node()


@rule(
    torch.reshape, Tensor.reshape, Tensor.view, torch.flatten, Tensor.flatten, Tensor.unflatten, torch.unflatten,
    torch.unsqueeze, Tensor.unsqueeze, torch.squeeze, Tensor.squeeze, Tensor.view_as, Tensor.reshape_as, torch.ravel,
    Tensor.ravel,
)  # fmt: skip
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    return moved(x, y)


@rule(
    torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes, torch.movedim,
    Tensor.movedim, torch.t, Tensor.t, VIEW["T"], VIEW["mT"], torch.swapdims, Tensor.swapdims,
    torch.moveaxis, Tensor.moveaxis,
)  # fmt: skip
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    """Rows stay in place only where the first dimension does."""
    value = plain(x)
    first_stays = y.ndim > 1 and y.shape[0] == value.shape[0] and y.stride()[0] == value.stride()[0]
    last_stays = y.ndim > 1 and y.shape[-1] == value.shape[-1] and y.stride()[-1] == value.stride()[-1]
    b = x.bound if first_stays else x.bound.collapsed()
    return b.kept() if last_stays else b.without_node()


@rule(torch.flip, Tensor.flip, torch.roll, Tensor.roll)
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    return x.bound.collapsed().kept()


@rule(Tensor.expand, Tensor.expand_as, torch.broadcast_to, Tensor.repeat, Tensor.broadcast_to, torch.tile, Tensor.tile,
      torch.repeat_interleave, Tensor.repeat_interleave)  # fmt: skip
def _(y: Tensor, x: Traced, *args: Any, **kwargs: Any) -> Bound:
    """Every entry as often as it is repeated."""
    if bound_of(x) is None:
        return still(y, x, *args)
    b = x.bound if y.ndim == x.ndim and x.ndim and len(x) == len(y) else x.bound.collapsed()
    times = y.numel() / max(1, plain(x).numel())
    wide = y.shape[-1] / max(1, x.shape[-1]) if x.ndim else math.inf
    return b.linear(math.sqrt(times), math.sqrt(wide), 1.0, 1.0).kept(cap=b.cap)


@rule(Tensor.__getitem__)
def _(y: Tensor, x: Traced, index: Any) -> Bound:
    """A slice moves no more than the whole; a list of places moves each as often as it is named."""
    parts = index if isinstance(index, tuple) else (index,)
    lists = [p for p in parts if isinstance(p, Tensor | list)]
    if any(bound_of(p) is not None for p in lists):
        raise Refused("the operator picks entries by its state, which is not continuous")
    first = parts[0] if parts else slice(None)
    b = x.bound if first is Ellipsis or first == slice(None) else x.bound.collapsed()
    last = _last(parts, x.ndim)
    root = math.sqrt(max((_repeats(p) for p in lists), default=1)) if len(lists) < 2 else math.sqrt(_pairs(lists))
    table = _columns(parts, b)
    return b.linear(root, root if last else torch.inf, 1.0, 1.0).kept(cap=b.cap, table=table)


def _last(parts: Sequence[Any], dims: int) -> bool:
    """Whether the last dimension stays whole."""
    taken = sum(p is not None and p is not Ellipsis for p in parts)
    return taken < dims or parts[-1] in (Ellipsis, slice(None))


def _columns(parts: Sequence[Any], b: Bound) -> Tensor | None:
    """The table of x[:, a:b], where x has one."""
    match parts:
        case [slice() as rows, slice() as columns] if b.table is not None and rows == slice(None):
            return b.table[columns]
    return None


def _repeats(places: Any) -> int:
    index = torch.as_tensor(places).flatten()
    if index.dtype == torch.bool or not index.numel():
        return 1
    return int(torch.unique(index, return_counts=True)[1].max())


def _pairs(lists: Sequence[Any]) -> int:
    table = torch.stack([t.flatten() for t in torch.broadcast_tensors(*(torch.as_tensor(p) for p in lists))])
    return int(torch.unique(table, dim=1, return_counts=True)[1].max()) if table.numel() else 1


@rule(torch.narrow, Tensor.narrow, torch.select, Tensor.select)
def _(y: Tensor, x: Traced, dim: int, *args: Any, **kwargs: Any) -> Bound:
    b = x.bound.collapsed() if dim % x.ndim == 0 else x.bound
    return b.kept() if dim % x.ndim != x.ndim - 1 else b.without_node()


@rule(torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.tensor_split, torch.unbind, Tensor.unbind)
def _(y: Sequence[Tensor], x: Traced, *args: Any, dim: int | None = None, **kwargs: Any) -> tuple[Bound, ...]:
    """The pieces, each of which moves no more than the whole."""
    where = _axis(y, x, args) if dim is None else dim
    first, last = where % x.ndim == 0, where % x.ndim == x.ndim - 1
    b = x.bound.collapsed() if first else x.bound
    tables = b.table.split([p.shape[1] for p in y]) if b.table is not None and last and not first else (None,) * len(y)
    return tuple(
        b.kept(table=t) if last and x.ndim == 2 else b.kept() if not last else b.without_node() for t in tables
    )


def _axis(y: Sequence[Tensor], x: Traced, args: Sequence[int]) -> int:
    """The dimension among positional arguments: the second, or the only one of unbind."""
    dropped = len(y) > 0 and y[0].ndim < x.ndim
    return args[1] if len(args) > 1 else args[0] if args and dropped else 0


@rule(torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack)
def _(y: Tensor, parts: Sequence[Any], dim: int = 0, **kwargs: Any) -> Bound:
    moving = [p.bound for p in parts if bound_of(p) is not None]
    where = dim % y.ndim
    if where == 0:
        moving = [b.collapsed() for b in moving]
    found = joined(moving, along_last=where == y.ndim - 1)
    return found if len(moving) == len(parts) else found.uncapped()


rule(
    torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like, torch.rand_like, torch.randn_like,
    Tensor.new_zeros, Tensor.new_ones, Tensor.new_full, Tensor.new_empty, Tensor.new_tensor,
)(still)  # fmt: skip
