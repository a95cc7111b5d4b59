"""What a user's sampler returned, checked and made a `Batch`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from settlepoint.problems.batch import Batch, shape_of

DOUBLE = torch.float64


def batch_from(given: Any, n: int, *, stepped: bool, timed: bool = False) -> Batch:
    """The batch in float64; raises when anything is missing, misshaped, not finite, or only repeats itself.

    stepped: step sizes h are needed, else refused. timed: t0, default 0, becomes the last column of x0.
    """
    if not isinstance(given, dict):
        raise TypeError(f"sampler must return a dict with 'x0', got {type(given).__name__}")
    _check_keys(given, stepped, timed)
    x0 = _floats("x0", given["x0"], n)
    if x0.ndim != 2 or not x0.shape[1]:
        raise ValueError(f"x0 must have shape ({n}, m) with m >= 1, got {tuple(x0.shape)}")
    parameters = given.get("parameters", {})
    if not isinstance(parameters, dict) or not all(isinstance(k, str) for k in parameters):
        raise TypeError(f"parameters must be a dict of tensors by name, got {parameters!r:.80}")
    parameters = {k: _floats(f"parameter {k!r}", v, n) for k, v in parameters.items()}
    if timed:
        t0 = _vector("t0", given["t0"], n) if "t0" in given else x0.new_zeros(n)
        x0 = torch.cat((x0, t0[:, None]), 1)
    h = _steps(given["h"], n) if stepped else None
    batch = Batch(x0, parameters, h)
    _check_different(batch)
    return batch


def _check_keys(given: dict, stepped: bool, timed: bool) -> None:
    allowed = ["x0", "parameters", *["h"] * stepped, *["t0"] * timed]
    needed = ["x0", *["h"] * stepped]
    missing, unknown = [k for k in needed if k not in given], [k for k in given if k not in allowed]
    if missing:
        raise ValueError(f"sampler must return {missing[0]!r}, got a dict of {sorted(map(str, given))}")
    if unknown:
        raise ValueError(f"sampler may return {', '.join(allowed)} for this form, got {unknown[0]!r} as well")


def _floats(name: str, value: Any, n: int) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of a floating dtype, got {came}")
    if value.ndim < 1 or len(value) != n:
        raise ValueError(f"{name} must have {n} rows as asked of the sampler, got {shape_of(value)}")
    value = value.detach().to(DOUBLE)
    if not bool(torch.isfinite(value).all()):
        raise ValueError(
            f"{name} must be finite, got {int((~torch.isfinite(value)).sum())} entries that are NaN or Inf"
        )
    return value


def _vector(name: str, value: Any, n: int) -> Tensor:
    value = _floats(name, value, n)
    if value.ndim != 1:
        raise ValueError(f"{name} must have shape ({n},), got {tuple(value.shape)}")
    return value


def _steps(value: Any, n: int) -> Tensor:
    h = _vector("h", value, n)
    if not bool((h > 0).all()):
        raise ValueError(f"h must be positive, got a smallest step of {float(h.min()):g}")
    return h


def _check_different(batch: Batch) -> None:
    """Raise when all of at least two problems are one and the same."""
    columns = [batch.x0, *batch.parameters.values(), *([] if batch.h is None else [batch.h])]
    if len(batch) > 1 and all(bool((c == c[:1]).all()) for c in columns):
        raise ValueError(f"sampler must return different problems, got {len(batch)} copies of one")
