"""A `Batch` is what was sampled: starting points, parameters and step sizes, one problem a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Problems of one family.

    x0: (n, m), where a solver starts. parameters: name to (n, ...), what distinguishes the problems. h: (n,) step sizes
    of initial-value problems, else None. Raises when leading sizes differ.

        >>> import torch
        >>> batch = Batch(torch.zeros(10, 2), {"c": torch.arange(10.0)})
        >>> train, test = batch.split(0.7)
        >>> len(train), test.parameters["c"].tolist()
        (7, [7.0, 8.0, 9.0])
    """

    x0: Tensor
    parameters: dict[str, Tensor] = field(default_factory=dict)
    h: Tensor | None = None

    def __post_init__(self):
        if not isinstance(self.x0, Tensor) or self.x0.ndim != 2:
            raise ValueError(f"x0 must be a tensor of shape (n, m), got {shape_of(self.x0)}")
        for name, value in self.parameters.items():
            if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != len(self):
                raise ValueError(f"parameter {name!r} must be a tensor of {len(self)} rows, got {shape_of(value)}")
        if self.h is not None and (not isinstance(self.h, Tensor) or tuple(self.h.shape) != (len(self),)):
            raise ValueError(f"h must be a tensor of shape ({len(self)},), got {shape_of(self.h)}")

    def __len__(self) -> int:
        return len(self.x0)

    def rows(self, index: Tensor | slice) -> Batch:
        """The problems in index: a vector of row numbers, a mask, or a slice."""
        if not isinstance(index, slice) and not (isinstance(index, Tensor) and index.ndim == 1):
            raise TypeError(f"index must be a vector of rows or a slice, got {index!r}")
        return self._each(lambda t: t[index])

    def split(self, fraction: float = 0.7) -> tuple[Batch, Batch]:
        """The first round(fraction * n) problems, to train on, and the rest, to test on; neither is empty."""
        cut = round(fraction * len(self)) if 0 < fraction < 1 else 0
        if not 0 < cut < len(self):
            raise ValueError(f"fraction must leave problems on both sides of {len(self)}, got {fraction}")
        return self.rows(slice(cut)), self.rows(slice(cut, None))

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Batch:
        """The same problems in another floating dtype, or on another device."""
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating one, got {dtype}")
        return self._each(lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None))

    def _each(self, change) -> Batch:
        h = None if self.h is None else change(self.h)
        return replace(self, x0=change(self.x0), parameters={k: change(v) for k, v in self.parameters.items()}, h=h)


def digests(batch: Batch) -> set[bytes]:
    """What tells problems apart: the numbers of each, as bytes hashed."""
    parts = [batch.x0, *batch.parameters.values(), *([] if batch.h is None else [batch.h])]
    table = [part.detach().cpu().reshape(len(batch), -1).numpy() for part in parts]
    rows = (b"".join(part[i].tobytes() for part in table) for i in range(len(batch)))
    return {sha256(row).digest() for row in rows}


def joined(first: Batch, second: Batch) -> Batch:
    """The problems of both, in this order. They must come from one family."""
    parameters = {name: torch.cat((value, second.parameters[name])) for name, value in first.parameters.items()}
    h = None if first.h is None or second.h is None else torch.cat((first.h, second.h))
    return Batch(torch.cat((first.x0, second.x0)), parameters, h)


def shape_of(value: object) -> object:
    """The shape of a tensor, or the type of anything else, for a message."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
