"""Checkpoints: the weights of a model as safetensors, which hold numbers and nothing that could run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn


def save(model: nn.Module, path: Path | str, note: Mapping[str, str] | None = None) -> None:
    """Write the parameters and buffers of model to path, whole or not at all; note: strings for the header."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, part, dict(note or {}))
    part.replace(path)


def load(model: nn.Module, path: Path | str) -> dict[str, str]:
    """Fill model in place with the tensors at path and return the note; raises ValueError when they do not fit it."""
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this model: {error}") from None
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})
