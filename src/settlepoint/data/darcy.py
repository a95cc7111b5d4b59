"""Darcy flow on small grids: permeability in, pressure out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from settlepoint.data.files import data_dir, verified
from settlepoint.data.registry import DataError
from settlepoint.data.tensor_file import load_tensors


@dataclass(frozen=True)
class Fields:
    """Inputs and outputs on one grid. Darcy: x (N, n, n) bool, y (N, n, n) float32, at the points (i / n, j / n)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Fields:
        return Fields(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Darcy:
    """train: 1,000 samples on 16 x 16 points; test: 50 on 16 x 16; fine: the same 50 on 32 x 32."""

    train: Fields
    test: Fields
    fine: Fields


def darcy(folder: Path | str | None = None) -> Darcy:
    """-div(a grad p) = f on the unit square, p = 0 on its edge; a takes two values, x says which, y is p.

    The small files of neuraloperator (Li et al. 2021). The first row and column of a grid lie on the edge, the edge
    opposite is one step beyond the last. folder: as `data_dir` takes it. Raises DataError for a missing or corrupt
    file.
    """
    test, fine, train = verified(data_dir(folder, "neuralop-darcy"), "neuralop-darcy")
    return Darcy(darcy_file(train), darcy_file(test), darcy_file(fine))


def darcy_file(path: Path) -> Fields:
    """The fields of one file. Raises DataError for one that is corrupt or holds something else."""
    found = load_tensors(path, ("x", "y"))
    x, y = found["x"], found["y"]
    if x.ndim != 3 or x.shape[1] != x.shape[2] or y.shape != x.shape or not y.is_floating_point():
        got = f"{tuple(x.shape)} and {tuple(y.shape)} of {y.dtype}"
        raise DataError(f"{path}: x and y must be (N, n, n), y floating, got {got}")
    return Fields(x, y)
