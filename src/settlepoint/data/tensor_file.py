"""A file of tensors as torch.save writes it, read without running what it holds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from settlepoint.data.registry import DataError


def load_tensors(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of those names in a .pt file that holds a dictionary.

    Read by torch.load(weights_only=True), so that no code in the file runs. Raises DataError for a file that is
    missing, cut short or of another kind, for one that holds anything but tensors and plain containers, for one
    without those names, and for numbers that are not finite; the message says what to do.
    """
    again = f"put the file that `settle data list` names at {path}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch guesses at what a file of another kind might be
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {again}") from None
    except Exception as error:  # of any kind: the bytes of a broken file may say anything
        kind = type(error).__name__
        raise DataError(
            f"{path} is corrupt or no file of plain tensors, and nothing in it is run ({kind}): {again}"
        ) from None
    lacking = [name for name in names if not isinstance(found, dict) or not isinstance(found.get(name), Tensor)]
    if lacking:
        raise DataError(f"{path} must hold the tensors {', '.join(names)}, but {', '.join(lacking)} is not there")
    spoilt = [name for name in names if not bool(found[name].isfinite().all())]
    if spoilt:
        raise DataError(f"{path} must hold finite numbers, but {', '.join(spoilt)} has NaN or Inf")
    return {name: found[name] for name in names}
