"""Checkpoints: tensors as safetensors, which hold numbers and nothing that could run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save(model: nn.Module, path: Path | str, note: Mapping[str, str] | None = None) -> None:
    """Write the parameters and buffers of model to path, whole or not at all; note: strings for the header."""
    write(model.state_dict(), path, note)


def load(model: nn.Module, path: Path | str) -> dict[str, str]:
    """Fill model in place with the tensors at path and return the note; raises ValueError when they do not fit it."""
    tensors, note = read(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this model: {error}") from None
    return note


def write(tensors: Mapping[str, Tensor], path: Path | str, note: Mapping[str, str] | None = None) -> None:
    """Write named tensors to path, whole or not at all; note: strings for the header."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, dict(note or {}))
    part.replace(path)


def read(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors at path, on the CPU, and the note; raises ValueError for a file that holds none."""
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole file of safetensors: {error}") from None
