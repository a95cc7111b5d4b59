"""Fitting the nodes of one graph: it learns, the epoch is chosen on validation, the weights kept are those."""

from __future__ import annotations

import pytest
import torch

from settlepoint.models import Graphs
from settlepoint.training import NodeHistory, NodeRecipe, NodeTask, accuracy, fit_nodes, presets


def clusters(seed: int = 0) -> NodeTask:
    """Two cliques of ten, one class each, with features that tell little about a single node."""
    gen = torch.Generator().manual_seed(seed)
    y = torch.arange(20) // 10
    x = torch.randn(20, 6, generator=gen) + y[:, None]
    pairs = torch.combinations(torch.arange(20))
    pairs = pairs[y[pairs[:, 0]] == y[pairs[:, 1]]].T
    edges = torch.cat((pairs, pairs.flip(0)), 1)
    part = torch.arange(20) % 5
    return NodeTask(x, y, Graphs.one(edges, 20), part < 2, part == 2, part > 2)


@pytest.mark.parametrize("preset", [presets.settled, presets.published])
def test_it_learns(preset) -> None:
    torch.manual_seed(0)
    task = clusters()
    model = preset((6, 8, 2))
    history = fit_nodes(model, task, NodeRecipe(epochs=60))
    with torch.no_grad():
        scores = model(task.x, task.graphs)
    assert history.loss[-1] < 0.7 * history.loss[0]
    assert accuracy(scores[task.test], task.y[task.test]) == history.test[history.chosen]  # the chosen weights
    assert history.test[history.chosen] >= 75.0
    assert not model.training


def test_the_epoch_is_chosen_on_validation_alone() -> None:
    history = NodeHistory([3, 2, 1, 0], [0.5, 0.4, 0.3, 0.1], [50, 80, 80, 70], [90, 60, 10, 99], 0.0)
    assert history.chosen == 2  # of two equal accuracies the one with the lower loss


def test_every_epoch_is_told() -> None:
    torch.manual_seed(0)
    told: list[tuple[int, float]] = []
    history = fit_nodes(
        presets.settled((6, 4, 2)), clusters(), NodeRecipe(epochs=3), after_epoch=lambda e, v: told.append((e, v))
    )
    assert told == list(enumerate(history.val))


def test_a_fit_without_epochs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epochs must be at least 1, got 0"):
        NodeRecipe(epochs=0)
