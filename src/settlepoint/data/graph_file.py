"""The file of many image graphs: one npz of plain arrays, written whole or not at all, read with every check."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from settlepoint.data.files import appearing
from settlepoint.data.graph_set import UNSCORED, GraphSet
from settlepoint.data.registry import DataError
from settlepoint.data.superpixels import ImageGraph

SHAPES = {"x": "N,F", "y": "N", "edge": "2,E", "edge_attr": "E,D", "node_ptr": "G+1", "edge_ptr": "G+1", "names": "G"}
"""The arrays of a file: N nodes, E edges and G graphs, all graphs one after the other."""

_KINDS = {"x": ("numbers", "fiu"), "edge_attr": ("numbers", "fiu"), "names": ("text", "U")}  # integers elsewhere
_NONE = -1  # the void of a file whose masks have none


def write_graphs(
    path: Path, graphs: Sequence[ImageGraph], names: Sequence[str], classes: int, void: int | None = None
) -> None:
    """Write the graphs as one compressed npz; path appears only when it is whole.

    x, y, edge, edge_attr: the graphs one after the other, edge with node numbers that start at 0 in each graph and each
    pair once. node_ptr, edge_ptr: where each graph starts, and the end. names: one a graph. classes, void: what the
    numbers in y mean; void -1 stands for none. Integers take the smallest of int8, int16, int32 that holds them.
    """
    arrays = {
        "x": np.concatenate([graph.x for graph in graphs]),
        "y": _small(np.concatenate([graph.y for graph in graphs])),
        "edge": _small(np.concatenate([graph.edges for graph in graphs], 1), np.int16),
        "edge_attr": np.concatenate([graph.edge_x for graph in graphs]),
        "node_ptr": _starts([len(graph.y) for graph in graphs]),
        "edge_ptr": _starts([graph.edges.shape[1] for graph in graphs]),
        "names": np.array(names, dtype=np.str_),
        "classes": np.int64(classes),
        "void": np.int64(_NONE if void is None else void),
    }
    save_arrays(path, arrays)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Through a file of another name, so that path is whole or not there."""
    with appearing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _small(values: np.ndarray, least: type[np.signedinteger] = np.int8) -> np.ndarray:
    top = int(values.max(initial=0))
    kinds = [kind for kind in (np.int8, np.int16, np.int32) if np.iinfo(kind).bits >= np.iinfo(least).bits]
    return values.astype(next(kind for kind in kinds if top <= np.iinfo(kind).max))


def _starts(sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))).astype(np.int32)


def superpixel_graphs(path: Path | str, *, classes: int | None = None, void: int | None = None) -> GraphSet:
    """The graphs of a file that `settle data superpixels` wrote, every edge in both directions, void as -1.

    classes, void: only for a file that does not say them. Raises DataError, naming the file and what to do, for one
    that is missing, cut short, holds pickles, or whose arrays do not fit together.
    """
    path = Path(path)
    arrays = load_arrays(path)
    try:
        _check(arrays)
        return _graph_set(arrays, *_meaning(arrays, classes, void))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def load_arrays(path: Path, command: str = "settle data superpixels") -> dict[str, np.ndarray]:
    """Every array of an npz, none of them a pickle. Raises DataError for a file that is missing or not whole.

    command: what writes such a file, named in the message.
    """
    again = f"write it again with {command}, or put a whole copy there"
    if not path.is_file():
        raise DataError(f"{path} is missing: write it with {command}, or put it there")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is cut short or no npz of plain arrays ({error}): {again}") from None


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    """The shapes agree, the starts ascend, and every edge joins two nodes of its graph."""
    lacking = [name for name in SHAPES if name not in arrays]
    if lacking:
        raise DataError(f"a file of graphs holds {', '.join(SHAPES)}, but {', '.join(lacking)} is not there")
    for name, wanted in SHAPES.items():
        if arrays[name].ndim != wanted.count(",") + 1 or (name == "edge" and len(arrays[name]) != 2):
            raise DataError(f"{name} must be ({wanted}), got {arrays[name].shape}")
        what, kinds = _KINDS.get(name, ("integers", "iu"))
        if arrays[name].dtype.kind not in kinds:
            raise DataError(f"{name} must hold {what}, got {arrays[name].dtype}")
    for name, counted in (("node_ptr", len(arrays["x"])), ("edge_ptr", arrays["edge"].shape[1])):
        starts = arrays[name].astype(np.int64)
        if len(starts) != len(arrays["names"]) + 1 or starts[0] or starts[-1] != counted or (np.diff(starts) < 0).any():
            raise DataError(f"{name} must ascend from 0 to {counted} in {len(arrays['names'])} steps, one a graph")
    _check_edges(arrays["edge"].astype(np.int64), np.diff(arrays["node_ptr"]), np.diff(arrays["edge_ptr"]))


def _check_edges(edge: np.ndarray, nodes: np.ndarray, links: np.ndarray) -> None:
    wrong = ((edge < 0) | (edge >= np.repeat(nodes, links))).any(0) | (edge[0] == edge[1])
    if wrong.any():
        first = int(wrong.argmax())
        size = int(np.repeat(nodes, links)[first])
        raise DataError(f"edge {first} must join two of the {size} nodes of its graph, got {edge[:, first].tolist()}")


def _meaning(arrays: Mapping[str, np.ndarray], classes: int | None, void: int | None) -> tuple[int, int]:
    """classes and void: what the file says, else what the caller says."""
    for name, given in (("classes", classes), ("void", void)):
        if name in arrays and given is not None and given != int(arrays[name]):
            raise DataError(f"{name} must be {int(arrays[name])}, as the file says, got {given}")
    if "classes" not in arrays and classes is None:
        raise DataError("it does not say how many classes there are: pass classes, and void if some nodes have none")
    count = int(arrays["classes"]) if classes is None else classes
    return count, int(arrays.get("void", np.int64(_NONE))) if void is None else void


def _graph_set(arrays: Mapping[str, np.ndarray], classes: int, void: int) -> GraphSet:
    node_ptr, edge_ptr = arrays["node_ptr"].astype(np.int64), arrays["edge_ptr"].astype(np.int64)
    y, edge = arrays["y"].astype(np.int64), arrays["edge"].astype(np.int64)
    edge += np.repeat(node_ptr[:-1], np.diff(edge_ptr))
    if (y < 0).any():
        raise DataError(f"y must be 0 or more, got {int(y.min())}")
    both = np.stack((edge, edge[::-1]), 2).reshape(2, -1)  # each edge and its reverse, side by side
    edge_x = np.repeat(arrays["edge_attr"].astype(np.float32), 2, axis=0)
    return GraphSet(
        x=torch.from_numpy(arrays["x"].astype(np.float32)), y=torch.from_numpy(np.where(y == void, UNSCORED, y)),
        edges=torch.from_numpy(both), edge_x=torch.from_numpy(edge_x), count=len(node_ptr) - 1, classes=classes,
        index=torch.from_numpy(np.repeat(np.arange(len(node_ptr) - 1), np.diff(node_ptr))),
        names=arrays["names"].tolist(),
    )  # fmt: skip
