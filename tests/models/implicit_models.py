"""The implicit graph models under test, and graphs for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import to_undirected

from settlepoint import Solution, Tolerance
from settlepoint.layers import Weighted
from settlepoint.models import APPNP, CGS, EIGNN, IGNN, GraphEquilibrium, Graphs

FEATURES, HIDDEN, CLASSES = CHANNELS = (5, 4, 3)
TIGHT = Tolerance(atol=1e-12, max_steps=2000)
NONE = torch.zeros(2, 0, dtype=torch.int64)


def appnp(**settings) -> APPNP:
    return APPNP(CHANNELS, **{"stop": TIGHT, **settings})


def ignn(**settings) -> IGNN:
    """With weights as large as they may be, and both signs."""
    model = IGNN(CHANNELS, **{"stop": TIGHT, **settings})
    with torch.no_grad():
        for w in model.operator.parameters():
            w.mul_(20)
    model.project()
    return model


def cell(model: GraphEquilibrium) -> Any:
    return model.operator.cell


def reported(model: GraphEquilibrium) -> Solution:
    assert model.settle.last is not None
    return model.settle.last


def eignn(**settings) -> EIGNN:
    return EIGNN(CHANNELS, **{"stop": TIGHT, **settings})


def cgs(**settings) -> CGS:
    return CGS(CHANNELS, **{"stop": TIGHT, "heads": 2, **settings})


MODELS: dict[str, Callable[..., GraphEquilibrium]] = {
    "appnp": appnp,
    "ignn": ignn,
    "ignn parametrised": lambda **settings: ignn(parametrised=True, **settings),
    "eignn": eignn,
    "cgs": cgs,
    "cgs edges": lambda **settings: cgs(edge_features=2, **settings),
}


def built(name: str, **settings) -> GraphEquilibrium:
    torch.manual_seed(3)
    return MODELS[name](**settings).double().eval()


def graph(nodes: int, gen: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features and undirected random links, three a node; node 0 is isolated."""
    edges = torch.randint(1, max(nodes, 2), (2, 3 * nodes), generator=gen)
    edges = to_undirected(edges[:, (edges[0] != edges[1]) & (edges.amax(0) < nodes)], num_nodes=nodes)
    return torch.randn(nodes, FEATURES, generator=gen, dtype=torch.float64), edges


def featured(name: str, graphs: Graphs) -> Graphs | Weighted:
    """graphs, with two features an edge that depend on its ends alone where the model asks for them."""
    if name != "cgs edges":
        return graphs
    starts = torch.cumsum(graphs.sizes, 0) - graphs.sizes
    source, target = (graphs.edges - starts[graphs.index[graphs.edges]]).double()
    return Weighted(graphs, torch.stack((torch.cos(source * target), torch.sin(source - target)), 1))


def one(name: str, edges: Tensor, nodes: int) -> Graphs | Weighted:
    return featured(name, Graphs.one(edges, nodes))


def batch(sizes: list[int], gen: torch.Generator) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Graphs]:
    singles, start, edges = [graph(size, gen) for size in sizes], 0, []
    for (_, links), size in zip(singles, sizes, strict=True):
        edges.append(links + start)
        start += size
    joined = torch.cat(edges, 1)
    joined = joined[:, torch.randperm(joined.shape[1], generator=gen)]
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return singles, torch.cat([x for x, _ in singles]), Graphs(joined, index, len(sizes))
