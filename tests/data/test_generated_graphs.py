"""Generated graphs with exact answers: distances and values against other oracles, odd sizes, and what is refused."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.sparse.csgraph import bellman_ford, connected_components
from torch import Tensor

from settlepoint.data import GraphSet
from settlepoint.data.shortest_paths import Kind, connected_links, distances, neighbours, shortest_paths
from settlepoint.data.value_iteration import decision_processes, values

KINDS = pytest.mark.parametrize("kind", get_args(Kind))
GAMMA = 0.9


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(graphs: GraphSet) -> Tensor:  # (E,)
    """The one feature of every edge."""
    assert graphs.edge_x is not None
    return graphs.edge_x[:, 0]


def links(graphs: GraphSet) -> list[tuple[int, int, float]]:
    return sorted(zip(*graphs.edges.tolist(), number(graphs).tolist(), strict=True))


@KINDS
def test_distances_are_those_of_bellman_and_ford(kind: Kind) -> None:
    """SciPy's other algorithm on the lengths as stored, rounded to float32."""
    for graph in map(shortest_paths(6, drawn(0), kind=kind).take, ([k] for k in range(6))):
        nodes, source = len(graph.x), int(graph.x[:, 0].argmax())
        matrix = coo_array((number(graph).double().numpy(), graph.edges.numpy()), (nodes, nodes)).tocsr()
        found = torch.as_tensor(bellman_ford(matrix, indices=source))
        torch.testing.assert_close(graph.y.double(), found, atol=1e-5, rtol=1e-6)


@given(
    kind=st.sampled_from(get_args(Kind)), nodes=st.integers(1, 40), degree=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_links_make_one_part_and_come_once(kind: Kind, nodes: int, degree: int, seed: int) -> None:
    found = connected_links(kind, nodes, drawn(seed), degree=degree)
    assert bool((found[0] < found[1]).all())
    assert found.unique(dim=1).shape == found.shape
    ones = np.ones(found.shape[1])
    assert connected_components(coo_array((ones, found.numpy()), (nodes, nodes)), directed=False)[0] == 1


def test_a_graph_that_falls_apart_is_joined() -> None:
    """One neighbour each leaves pairs and chains; as many parts as are lost are bridges more."""
    points = torch.rand(40, 2, generator=drawn(3), dtype=torch.float64)
    pairs = neighbours(points, 1).sort(0).values.unique(dim=1)
    parts, _ = connected_components(coo_array((np.ones(pairs.shape[1]), pairs.numpy()), (40, 40)), directed=False)
    assert parts > 1
    assert connected_links("nearest", 40, drawn(3), degree=1).shape[1] == pairs.shape[1] + parts - 1


@KINDS
def test_graphs_hold_what_is_promised(kind: Kind) -> None:
    graphs = shortest_paths(20, drawn(1), nodes=(4, 9), kind=kind, lengths=(0.5, 1.5))
    sizes = torch.bincount(graphs.index, minlength=20)
    assert (len(graphs), int(sizes.min()), int(sizes.max()), graphs.classes) == (20, 4, 9, 0)
    starts = torch.zeros(20).index_add(0, graphs.index, graphs.x[:, 0])
    assert starts.tolist() == [1.0] * 20
    assert torch.equal(graphs.y == 0, graphs.x[:, 0] == 1)
    assert 0.5 <= float(number(graphs).min()) < 0.6 < 1.4 < float(number(graphs).max()) <= 1.5
    assert links(graphs) == sorted((t, s, length) for s, t, length in links(graphs))


@pytest.mark.parametrize("make", [shortest_paths, decision_processes])
def test_a_generator_decides_everything(make: Any) -> None:
    first, again, other = make(3, drawn(5)), make(3, drawn(5)), make(3, drawn(6))
    for name in ("x", "y", "edges", "edge_x", "index"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.y[:5], other.y[:5])


@pytest.mark.parametrize("make", [shortest_paths, decision_processes])
def test_no_graphs_can_be_asked_for(make: Any) -> None:
    none, some = make(0, drawn(0)), make(1, drawn(0))
    assert (len(none), none.x.shape, none.edges.shape) == (0, (0, some.x.shape[1]), (2, 0))
    assert len(GraphSet.joined([none, some])) == 1


@KINDS
def test_a_single_node_is_its_own_source(kind: Kind) -> None:
    graph = shortest_paths(1, drawn(0), nodes=(1, 1), kind=kind)
    assert (graph.x.tolist(), graph.y.tolist(), graph.edges.shape) == ([[1.0]], [0.0], (2, 0))


def test_of_two_edges_the_shorter_counts() -> None:
    edges = torch.tensor([[0, 0, 1], [1, 1, 2]])
    assert distances(edges, torch.tensor([5.0, 2.0, 1.0]), 0, 3).tolist() == [0.0, 2.0, 3.0]


def test_neighbours_are_the_nearest() -> None:
    """Against the full table of distances."""
    points = torch.rand(30, 2, generator=drawn(2), dtype=torch.float64)
    expected = torch.cdist(points, points).argsort(1)[:, 1:5]
    assert torch.equal(neighbours(points, 4)[1].view(30, 4), expected)
    assert neighbours(points, 0).shape == (2, 0)


def test_values_solve_the_linear_programme() -> None:
    """V is the smallest vector with V_t >= r + gamma V_s for every edge (SciPy's HiGHS, to its 1e-7)."""
    for graph in map(decision_processes(4, drawn(0), gamma=GAMMA).take, ([k] for k in range(4))):
        (source, target), paid, nodes = graph.edges.numpy(), number(graph).double().numpy(), len(graph.x)
        above = np.zeros((len(paid), nodes))
        rows = np.arange(len(paid))
        above[rows, target] -= 1.0
        above[rows, source] += GAMMA
        found = linprog(np.ones(nodes), above, -paid, bounds=(None, None)).x
        torch.testing.assert_close(graph.y.double(), torch.as_tensor(found), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_values_are_exact(gamma: float) -> None:
    """Against the linear system of the best actions, which value iteration only approaches."""
    graph = decision_processes(1, drawn(1), gamma=0.5)
    paid, nodes = number(graph).double(), len(graph.x)
    found = values(graph.edges, paid, gamma, nodes)
    gain = paid + gamma * found[graph.edges[0]]
    best = torch.stack([torch.where(graph.edges[1] == state, gain, -torch.inf).argmax() for state in range(nodes)])
    matrix = torch.eye(nodes).double()
    matrix[torch.arange(nodes), graph.edges[0, best]] -= gamma
    assert float((found - torch.linalg.solve(matrix, paid[best])).abs().max()) < 1e-10


def test_processes_hold_what_is_promised() -> None:
    graphs = decision_processes(10, drawn(2), nodes=(7, 12), actions=3)
    sizes = torch.bincount(graphs.index)
    assert (len(graphs), int(sizes.min()), int(sizes.max()), graphs.classes) == (10, 7, 12, 0)
    assert torch.bincount(graphs.edges[1], minlength=len(graphs.x)).tolist() == [3] * len(graphs.x)
    rewards = number(graphs)[graphs.edges[1].argsort(stable=True)].view(-1, 3)
    assert torch.equal(graphs.x[:, 0], rewards.max(1).values)
    torch.testing.assert_close(graphs.x[:, 1], rewards.mean(1))
    assert bool((graphs.edges[0] != graphs.edges[1]).all())


def test_values_need_no_connected_graph() -> None:
    """Two states that only stay where they are: V = r / (1 - gamma) each."""
    stay = torch.tensor([[0, 1], [0, 1]])
    torch.testing.assert_close(values(stay, torch.tensor([1.0, 3.0]), 0.5, 2), torch.tensor([2.0, 6.0]).double())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": -1}, "count must be at least 0, got -1"),
        ({"nodes": (0, 4)}, r"nodes must be \(least, most\) with 1 <= least <= most, got \(0, 4\)"),
        ({"nodes": (-3, -1)}, r"nodes must be .* got \(-3, -1\)"),
        ({"nodes": (9, 4)}, r"nodes must be .* got \(9, 4\)"),
        ({"kind": "cube"}, "kind must be one of planar, nearest, random, got 'cube'"),
        ({"degree": 0}, "nodes and degree must be at least 1, got [0-9]+ and 0"),
        ({"lengths": (0.0, 1.0)}, r"lengths must be \(least, most\) with 0 < least <= most, got \(0.0, 1.0\)"),
        ({"lengths": (2.0, 1.0)}, "lengths must be"),
        ({"lengths": (1.0, float("nan"))}, "lengths must be"),
        ({"lengths": (1.0, float("inf"))}, "lengths must be"),
    ],
)
def test_paths_that_cannot_be_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shortest_paths(settings.pop("count", 2), drawn(0), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": -1}, "count must be at least 0, got -1"),
        ({"nodes": (0, 4)}, r"nodes must be \(least, most\) with 5 actions < least <= most, got \(0, 4\)"),
        ({"nodes": (5, 9)}, r"5 actions < least <= most, got \(5, 9\)"),
        ({"nodes": (9, 8)}, r"got \(9, 8\)"),
        ({"actions": 0}, "with 0 actions"),
        ({"gamma": 1.0}, r"gamma must lie in \[0, 1\), or values are infinite, got 1.0"),
        ({"gamma": -0.1}, "gamma must lie in .* got -0.1"),
        ({"gamma": float("nan")}, "gamma must lie in .* got nan"),
        ({"sharpness": 0.0}, "sharpness must be positive, got 0.0"),
        ({"sharpness": float("nan")}, "sharpness must be positive, got nan"),
    ],
)
def test_processes_that_cannot_be_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decision_processes(settings.pop("count", 2), drawn(0), **settings)


ONE = torch.tensor([[0], [1]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, torch.ones(1), 0, 4), "source 0 must reach every node, got 2 unreached, first 2"),
        ((ONE, torch.ones(1), 1, 2), "source 1 must reach every node, got 1 unreached, first 0"),
        ((ONE, torch.ones(1), 2, 2), r"source must be a node in \[0, 2\), got 2"),
        ((ONE[:, :0], torch.ones(0), 0, 0), r"source must be a node in \[0, 0\), got 0"),
        ((ONE, torch.zeros(1), 0, 2), "lengths must be positive, got 0.0"),
        ((ONE, torch.tensor([torch.nan]), 0, 2), "lengths must be finite, edge 0 is not"),
        ((ONE, torch.ones(2), 0, 2), r"lengths must be \(1,\), one an edge, got \(2,\)"),
        ((ONE, torch.ones(1), 0, 1), r"edges must name nodes in \[0, 1\), got 0 to 1"),
        ((torch.tensor([0, 1]), torch.ones(1), 0, 2), r"edges must be \(2, E\), source and target, got \(2,\)"),
    ],
)
def test_distances_that_do_not_exist(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distances(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, torch.ones(1), 0.5, 2), "every state must have an action, got 1 without, first 0"),
        ((ONE, torch.ones(1), 1.0, 2), r"gamma must lie in \[0, 1\)"),
        ((ONE, torch.tensor([torch.inf]), 0.5, 2), "rewards must be finite, edge 0 is not"),
        ((-ONE, torch.ones(1), 0.5, 2), r"edges must name nodes in \[0, 2\), got -1 to 0"),
    ],
)
def test_values_that_do_not_exist(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        values(*arguments)
