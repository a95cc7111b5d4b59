"""Bad input of a node task, each by the name of what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from settlepoint.layers import pyg
from settlepoint.models import PIGN, Graphs
from settlepoint.training import NodeRecipe, NodeTask, fit_nodes

PART = torch.arange(6)


def task(**changes: object) -> NodeTask:
    graphs = Graphs.one(torch.zeros(2, 0, dtype=torch.int64), 6)
    good = NodeTask(torch.ones(6, 3), PART % 2, graphs, PART < 2, PART == 3, PART > 3)
    return replace(good, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": PART == 1}, "train, val and test must not overlap, node 1 is in two"),
        ({"test": PART > 9}, "test must be a boolean mask with a node in it"),
        ({"train": PART}, "train must be a boolean mask with a node in it, got torch.int64"),
        ({"val": PART[:4] == 3}, r"val must be \(6,\), one entry a node, got \(4,\)"),
        ({"y": PART[:5]}, r"y must be \(6,\), one entry a node, got \(5,\)"),
        ({"y": PART - 1}, "y must be a class number >= 0 where a node is used, got -1"),
        ({"x": torch.full((6, 3), torch.nan)}, "x must be finite"),
        ({"x": torch.full((6, 3), torch.inf).to_sparse()}, "x must be finite"),
        ({"graphs": Graphs.one(torch.zeros(2, 0, dtype=torch.int64), 5)}, "graphs must have 6 nodes, got 5"),
    ],
)
def test_bad_tasks_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)


def test_labels_of_nodes_that_nobody_uses_may_be_missing() -> None:
    y = PART.clone() % 2
    y[2] = -1
    assert task(y=y).y[2] == -1


def test_labels_beyond_the_classes_of_the_model() -> None:
    model = PIGN(pyg().GCNConv(8, 8), (3, 8, 3))
    with pytest.raises(ValueError, match="y must lie below the 3 classes that the model scores, got 5"):
        fit_nodes(model, task(y=torch.tensor([0, 1, 0, 1, 5, 0])), NodeRecipe(epochs=1))
