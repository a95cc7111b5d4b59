"""IterGNN against its loop written out, graph by graph; graphs that end apart, odd graphs, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv

from settlepoint.layers.halting import largest
from settlepoint.models import Graphs, IterGNN

FEATURES, HIDDEN, CLASSES = CHANNELS = (5, 4, 3)
NONE = torch.zeros(2, 0, dtype=torch.int64)
VARIANTS = {
    "plain": (IterGNN, 0.0),
    "decaying": (IterGNN, 1e-4),
    "fork": (IterGNN.fork, 0.0),
    "fork decaying": (IterGNN.fork, 0.05),
}
EVERY = pytest.mark.parametrize("name", VARIANTS)


def itergnn(name: str, steps: int = 40, sure: float = 0.0) -> IterGNN:
    """sure: added to what the sigmoid of the confidence sees; at 3 graphs end after some 6 steps."""
    torch.manual_seed(2)
    make, decay = VARIANTS[name]
    model = make(GCNConv(HIDDEN, HIDDEN), CHANNELS, steps=steps, decay=decay).double()
    with torch.no_grad():
        model.operator.score.bias.add_(sure)
    return model


def by_hand(model: IterGNN, name: str, x: Tensor, edges: Tensor, steps: int) -> tuple[Tensor, int]:
    """The scores of one graph, and after how many steps it ended."""
    conv: Any = model.operator.conv if "fork" in name else model.operator.conv.conv
    rho, score = 1 - VARIANTS[name][1], model.operator.score
    h = model.encoder(x)
    y, left, taken = torch.zeros_like(h), torch.ones((), dtype=h.dtype), 0
    while taken < steps and left > 1e-7:
        before, h = h, conv(h, edges)
        if "fork" not in name:
            h = h.relu()
        read = before if "fork" in name else h
        c = torch.sigmoid(score(read.max(0).values)).squeeze()
        y, left = rho * y + left * c * h, rho * left * (1 - c)
        taken += 1
    return model.decoder(y), taken


def batch(sizes: list[int], gen: torch.Generator) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Graphs]:
    """Graphs of random directed edges, two a node, features of unlike size; side by side with their edges shuffled."""
    singles, start, edges = [], 0, [NONE]
    for k, size in enumerate(sizes):
        links = torch.randint(max(size, 1), (2, 2 * size), generator=gen)
        singles.append((4.0**k * torch.randn(size, FEATURES, generator=gen, dtype=torch.float64), links))
        edges.append(links + start)
        start += size
    joined = torch.cat(edges, 1)
    joined = joined[:, torch.randperm(joined.shape[1], generator=gen)]
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return singles, torch.cat([x for x, _ in singles]), Graphs(joined, index, len(sizes))


@pytest.mark.parametrize("sure", [0.0, 3.0])
@EVERY
def test_it_is_its_loop(name: str, sure: float, generator: torch.Generator) -> None:
    """Values and gradients; graphs that end by themselves, after unlike numbers of steps, among those that run out."""
    model = itergnn(name, 12, sure)
    singles, x, graphs = batch([6, 1, 9, 4], generator)
    scores, taken = zip(*[by_hand(model, name, a, edges, 12) for a, edges in singles], strict=True)
    if sure:
        assert min(taken) < max(taken)
    found = model(x, graphs)
    torch.testing.assert_close(found, torch.cat(scores), atol=1e-11, rtol=1e-11)
    ours = torch.autograd.grad(found.sin().sum(), list(model.parameters()))
    theirs = torch.autograd.grad(torch.cat(scores).sin().sum(), list(model.parameters()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@EVERY
def test_a_slow_graph_changes_no_other(name: str, generator: torch.Generator) -> None:
    """A quick graph alone, and beside one whose confidence stays small: the same scores, bit for bit."""
    model = itergnn(name, 60)
    with torch.no_grad():
        model.encoder.linear.bias.zero_()
        model.operator.score.weight.fill_(4.0)
        model.operator.score.bias.fill_(-4.0)
        model.operator.conv.get_parameter("lin.weight" if "fork" in name else "conv.lin.weight").copy_(
            torch.eye(HIDDEN)
        )
        model.encoder.linear.weight.abs_()
        quick, slow = torch.full((4, FEATURES), 2.0).double(), torch.zeros(5, FEATURES).double()
        graphs = Graphs(NONE, torch.tensor([0] * 4 + [1] * 5), 2)
        together = model(torch.cat((quick, slow)), graphs)
        left = model.settle.last.value[2].flatten()  # type: ignore[union-attr]
        alone = model(quick, Graphs.one(NONE, 4))
    assert float(left[0]) <= 1e-7 < 0.01 < float(left[1])  # ended long ago, and far from it
    assert torch.equal(together[:4], alone)


def test_an_ended_graph_stays_as_it_is(generator: torch.Generator) -> None:
    """Its state no longer moves, however its h would grow."""
    model = itergnn("fork", 25, sure=6.0)
    with torch.no_grad():
        model.operator.conv.get_parameter("lin.weight").mul_(1e30)
        _, x, graphs = batch([5], generator)
        x = 1e-12 * x.abs()
        model.operator.score.weight.zero_()
        scores = model(x, graphs)
        assert bool(scores.isfinite().all())  # 25 steps of a factor of 1e30 would overflow
        state = model.settle.last.value  # type: ignore[union-attr]
        again = model.operator(state, torch.arange(1), graphs)
    for before, after in zip(state, again, strict=True):
        assert torch.equal(before, after)


def test_what_is_left_over_is_not_added(generator: torch.Generator) -> None:
    """One step at confidence 1/2 gives half of h."""
    model = itergnn("fork", 1)
    with torch.no_grad():
        model.operator.score.weight.zero_()
        model.operator.score.bias.zero_()
        _, x, graphs = batch([6], generator)
        h = model.operator.conv(model.encoder(x), graphs.edges)
        torch.testing.assert_close(model(x, graphs), model.decoder(0.5 * h))
        assert model.settle.last.value[2].tolist() == [[0.5]]  # type: ignore[union-attr]


@EVERY
def test_permutation_equivariance(name: str, generator: torch.Generator) -> None:
    model = itergnn(name)
    _, x, graphs = batch([11], generator)
    order = torch.randperm(11, generator=generator)
    moved = torch.argsort(order)[graphs.edges][:, torch.randperm(22, generator=generator)]
    with torch.no_grad():
        scores = model(x, graphs)
        torch.testing.assert_close(model(x[order], Graphs.one(moved, 11)), scores[order], atol=1e-10, rtol=0)


@pytest.mark.parametrize("sizes", [[0], [1], [4], [0, 0], [3, 0, 2], [2, 0]])
@EVERY
def test_graphs_without_edges_or_nodes(name: str, sizes: list[int], generator: torch.Generator) -> None:
    model = itergnn(name)
    x = torch.randn(sum(sizes), FEATURES, dtype=torch.float64, generator=generator)
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    with torch.no_grad():
        scores = model(x, Graphs(NONE, index, len(sizes)))
        expected = [by_hand(model, name, part, NONE, 40)[0] for part in x.split(sizes) if len(part)]
    assert scores.shape == (sum(sizes), CLASSES)
    torch.testing.assert_close(scores, torch.cat([scores[:0], *expected]), atol=1e-11, rtol=0)


def test_the_largest_entry_is_that_of_the_graph() -> None:
    """Also where all are negative, which padding with zeros would hide."""
    graphs = Graphs(NONE, torch.tensor([0, 0, 2]), 3)
    x = torch.tensor([[-3.0, 1.0], [-1.0, -2.0], [-5.0, 4.0]])
    assert largest(x, graphs).tolist() == [[-1.0, 1.0], [0.0, 0.0], [-5.0, 4.0]]


def test_any_conv_will_do(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    _, x, graphs = batch([6, 3], generator)
    model = IterGNN(GATConv(HIDDEN, 2, heads=2), CHANNELS, steps=5).double()
    model(x, graphs).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IterGNN(nn.Identity(), CHANNELS, decay=1.0), r"decay must lie in \[0, 1\), got 1.0"),
        (lambda: IterGNN(nn.Identity(), CHANNELS, decay=-0.1), r"decay must lie in \[0, 1\), got -0.1"),
        (lambda: IterGNN.fork(nn.Identity(), CHANNELS, steps=-1), "steps must be an integer >= 0.*got -1"),
    ],
)
def test_wrong_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
