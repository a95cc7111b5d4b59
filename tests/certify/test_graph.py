"""Theorem 4 of the first paper, corrected: graph operators, and the norms in which they contract."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells import DOUBLE
from tests.certify.equations import iterated
from torch import Tensor, nn

from settlepoint import Equation, Segments, certify
from settlepoint.layers import pyg

NODES = 7


def star(leaves: int) -> Tensor:
    """Every leaf hears the centre, node 0, alone, and the centre all leaves."""
    ends = torch.tensor([[0] * leaves, list(range(1, leaves + 1))])
    return torch.cat((ends, ends.flip(0)), 1)


def random_edges(generator: torch.Generator) -> Tensor:
    """Both directions; the last node has none."""
    ends = torch.randint(0, NODES - 1, (2, 14), generator=generator)
    return torch.unique(torch.cat((ends, ends.flip(0)), 1), dim=1)


def sized(conv: nn.Module, size: float, norm: str = "two") -> nn.Module:
    """Every matrix of norm `size`, without biases."""
    conv = conv.double().eval()
    with torch.no_grad():
        for p in conv.parameters():
            if p.ndim == 2:
                p.mul_(size / (torch.linalg.matrix_norm(p, 2) if norm == "two" else p.abs().sum(1).max()))
    return conv.requires_grad_(False)


def one_graph(conv: nn.Module, edges: Tensor, share: float, nodes: int, generator: torch.Generator) -> Equation:
    """x = (1 - share) conv(x) + share u on one graph, one row."""
    u = torch.randn(nodes, 3, dtype=DOUBLE, generator=generator)
    space = Segments(torch.zeros(nodes, dtype=torch.int64), 1)
    return Equation(lambda x: (1 - share) * conv(x, edges), share * u, space=space)


def test_pign_contracts_whatever_the_graph(generator):
    """The paper's a + (1 - a) ||W||_2 counts u, which does not move: (1 - a) ||W||_2 it is, since ||A||_2 <= 1."""
    for edges in (star(NODES - 1), random_edges(generator)):
        conv = sized(pyg().GCNConv(3, 3, bias=False), 1.0)
        eq = one_graph(conv, edges, 0.1, NODES, generator)
        x = torch.zeros(NODES, 3, dtype=DOUBLE)
        found = certify.certificate(eq, x, "banach")
        assert found.counts() == {"proved": 1}
        assert 0.9 * 0.99 <= float(found.rate) <= 0.9 * (1 + 1e-6)
        _check_error(eq, x, found)


def _check_error(eq: Equation, x: Tensor, found: certify.Certificate) -> None:
    """Against the fixed point of 400 steps: .9^400 = 5e-19."""
    fixed = iterated(eq, x, 400)
    assert float((fixed - x).norm()) <= float(found.radius)


def test_the_mean_over_neighbours_expands_in_the_2_norm(generator):
    """A star of 16: 16 leaves hear the centre, so that x -> mean has norm 4 in the 2-norm, and 1 in the node norm."""
    edges, x = star(16), torch.zeros(17, 3, dtype=DOUBLE)
    conv = sized(pyg().SAGEConv(3, 3, aggr="mean", root_weight=False, bias=False), 1.0)
    J = torch.func.jacrev(lambda z: conv(z, edges).flatten())(x).reshape(51, 51)
    true = float(torch.linalg.matrix_norm(J, 2))
    assert true == pytest.approx(4)
    assert true * (1 - 1e-12) <= certify.lipschitz_upper(conv, example=(x, edges)) <= 4 * 1.001
    assert certify.lipschitz_upper(conv, example=(x, edges), norm="node") == pytest.approx(1)
    eq = one_graph(conv, edges, 0.1, 17, generator)
    assert certify.graph(eq, x, "two").counts() == {"refused": 1}
    found = certify.graph(eq, x, "node")  # the sup norm of W may be smaller still
    assert found.counts() == {"proved": 1}
    assert found.method == ("graph",)
    assert "L = 0.9 in the largest 2-norm of a node" in found.reason[0]
    assert float(found.rate) == pytest.approx(0.9)
    _check_error(eq, x, found)


def test_the_maximum_counts_neighbourhoods_by_their_root(generator):
    """C = 9 neighbourhoods hold the centre: sqrt(C) in the 2-norm, where the paper has C; 1 in the sup norm.

    Attained: all leaves read the centre, and move by what it moves.
    """
    edges, x = star(9), torch.zeros(10, 3, dtype=DOUBLE)
    conv = sized(pyg().SAGEConv(3, 3, aggr="max", root_weight=False, bias=False), 1.0, "sup")
    with torch.no_grad():
        next(conv.parameters()).copy_(torch.eye(3))
    bound = certify.lipschitz_upper(conv, example=(x, edges))
    assert bound == pytest.approx(3)
    assert certify.lipschitz_upper(conv, example=(x, edges), norm="sup") == pytest.approx(1)
    moved = torch.zeros_like(x)
    moved[0] = 1.0
    change = float((conv(moved, edges) - conv(x, edges)).norm() / moved.norm())
    assert change == pytest.approx(3)
    eq = one_graph(conv, edges, 0.1, 10, generator)
    found = certify.graph(eq, x)
    assert found.counts() == {"proved": 1}
    assert "in the largest entry" in found.reason[0]
    _check_error(eq, x, found)


def test_lemma_3_needs_the_absolute_value():
    """a = (0, 0), b = (0, 1): max a - max b = -1, and max (a - b) = 0."""
    a, b = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])
    assert float((a.max() - b.max()).abs()) > float((a - b).max())
    assert float((a.max() - b.max()).abs()) <= float((a - b).abs().max())


@pytest.mark.parametrize("norm", ["two", "node", "sup"])
def test_radii_are_in_the_2_norm_whatever_contracts(norm, generator):
    """Whole rows of errors against whole rows of radii; states (R, n, h), several rows."""
    W = torch.randn(3, 3, dtype=DOUBLE, generator=generator)
    W = 0.5 * W / W.abs().sum(0).max()
    A = torch.rand(4, 4, dtype=DOUBLE, generator=generator)
    A = A / A.sum(1, keepdim=True)
    u = torch.randn(5, 4, 3, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x, u: torch.tanh(A @ x @ W) + u, context=(u,))
    x = 3 * torch.randn(5, 4, 3, dtype=DOUBLE, generator=generator)
    found = certify.graph(eq, x, norm)
    assert found.counts() == {"proved": 5}
    fixed = iterated(eq, x, 300)
    error = (x - fixed).flatten(1).norm(dim=1)
    assert bool((error <= found.radius).all())
    assert bool((found.radius <= 40 * error).all())  # sqrt(12) (1 + .5) / (1 - .5), and the slack of the norms


def test_the_best_norm_is_taken(generator):
    """A rotation by 45 degrees: 1 in the 2-norm, sqrt(2) in the sup norm; its transpose for rows of unlike sums."""
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=DOUBLE) / math.sqrt(2)
    x = torch.zeros(1, 2, dtype=DOUBLE)
    assert certify.graph(Equation(lambda x: 0.9 * x @ turn, x), x).method == ("banach",)
    steep = torch.tensor([[0.9, 0.0], [0.9, 0.0]], dtype=DOUBLE)
    found = certify.graph(Equation(lambda x: x @ steep.T, x + 1), x)
    assert "0.9 in the largest entry" in found.reason[0]
    assert float(found.radius) >= math.sqrt(200)  # x* = (10, 10)


def test_nothing_contracts_a_graph_that_expands(generator):
    conv = sized(pyg().GCNConv(3, 3, bias=False), 2.0)
    eq = one_graph(conv, random_edges(generator), 0.1, NODES, generator)
    found = certify.graph(eq, torch.zeros(NODES, 3, dtype=DOUBLE))
    assert found.counts() == {"refused": 1}
    assert "no contraction of the whole space: L = " in found.reason[0]
    assert "in the largest 2-norm of a node" in found.reason[0]


def test_several_graphs_are_several_rows(generator):
    """Two graphs side by side, of 3 and 4 nodes: each has its own radius, and its error is below it."""
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [1, 2, 0, 4, 5, 6, 3]])
    conv = sized(pyg().GCNConv(3, 3), 1.0)
    space = Segments(torch.tensor([0, 0, 0, 1, 1, 1, 1]), 2)
    u = torch.randn(7, 3, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: 0.8 * conv(x, edges).tanh(), u, space=space)
    x = torch.zeros(7, 3, dtype=DOUBLE)
    fixed = iterated(eq, x, 300)
    start = torch.cat((fixed[:3], x[3:]))
    error = torch.stack([(fixed - start)[:3].norm(), (fixed - start)[3:].norm()])
    for method in ("graph", "kantorovich"):
        found = certify.certificate(eq, start, method)
        assert found.kind[0] == "proved"
        assert bool((error <= found.radius).all())
    assert float(certify.graph(eq, start).radius[0]) < 1e-10 < float(certify.graph(eq, start).radius[1])


def test_norms_have_names():
    with pytest.raises(ValueError, match="norm must be 'best' or one of two, node, sup, got 'l1'"):
        certify.graph(Equation(torch.tanh), torch.zeros(1, 1), "l1")


def test_a_scalar_is_a_node_of_its_own():
    x = torch.tensor(0.3, dtype=DOUBLE)
    for norm in ("two", "node", "sup"):
        assert certify.graph(Equation(lambda x: 0.5 * torch.sin(x)), x, norm).counts() == {"proved": 1}
