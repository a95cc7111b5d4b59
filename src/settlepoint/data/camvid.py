"""CamVid-SP: superpixel graphs of street images, the stand-in for PascalVOC-SP that needs no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from settlepoint.data.files import data_dir, states
from settlepoint.data.graph_file import superpixel_graphs
from settlepoint.data.graph_set import GraphSet
from settlepoint.data.registry import DataError, dataset

SPLITS = ("train", "val", "test")
NAME = "camvid-superpixels"
CLASSES, VOID = 11, 11


def camvid(folder: Path | str | None, split: str) -> GraphSet:
    """The 367, 101 or 233 graphs of "train", "val" or "test", 14 raw features, 11 classes, -1 where CamVid says void.

    folder: as `data_dir` takes it. Every edge comes in both directions, as in PascalVOC-SP. Raises DataError for
    another split, and for a file that is missing or whose SHA-256 is not the known one.
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    entry = dataset(NAME)
    file = next(file for file in entry.files if Path(file.path).name == f"{split}.npz")
    state = states(data_dir(folder, NAME), replace(entry, files=(file,)))[0]
    if state.state != "ok":
        raise DataError(state.problem)
    return superpixel_graphs(state.path, classes=CLASSES, void=VOID)
