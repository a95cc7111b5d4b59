"""Cora and CiteSeer as Table 5 has them: clean, with drop-in noise, and with flips that leave no trace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from settlepoint.data import planetoid
from settlepoint.data.noise import drop_in, flipped, row_normalised
from settlepoint.experiments.scale import Context
from settlepoint.layers import adjacency
from settlepoint.models import Graphs
from settlepoint.runs import generator_from
from settlepoint.training import NodeTask

Kind = Literal["drop-in", "flips"]


@dataclass(frozen=True)
class Citations:
    """One of the graphs with a noise on its features. share: of all N x F entries; mask: number of the draw."""

    name: Literal["Cora", "CiteSeer"]
    share: float = 0.0
    mask: int = 0
    kind: Kind = "drop-in"

    def task(self, context: Context) -> NodeTask:
        """Public split, rows of features divided by their sum, noise on all nodes; edges as the matrix A.

        The mask is drawn from the names of the graph, the share and the mask: the same for every model and seed.
        Features without noise are sparse.
        """
        return _task(self, context.data_dir, context.device)


@cache
def _task(wanted: Citations, folder: Path | None, device: str) -> NodeTask:
    data = planetoid(folder, wanted.name)
    draw = generator_from("table5", "mask", wanted.name, wanted.share, wanted.mask)
    if not wanted.share:
        x = row_normalised(data.x).to_sparse()
    elif wanted.kind == "drop-in":
        x = drop_in(row_normalised(data.x), wanted.share, draw)
    else:
        x = flipped((data.x > 0).to(data.x.dtype), wanted.share, draw)
    graphs = Graphs.one(adjacency(data.edge_index, len(data.y)).to(device), len(data.y))
    masks = (data.train_mask.to(device), data.val_mask.to(device), data.test_mask.to(device))
    return NodeTask(x.to(device), data.y.to(device), graphs, *masks)


SETS: dict[str, Citations] = {
    "cora": Citations("Cora"),
    "cora-50": Citations("Cora", 0.5),
    "citeseer": Citations("CiteSeer"),
    "citeseer-50": Citations("CiteSeer", 0.5),
}
"""The four columns of Table 5."""


def classes(task: NodeTask) -> int:
    """How many classes the labels name."""
    return int(task.y.max()) + 1


def majority(task: NodeTask) -> float:
    """Test accuracy, in per cent, of the most frequent class of all nodes that are not tested on: the floor."""
    counts = torch.bincount(task.y[~task.test])
    return 100.0 * float((task.y[task.test] == counts.argmax()).double().mean())
