"""Folders of images and masks into one file of graphs; what is done survives an interruption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from settlepoint.data.graph_file import load_arrays, save_arrays, write_graphs
from settlepoint.data.parts import parts_of
from settlepoint.data.pictures import Labels, Pair, picture
from settlepoint.data.registry import DataError
from settlepoint.data.superpixels import ImageGraph, Recipe, image_graph

Report = Callable[[str, int, int], None]  # which image is at work, how many are done, of how many


@dataclass(frozen=True)
class Written:
    """What a file of graphs holds. unscored: nodes without a class. reused: graphs kept from an interrupted call."""

    path: Path
    graphs: int
    nodes: int
    edges: int
    classes: int
    unscored: int
    reused: int


def write_image_graphs(
    found: Sequence[Pair],
    path: Path,
    recipe: Recipe | None = None,
    labels: Labels | None = None,
    report: Report = lambda what, done, of: None,
) -> Written:
    """One graph a pair of image and mask, by `image_graph`, into one file that `superpixel_graphs` reads.

    Every graph is kept in the folder `kept_in(path)` under the SHA-256 of its image, mask and recipe, so that the same
    call goes on where it was interrupted; the folder goes once the file is written. An existing file is not touched.
    Raises DataError as `picture` and `parts_of` do, and when it cannot be written; ValueError for no pairs.
    """
    recipe, labels = recipe or Recipe(), labels or Labels()
    if not found:
        raise ValueError("found must hold pairs of image and mask, got none")
    with parts_of(path) as folder:
        before = {kept.name for kept in folder.glob("*.npz")}
        graphs, tops, reused = [], [], 0
        for done, pair in enumerate(found):
            report(pair[0].name, done, len(found))
            kept = folder / f"{_digest(pair, recipe, labels)}.npz"
            if not kept.exists():
                _make(kept, pair, recipe, labels)
            reused += kept.name in before
            graph, top = _kept(kept)
            graphs.append(graph)
            tops.append(top)
        classes = labels.classes or max(tops) + 1
        write_graphs(path, graphs, [image.name for image, _ in found], classes, labels.unscored)
        for kept in folder.glob("*.npz"):
            kept.unlink()
    return _written(path, graphs, classes, labels.unscored, reused)


def _make(kept: Path, pair: Pair, recipe: Recipe, labels: Labels) -> None:
    """The graph of a pair, and the largest class of its whole mask, as a file."""
    image, mask = picture(*pair, labels)
    classes = mask if labels.unscored is None else mask[mask != labels.unscored]
    graph = image_graph(image, mask, recipe)
    save_arrays(kept, {**vars(graph), "top": np.int64(classes.max(initial=0))})


def _digest(pair: Pair, recipe: Recipe, labels: Labels) -> str:
    try:
        sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pair]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
    return hashlib.sha256(repr((sums, recipe, labels)).encode()).hexdigest()


def _kept(path: Path) -> tuple[ImageGraph, int]:
    arrays = load_arrays(path)
    return ImageGraph(arrays["x"], arrays["y"], arrays["edges"], arrays["edge_x"]), int(arrays["top"])


def _written(path: Path, graphs: Sequence[ImageGraph], classes: int, unscored: int | None, reused: int) -> Written:
    nodes, edges = sum(len(graph.y) for graph in graphs), sum(graph.edges.shape[1] for graph in graphs)
    without = sum(int((graph.y == unscored).sum()) for graph in graphs) if unscored is not None else 0
    return Written(path, len(graphs), nodes, edges, classes, without, reused)
