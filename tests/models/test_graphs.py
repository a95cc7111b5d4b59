"""Graphs: nodes to rows and back, and restriction to some of the graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from settlepoint.layers.sparse import Places
from settlepoint.models import Graphs


def several(sizes: list[int], gen: torch.Generator) -> Graphs:
    """Random directed edges inside each graph, two a node on average."""
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    start, edges = 0, [torch.zeros(2, 0, dtype=torch.int64)]
    for size in sizes:
        edges.append(start + torch.randint(max(size, 1), (2, 2 * size), generator=gen))
        start += size
    return Graphs(torch.cat(edges, 1), index, len(sizes))


SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=6)


@given(sizes=SIZES, seed=st.integers(0, 99))
def test_nodes_undo_table(sizes: list[int], seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    graphs = several(sizes, gen)
    x = torch.randn(sum(sizes), 3, generator=gen)
    table = graphs.table(x)
    assert table.shape == (len(sizes), max(sizes), 3)
    assert torch.equal(graphs.nodes(table), x)
    torch.testing.assert_close(table.norm(), x.norm())  # padding is zero
    for part, row in zip(x.split(sizes), table, strict=True):
        assert torch.equal(row[: len(part)], part)


@given(sizes=SIZES, seed=st.integers(0, 99))
def test_a_selection_is_the_graphs_themselves(sizes: list[int], seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    graphs = several(sizes, gen)
    x = torch.randn(sum(sizes), 2, generator=gen)
    rows = torch.rand(len(sizes), generator=gen).gt(0.4).nonzero().flatten()
    chosen = graphs.select(rows)
    table = graphs.table(x)[rows]
    starts = torch.cumsum(graphs.sizes, 0) - graphs.sizes
    assert chosen.length == graphs.length  # as wide as before, so that states can be gathered
    assert torch.equal(chosen.sizes, graphs.sizes[rows])
    new = torch.cumsum(chosen.sizes, 0) - chosen.sizes
    for k, row in enumerate(rows.tolist()):
        old_edges = graphs.edges[:, graphs.index[graphs.edges[0]] == row] - starts[row]
        new_edges = chosen.edges[:, chosen.index[chosen.edges[0]] == k] - new[k]
        assert torch.equal(old_edges, new_edges)
    assert torch.equal(chosen.table(chosen.nodes(table)), table)


def test_all_graphs_are_the_graphs(generator: torch.Generator) -> None:
    graphs = several([2, 3], generator)
    assert graphs.select(torch.arange(2)) is graphs


def test_the_mean_is_that_of_each_graph() -> None:
    graphs = Graphs(torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0, 2]), 3)
    x = torch.tensor([[1.0], [3.0], [5.0]])
    assert graphs.mean(x).tolist() == [[2.0], [0.0], [5.0]]


EDGES, NODES = torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("edges", "index", "count", "message"),
    [
        (EDGES, torch.tensor([1, 0]), 2, "ascending"),
        (EDGES, NODES, 1, r"\[0, 1\), got up to 1"),
        (EDGES, NODES.float(), 2, "integers"),
        (EDGES.T, NODES, 2, r"\(2, E\).*got \(0, 2\)"),
        (torch.eye(4).to_sparse(), NODES, 2, r"edges must be \(3, 3\), one row a node, got \(4, 4\)"),
        (torch.ones(3, 3).to_sparse(), NODES, 2, "edges must stay within a graph, edge 2 joins graphs"),
        (torch.tensor([[0], [3]]), NODES, 2, r"edges must name nodes in \[0, 3\), got 3"),
        (torch.tensor([[-1], [0]]), NODES, 2, r"edges must name nodes in \[0, 3\), got -1"),
        (torch.tensor([[0, 1], [1, 2]]), NODES, 2, r"edges must stay within a graph, edge 1 joins graphs \[0, 1\]"),
    ],
)
def test_wrong_graphs_are_refused(edges: torch.Tensor, index: torch.Tensor, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graphs(edges, index, count)


def test_a_matrix_of_blocks_is_selected_as_edges_are(generator: torch.Generator) -> None:
    index = torch.tensor([0, 0, 0, 1, 2, 2])
    edges = torch.tensor([[0, 1, 2, 0, 4, 5], [1, 2, 0, 0, 5, 4]])
    values = torch.rand(6, generator=generator)
    matrix = torch.sparse_coo_tensor(edges, values, (6, 6), check_invariants=False)
    rows = torch.tensor([0, 2])
    by_edges, by_matrix = Graphs(edges, index, 3).select(rows), Graphs(matrix, index, 3).select(rows)
    dense = torch.zeros(5, 5)
    dense[by_edges.edges[0], by_edges.edges[1]] = values
    by_rows = Graphs(Places.of(matrix.coalesce()).matrix(matrix.coalesce().values()), index, 3).select(rows)
    assert by_rows.edges.layout == torch.sparse_csr
    assert torch.equal(by_rows.edges.to_dense(), dense)
    assert torch.equal(by_matrix.edges.to_dense(), dense)
    assert torch.equal(by_matrix.index, by_edges.index)


def test_a_batch_of_torch_geometric_is_read() -> None:
    one, two = Data(torch.zeros(2, 1), torch.tensor([[0], [1]])), Data(torch.zeros(3, 1), torch.zeros(2, 0).long())
    graphs = Graphs.of(Batch.from_data_list([one, two]))
    assert (graphs.count, graphs.sizes.tolist(), graphs.edges.tolist()) == (2, [2, 3], [[0], [1]])
    assert (Graphs.of(one).count, Graphs.of(one).length) == (1, 2)
