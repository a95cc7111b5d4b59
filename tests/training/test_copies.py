"""Networks side by side: what each of them gets is what it would get alone, dropout included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv
from torch_geometric.utils import to_undirected

from settlepoint.layers import Blocks, CopiedDropout, SparseAttention, SparseLinear, adjacency, attended
from settlepoint.layers.masks import mask
from settlepoint.layers.sparse import Places, spread
from settlepoint.models import APPNP, GAT, GCN, PIGN, DeepGCN, Graphs
from settlepoint.training import NodeRecipe, NodeTask, presets
from settlepoint.training.copies import Copies
from settlepoint.training.nodes import fit_copies, fit_nodes

CHANNELS = (12, 4, 3)
Build = Callable[[int], nn.Module]

BUILDS: dict[str, Build] = {
    "gcn": lambda copies: GCN(*CHANNELS, normalize=False, copies=copies),
    "centred gcn": lambda copies: GCN(*CHANNELS, normalize=False, center=True, copies=copies),
    "gat": lambda copies: GAT(*CHANNELS, heads=2, copies=copies),
    "deep": lambda copies: DeepGCN(CHANNELS, 3, inputs=0.5, normalize=False, copies=copies),
    "appnp": lambda copies: APPNP(CHANNELS, copies=copies),
    "published": lambda copies: presets.published(CHANNELS, normalize=False, copies=copies),
    "published gat": lambda copies: presets.published(CHANNELS, backbone="gat", copies=copies),
    "settled": lambda copies: presets.settled(CHANNELS, normalize=False, copies=copies),
    "gated": lambda copies: presets.settled(CHANNELS, injection="gated", normalize=False, copies=copies),
    "settled gat": lambda copies: presets.settled(CHANNELS, backbone="gat", center=True, copies=copies),
}


def node_task(gen: torch.Generator, *, sparse: bool = True) -> NodeTask:
    """Thirty nodes with words that speak for their class, ten to train on."""
    y = torch.arange(30) % 3
    x = (torch.rand(30, 12, generator=gen) < 0.2).double()
    x[torch.arange(30), y] = 1.0
    edges = to_undirected(torch.randint(0, 30, (2, 40), generator=gen), num_nodes=30)
    graphs = Graphs.one(adjacency(edges, 30, torch.float64), 30)
    part = torch.arange(30)
    return NodeTask(x.to_sparse() if sparse else x, y, graphs, part < 10, (part >= 10) & (part < 20), part >= 20)


def narrow(build: Build, count: int) -> list[nn.Module]:
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(build(1).double())
    return models


def streams(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + first + i) for i in range(count)]


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", BUILDS)
def test_side_by_side_is_one_by_one(name: str, sparse: bool, generator: torch.Generator) -> None:
    build, task, recipe = BUILDS[name], node_task(generator, sparse=sparse), NodeRecipe(epochs=6)
    together = narrow(build, 3)
    histories = fit_copies(Copies(build(3).double(), together, streams(3)), task, recipe)
    for seed, model in enumerate(narrow(build, 3)):
        alone = fit_copies(Copies(model, [model], streams(1, seed)), task, recipe)[0]
        torch.testing.assert_close(torch.tensor(histories[seed].loss), torch.tensor(alone.loss), atol=1e-10, rtol=0)
        assert histories[seed].val == alone.val
        assert histories[seed].test == alone.test
        assert len(set(alone.loss)) > 1
        for mine, theirs in zip(together[seed].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)
