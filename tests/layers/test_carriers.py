"""Graphs that carry features: normalised, or weighted edge by edge; and the projection that bounds a weight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.models.implicit_models import batch

from settlepoint.layers import Normalised, Weighted, incoming_softmax, rows_projected
from settlepoint.models import Graphs


def test_projection_is_the_nearest_matrix(generator: torch.Generator) -> None:
    """Against the optimality of the l1 ball: <w - p, q - p> <= 0 for all q of it, its corners suffice."""
    w = 3 * torch.randn(6, 5, dtype=torch.float64, generator=generator)
    w[0] = 0.01 * w[0]
    p = rows_projected(w, 0.7)
    corners = 0.7 * torch.cat((torch.eye(5), -torch.eye(5))).double()
    assert torch.equal(p[0], w[0])
    assert float(p.abs().sum(1).max()) == pytest.approx(0.7, rel=1e-12)
    reach = torch.einsum("ij,cij->ci", w - p, corners[:, None] - p)
    assert float(reach.max()) <= 1e-12


def test_incoming_weights_sum_to_one(generator: torch.Generator) -> None:
    """Also of scores whose exponentials would overflow."""
    targets = torch.tensor([0, 0, 2, 2, 2])
    scores = 1000 * torch.randn(5, 3, generator=generator)
    total = torch.zeros(4, 3).index_add(0, targets, incoming_softmax(scores, targets, 4))
    torch.testing.assert_close(total, torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None].expand(4, 3))


def test_weights_carry_alike_with_and_without_gradients(generator: torch.Generator) -> None:
    """Two heads, an edge that comes twice, against a loop over the edges."""
    _, x, graphs = batch([3, 6], generator)
    graphs = Graphs(torch.cat((graphs.edges, graphs.edges[:, :1]), 1), graphs.index, 2)
    x, weight = x[:, :4], torch.randn(graphs.edges.shape[1], 2, dtype=torch.float64, generator=generator)
    here, expected = Weighted(graphs, weight), torch.zeros_like(x)
    for (s, t), w in zip(graphs.edges.T, weight, strict=True):
        expected[t] += w.repeat_interleave(2) * x[s]
    recorded = here.carried(here.table(x))
    with torch.no_grad():
        plain = here.carried(here.table(x))
    for found in (recorded, plain):
        torch.testing.assert_close(here.nodes(found), expected, atol=1e-12, rtol=0)


def test_degrees_are_undone_by_nodes(generator: torch.Generator) -> None:
    _, x, graphs = batch([3, 6], generator)
    here = Normalised(graphs, torch.float64, by_degree=True)
    torch.testing.assert_close(here.nodes(here.table(x)), x)
    row_sums = here.matrix @ torch.ones(9, 1, dtype=torch.float64)
    torch.testing.assert_close(row_sums, torch.ones(9, 1, dtype=torch.float64))


ONE_WAY = torch.tensor([[0], [1]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weighted(Graphs.one(ONE_WAY, 2), torch.ones(2, 1)), r"weight must be \(1, k\).*got \(2, 1\)"),
        (lambda: Weighted(Graphs.one(ONE_WAY, 1), torch.ones(1, 1)), r"edges must name nodes in \[0, 1\), got 1"),
        (lambda: Normalised(Graphs.one(ONE_WAY, 2), torch.float32), "1 out of node 0 and 0 into it"),
        (lambda: rows_projected(torch.ones(3), 1.0), r"weight must be a matrix, got \(3,\)"),
        (lambda: rows_projected(torch.ones(3, 3), 0.0), "bound must be positive, got 0.0"),
    ],
)
def test_wrong_calls_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
