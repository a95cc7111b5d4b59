"""Burgers' equation on a small grid: initial velocity in, velocities over time out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from settlepoint.data.files import data_dir, verified
from settlepoint.data.registry import DataError
from settlepoint.data.tensor_file import load_tensors


@dataclass(frozen=True)
class Velocities:
    """x: (N, n) at time 0; y: (N, T, n), y[:, 0] = x; viscosity of all of them. float64, period 1."""

    x: Tensor
    y: Tensor
    viscosity: float


@dataclass(frozen=True)
class Burgers:
    """train: 800 samples, test: 400, both on 16 points at 17 times."""

    train: Velocities
    test: Velocities


def burgers(folder: Path | str | None = None) -> Burgers:
    """u_t + u u_x = nu u_xx, periodic, nu = .01: the small files of neuraloperator (Li et al. 2021).

    folder: as `data_dir` takes it. Raises DataError for a missing or corrupt file.
    """
    test, train = verified(data_dir(folder, "neuralop-burgers"), "neuralop-burgers")
    return Burgers(burgers_file(train), burgers_file(test))


def burgers_file(path: Path) -> Velocities:
    """The velocities of one file. Raises DataError for one that is corrupt or holds something else."""
    found = load_tensors(path, ("x", "y", "visc"))
    x, y, viscosity = found["x"], found["y"], found["visc"]
    if x.ndim != 2 or y.ndim != 3 or (y.shape[0], y.shape[2]) != x.shape or viscosity.numel() != 1:
        got = f"{tuple(x.shape)}, {tuple(y.shape)} and {tuple(viscosity.shape)}"
        raise DataError(f"{path}: x must be (N, n), y (N, T, n), visc one number, got {got}")
    return Velocities(x, y, float(viscosity))
