"""RW-SP graphs: the labels are those of the Dirichlet problem, the graphs planar, the draws reproducible."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from settlepoint.data import GraphSet
from settlepoint.data.random_walk import random_walks, reached


def drawn(count: int = 2, seed: int = 0, nodes: int = 40, classes: int = 6, seeds: int = 4) -> GraphSet:
    return random_walks(count, torch.Generator().manual_seed(seed), nodes=nodes, classes=classes, seeds=seeds)


def test_a_walk_on_a_path_by_hand() -> None:
    """Seeds at both ends, conductances 1 and 3: from the middle 3 of 4 walks go to the right."""
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    conductance = torch.tensor([1.0, 1.0, 3.0, 3.0], dtype=torch.float64)
    found = reached(edges, conductance, torch.tensor([0, 2]), 3)
    assert found[1].tolist() == pytest.approx([0.25, 0.75], abs=1e-15)
    assert found[[0, 2]].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_every_node_a_seed() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    found = reached(edges, torch.ones(2, dtype=torch.float64), torch.tensor([1, 0]), 2)
    assert found.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@given(seed=st.integers(0, 2**31))
def test_labels_are_those_of_a_dense_solve(seed: int) -> None:
    """Against torch.linalg.solve on the dense Laplacian in float64; conductances are kept in float32."""
    graph = drawn(1, seed)
    weights = torch.zeros(40, 40, dtype=torch.float64)
    assert graph.edge_x is not None
    weights[graph.edges[0], graph.edges[1]] = graph.edge_x[:, 0].double()
    assert torch.equal(weights, weights.T)
    laplacian = weights.sum(1).diag() - weights
    chosen = graph.x[:, -1].nonzero()[:, 0]
    free = (graph.x[:, -1] == 0).nonzero()[:, 0]
    chance = torch.linalg.solve(laplacian[free][:, free], -laplacian[free][:, chosen])
    assert torch.allclose(chance.sum(1), torch.ones(len(free), dtype=torch.float64), atol=1e-10)
    best = chance.topk(2, 1)
    clear = best.values[:, 0] - best.values[:, 1] > 1e-5  # 1e-7 of rounding in the conductances
    named = graph.x[chosen, :-1].argmax(1)[best.indices[:, 0]]
    assert torch.equal(graph.y[free][clear], named[clear])


def test_features_are_the_class_at_a_seed_and_nothing_elsewhere() -> None:
    graphs = drawn(3)
    for row in range(3):
        graph = graphs.take([row])
        at_seed = graph.x[:, -1] == 1
        assert int(at_seed.sum()) == 4
        assert not graph.x[~at_seed].any()
        code = graph.x[at_seed, :-1]
        assert torch.equal(code.sum(1), torch.ones(4))
        assert torch.equal(code.argmax(1), graph.y[at_seed])
        assert len(graph.y[at_seed].unique()) == 4
        assert set(graph.y.tolist()) == set(graph.y[at_seed].tolist())


def test_graphs_are_connected_and_planar() -> None:
    graphs = drawn(3)
    assert graphs.edges.shape[1] <= 3 * 2 * (3 * 40 - 6)  # of a planar graph, both directions
    links = coo_array((torch.ones(graphs.edges.shape[1]).numpy(), graphs.edges.numpy()), (120, 120))
    assert connected_components(links)[0] == 3
    assert not (graphs.edges[0] == graphs.edges[1]).any()


def test_most_labels_are_decided_far_away() -> None:
    """Two links around the seeds of a graph of the published size hold fewer than a quarter of its nodes."""
    graphs = random_walks(4, torch.Generator().manual_seed(1))
    assert len(graphs.x) == 4 * 477
    near = graphs.x[:, -1] > 0
    for _ in range(2):
        near = near.index_put((graphs.edges[1],), near[graphs.edges[0]], accumulate=True)
    assert 0 < float(near.double().mean()) < 0.25


def test_a_generator_gives_the_same_graphs_and_goes_on() -> None:
    gen = torch.Generator().manual_seed(5)
    first, second = (random_walks(1, gen, nodes=40, classes=6, seeds=4) for _ in range(2))
    both = drawn(2, seed=5)
    for name in ("x", "y", "edges", "edge_x"):
        assert torch.equal(getattr(both.take([0]), name), getattr(first, name))
        assert torch.equal(getattr(both.take([1]), name), getattr(second, name))
    assert not torch.equal(first.y, second.y)


def test_no_graphs_are_a_set_too() -> None:
    none = drawn(0)
    assert (len(none), none.x.shape, none.classes) == (0, (0, 7), 6)
    assert len(GraphSet.joined([none, drawn(1)])) == 1


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"count": -1}, "count must be at least 0, got -1"),
        ({"nodes": 3, "seeds": 2}, "nodes must be at least 4, for a Delaunay graph, got 3"),
        ({"seeds": 0}, r"seeds must lie in \[1, min\(nodes, classes\)\] = \[1, 6\], got 0"),
        ({"seeds": 7}, r"\[1, 6\], got 7"),
        ({"nodes": 5, "seeds": 6}, r"\[1, 5\], got 6"),
    ],
)
def test_numbers_that_make_no_graph_are_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(**numbers)
