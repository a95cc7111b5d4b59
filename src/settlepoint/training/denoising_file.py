"""The files of Denoising: what tells one run from another, and a check of all they hold before any of it is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from settlepoint.training.checkpoint import read

FORMAT = "settlepoint denoising 2"


def fingerprint(x: Tensor) -> str:
    """Shape, kind and a digest of the numbers.

    >>> fingerprint(torch.zeros(2, 3))
    '(2, 3) float32 9d908ecfb6b256de'
    """
    numbers = x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    digest = hashlib.sha256(numbers.data).hexdigest()[:16]
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')} {digest}"


def identity(objective: Callable[..., object]) -> str:
    """What an objective is called, with its settings where its repr has them, and not where in memory it lies.

    >>> identity(fingerprint)
    '<function fingerprint>'
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(objective))


def stored(
    path: Path | str,
    run: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The tensors at path, after a check that they are of this run and that every one of them can be loaded.

    moments: what the optimiser may hold for each parameter, all of it or nothing.

    Raises ValueError, naming what differs.
    """
    tensors, note = read(path)
    if note.get("format") != FORMAT:
        came = repr(note.get("format"))
        raise ValueError(f"{path} must be a checkpoint of Denoising in the format {FORMAT!r}, got {came}")
    _same(path, json.loads(note["run"]), json.loads(json.dumps(run)))
    wanted = {**weights, "generator": generator.get_state(), "losses": torch.zeros(0, dtype=torch.float64)}
    for parts in moments.values():
        wanted |= parts if parts.keys() & tensors.keys() else {}
    if wrong := _wrong(tensors, wanted):
        raise ValueError(f"{path} does not fit this model: {'; '.join(wrong)}")
    _check_state(path, tensors["generator"], generator)
    return tensors


def _same(path: Path | str, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    keys = dict.fromkeys([*there, *here])
    other = [f"{k}: {there.get(k)!r} there, {here.get(k)!r} here" for k in keys if there.get(k) != here.get(k)]
    if other:
        raise ValueError(f"{path} belongs to another run: {'; '.join(other)}")


def _wrong(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in wanted if name not in tensors]
    unknown = [f"{name} is not known here" for name in tensors if name not in wanted]
    both = [name for name in wanted if name in tensors]
    kinds = {name: (_kind(name, tensors[name]), _kind(name, wanted[name])) for name in both}
    return missing + unknown + [f"{name}: {a} there, {b} here" for name, (a, b) in kinds.items() if a != b]


def _kind(name: str, x: Tensor) -> str:
    """Shape and dtype; there may be any number of losses."""
    shape = "(steps,)" if name == "losses" and x.ndim == 1 else tuple(x.shape)
    return f"{shape} {str(x.dtype).removeprefix('torch.')}"


def _check_state(path: Path | str, state: Tensor, generator: torch.Generator) -> None:
    try:
        torch.Generator(generator.device).set_state(state)
    except RuntimeError as error:
        raise ValueError(f"{path} holds no state of a generator: {error}") from None
