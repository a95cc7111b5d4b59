"""Sets of graphs are taken, joined and refused; edges may lie in any order, and graphs may be empty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from settlepoint.data import DataError, GraphSet
from settlepoint.data.graph_set import line


def of_sizes(*sizes: int, shuffled: int | None = None) -> GraphSet:
    """Paths of these sizes with x = 10 * graph + node, edge features = (source, target) there, edges shuffled."""
    x, y, edges, index, first = [], [], [], [], 0
    for graph, size in enumerate(sizes):
        nodes = torch.arange(size)
        x.append(10.0 * graph + nodes)
        y.append(nodes % 3 - 1)
        edges.append(line(size).edges + first)
        index.append(torch.full((size,), graph))
        first += size
    links, features = torch.cat(edges, 1), torch.cat(x)[:, None]
    if shuffled is not None:
        order = torch.randperm(links.shape[1], generator=torch.Generator().manual_seed(shuffled))
        links = links[:, order]
    return GraphSet(
        x=features, y=torch.cat(y), edges=links, index=torch.cat(index), count=len(sizes), classes=2,
        edge_x=features[:, 0][links].T, names=[f"path {graph}" for graph in range(len(sizes))],
    )  # fmt: skip


def bag(graphs: GraphSet) -> list[list[float]]:
    """The edges as sorted pairs of the features of their ends: what a graph is, whatever the order."""
    return sorted(graphs.x[:, 0][graphs.edges].T.tolist())


def test_take_numbers_the_nodes_anew() -> None:
    found = of_sizes(2, 0, 3).take([2, 0, 2, 1])
    assert found.x[:, 0].tolist() == [20, 21, 22, 0, 1, 20, 21, 22]
    assert found.index.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert (found.count, list(found.names)) == (4, ["path 2", "path 0", "path 2", "path 1"])
    assert found.edges.tolist() == [[0, 1, 1, 2, 3, 4, 5, 6, 6, 7], [1, 2, 0, 1, 4, 3, 6, 7, 5, 6]]


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    rows=st.lists(st.integers(0, 99), max_size=6),
    seed=st.integers(0, 99),
)
def test_taking_is_joining_single_graphs(sizes: list[int], rows: list[int], seed: int) -> None:
    """Shuffled edges, empty graphs and graphs that come twice included; edge features stay with their edges."""
    graphs, rows = of_sizes(*sizes, shuffled=seed), [row % len(sizes) for row in rows]
    found = graphs.take(rows)
    ordered = of_sizes(*sizes)
    singles = [ordered.take([row]) for row in rows]
    assert bag(found) == sorted(edge for single in singles for edge in bag(single))
    assert found.edge_x is not None
    assert torch.equal(found.edge_x, found.x[:, 0][found.edges].T)
    assert found.index.tolist() == [place for place, single in enumerate(singles) for _ in single.x]
    if singles:
        joined = GraphSet.joined(singles)
        assert torch.equal(joined.x, found.x)
        assert torch.equal(joined.y, found.y)
        assert bag(joined) == bag(found)
        assert joined.names == found.names


def test_taking_keeps_the_order_of_edges_within_a_graph() -> None:
    graphs = of_sizes(4, 3, shuffled=1)
    mine = graphs.edges[:, graphs.index[graphs.edges[0]] == 1]
    assert torch.equal(graphs.take([1]).edges, mine - 4)


def test_nothing_can_be_taken_and_joined() -> None:
    nothing = of_sizes(2, 3).take([])
    assert (len(nothing), nothing.x.shape, nothing.edges.shape) == (0, (0, 1), (2, 0))
    assert len(GraphSet.joined([nothing, of_sizes(2)])) == 1


def test_isolated_nodes_and_graphs_without_edges_or_nodes() -> None:
    lonely = line(0), line(1), line(3)
    joined = GraphSet.joined(lonely)
    assert (len(joined), joined.index.tolist()) == (3, [1, 2, 2, 2])
    for row, single in enumerate(lonely):
        assert torch.equal(joined.take([row]).x, single.x)
        assert torch.equal(joined.take([row]).edges, single.edges)
    isolated = GraphSet(
        x=torch.zeros(3, 1), y=torch.zeros(3, dtype=torch.int64), edges=torch.zeros(2, 0, dtype=torch.int64),
        index=torch.tensor([0, 0, 2]), count=4, classes=1,
    )  # fmt: skip
    assert isolated.take([3, 1, 2]).index.tolist() == [2]


def test_joined_counts_on() -> None:
    joined = GraphSet.joined([of_sizes(2, 1), of_sizes(0, 3)])
    assert joined.index.tolist() == [0, 0, 1, 3, 3, 3]
    assert joined.edges.tolist() == [[0, 1, 3, 4, 4, 5], [1, 0, 4, 5, 3, 4]]
    assert list(joined.names) == ["path 0", "path 1", "path 0", "path 1"]


def test_to_casts_features_and_nothing_else() -> None:
    found = of_sizes(2, 3).to("cpu", torch.float64)
    assert (found.x.dtype, found.y.dtype, found.edges.dtype) == (torch.float64, torch.int64, torch.int64)
    assert found.edge_x is not None
    assert found.edge_x.dtype == torch.float64
    assert found.to("cpu").x.dtype == torch.float64


def test_numbers_may_stand_for_classes() -> None:
    values = torch.tensor([0.5, -2.0])
    graphs = GraphSet(x=torch.zeros(2, 1), y=values, edges=line(2).edges, index=torch.zeros(2, dtype=int), count=1)
    assert torch.equal(graphs.take([0]).y, values)


def good() -> dict[str, object]:
    zeros = torch.zeros(3, dtype=torch.int64)
    return {
        "x": torch.ones(3, 2), "y": zeros, "edges": torch.tensor([[0, 1], [1, 0]]), "index": torch.tensor([0, 0, 1]),
        "count": 2, "classes": 2, "edge_x": torch.ones(2, 1), "names": ["a", "b"],
    }  # fmt: skip


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(3)}, r"x must be \(N, F\)"),
        ({"edges": torch.tensor(1)}, r"edges \(2, E\)"),
        ({"edges": torch.zeros(3, 2, dtype=torch.int64)}, r"edges must be \(2, E\) of integers, got \(3, 2\)"),
        ({"edges": torch.zeros(2, 2)}, "of torch.float32"),
        ({"edges": torch.ones(2, 2, dtype=torch.bool)}, "of torch.bool"),
        ({"edges": torch.tensor([[0, 3], [1, 0]])}, r"edges must name nodes in \[0, 3\), got 3"),
        ({"edges": torch.tensor([[0, -1], [1, 0]])}, r"edges must name nodes in \[0, 3\), got -1"),
        ({"edges": torch.tensor([[0, 2], [1, 1]])}, r"edge 1 joins graphs \[1, 0\]"),
        ({"y": torch.zeros(2, dtype=torch.int64)}, r"y must be \(3,\), one value a node of x, got \(2,\)"),
        ({"y": torch.tensor([0, 1, 2])}, r"y must lie in \[0, 2\), or be -1 for unscored, got 2"),
        ({"y": torch.tensor([0, -2, 1])}, "got -2"),
        ({"y": torch.tensor([0.0, NAN, 1.0])}, "y must hold integers, since there are 2 classes, got torch.float32"),
        ({"y": torch.tensor([0.0, NAN, 1.0]), "classes": 0}, "y must be finite, row 1 is not"),
        ({"x": torch.tensor([[0.0, 1.0], [0.0, 1.0], [INF, 0.0]])}, "x must be finite, row 2 is not"),
        ({"edge_x": torch.tensor([[0.0], [NAN]])}, "edge_x must be finite, row 1 is not"),
        ({"edge_x": torch.ones(3, 1)}, r"edge_x must be \(2, D\), one row an edge, got \(3, 1\)"),
        ({"edge_x": torch.ones(2)}, r"edge_x must be \(2, D\)"),
        ({"index": torch.tensor([0, 1, 0])}, r"index must ascend within \[0, 2\)"),
        ({"index": torch.tensor([0, 0, 2])}, r"index must ascend within \[0, 2\)"),
        ({"index": torch.tensor([-1, 0, 1])}, r"index must ascend within \[0, 2\)"),
        ({"index": torch.zeros(3)}, "index must hold integers"),
        ({"names": ["a"]}, "names must be 2, one a graph, got 1"),
    ],
)
def test_bad_sets_are_refused(change: dict[str, object], message: str) -> None:
    GraphSet(**good())  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        GraphSet(**{**good(), **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [[2], [-1], torch.tensor([0, 5])])
def test_rows_out_of_range(rows: list[int] | Tensor) -> None:
    with pytest.raises(IndexError, match=r"rows must lie in \[0, 2\), got"):
        of_sizes(1, 2).take(rows)


def test_a_mask_is_no_list_of_rows() -> None:
    with pytest.raises(IndexError, match="rows must be numbers of graphs, got a mask"):
        of_sizes(1, 2).take(torch.tensor([False, True]))


def test_sets_that_differ_are_not_joined() -> None:
    plain = of_sizes(2)
    without = GraphSet(x=plain.x, y=plain.y, edges=plain.edges, index=plain.index, count=1, classes=2)
    wide = GraphSet(
        x=plain.x, y=plain.y, edges=plain.edges, index=plain.index, count=1, classes=2, edge_x=torch.ones(2, 3)
    )
    for other in (without, wide, line(2)):
        with pytest.raises(DataError, match="must agree in features, classes and edge features"):
            GraphSet.joined([plain, other])
    with pytest.raises(DataError, match="got none"):
        GraphSet.joined([])
