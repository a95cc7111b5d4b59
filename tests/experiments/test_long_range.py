"""Distances and values far away: the convolution that takes the best message, and both experiments, small."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from settlepoint import FixedSteps
from settlepoint.data import GraphSet, decision_processes, shortest_paths
from settlepoint.experiments import REGISTRY, graph_value_iteration, shortest_path
from settlepoint.experiments.experiment import Context, Experiment, Results
from settlepoint.experiments.graph_value_iteration import EXPERIMENT as VALUES
from settlepoint.experiments.graph_value_iteration import ValueScale
from settlepoint.experiments.shortest_path import EXPERIMENT as PATHS
from settlepoint.experiments.shortest_path import PathScale, error, featured, mean_error, predicted, served
from settlepoint.layers import Featured, Links, PathConv, Weighted
from settlepoint.models import PIGN, Graphs, IterGNN
from settlepoint.runs import Record

HIDDEN = 4
TINY_PATHS = PathScale(train=6, small=3, large=2, nodes=40, hidden=HIDDEN, steps=3, longest=6, epochs=2)
TINY_VALUES = ValueScale(
    train=4, small=2, large=2, states=60, hidden=HIDDEN, steps=6, last=3, layers=2, epochs=2, actions=3
)


def conv(*, loops: bool = False) -> PathConv:
    """A convolution away from where it starts: V is not 0."""
    torch.manual_seed(0)
    layer = PathConv(HIDDEN, 1, loops=loops).double()
    torch.nn.init.normal_(layer.message.weight, std=0.5)
    return layer


def some(seed: int, count: int = 3) -> GraphSet:
    graphs = shortest_paths(count, torch.Generator().manual_seed(seed), nodes=(1, 9))
    return graphs.to("cpu", torch.float64)


def by_hand(layer: PathConv, h: Tensor, links: Links) -> Tensor:
    """The definition, node by node and edge by edge."""
    rows = []
    for i in range(len(h)):
        into = [(int(s), e) for s, t, e in zip(*links.ends, links.x, strict=True) if int(t) == i]
        into += [(i, torch.zeros_like(links.x[0]))] if layer.loops else []
        sent = [h[j] + layer.message((layer.source(h[j]) + layer.target(h[i]) + layer.edge(e)).relu()) for j, e in into]
        rows.append(torch.stack(sent).max(0).values if sent else torch.zeros_like(h[i]))
    return torch.stack(rows)


@pytest.mark.parametrize("loops", [False, True])
def test_it_is_its_definition(loops: bool, generator: torch.Generator) -> None:
    """Values and gradients; a node that no edge reaches included."""
    ends = torch.tensor([[0, 1, 2, 2, 0], [1, 2, 1, 0, 2]])
    links, layer = Links(ends, torch.rand(5, 1, generator=generator).double()), conv(loops=loops)
    h = torch.randn(4, HIDDEN, generator=generator).double()
    found, expected = layer(h, links), by_hand(layer, h, links)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for a, b in zip(
        *(torch.autograd.grad(y.sin().sum(), list(layer.parameters())) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@settings(max_examples=25)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99), loops=st.booleans())
def test_it_is_homogeneous(scale: float, seed: int, loops: bool) -> None:
    graphs, layer = some(seed), conv(loops=loops)
    links = featured(graphs).edges
    h = torch.randn(len(graphs.x), HIDDEN, generator=torch.Generator().manual_seed(seed)).double()
    scaled = layer(scale * h, Links(links.ends, scale * links.x))
    torch.testing.assert_close(scaled, scale * layer(h, links), rtol=1e-9, atol=1e-9 * scale)


def test_it_can_be_the_step_of_bellman_and_ford() -> None:
    """h_j - e: as many steps as nodes from -1000 give minus the distances, the source held at 0."""
    graphs = some(1, count=1)
    layer = PathConv(1, 1, loops=True).double()
    for linear, value in ((layer.source, 0.0), (layer.target, 0.0), (layer.edge, 1.0), (layer.message, -1.0)):
        torch.nn.init.constant_(linear.weight, value)
    source = graphs.x == 1
    h = torch.where(source, 0.0, -1000.0).double()
    for _ in graphs.x:
        h = layer(h, featured(graphs).edges)
    torch.testing.assert_close(-h[:, 0], graphs.y.double(), atol=1e-5, rtol=1e-6)  # lengths in float32


def test_it_starts_as_the_maximum() -> None:
    layer, h = PathConv(2, 1), torch.tensor([[1.0, -2.0], [3.0, 4.0], [-1.0, 9.0]])
    links = Links(torch.tensor([[0, 1], [2, 2]]), torch.ones(2, 1))
    assert layer(h, links).tolist() == [[0, 0], [0, 0], [3, 4]]


def test_a_selection_keeps_the_features_of_its_edges() -> None:
    graphs = some(2, count=4)
    whole, chosen = featured(graphs), featured(graphs).select(torch.tensor([1, 3]))
    alone = featured(graphs.take([1, 3]))
    assert torch.equal(chosen.edges.ends, alone.edges.ends)
    assert torch.equal(chosen.edges.x, alone.edges.x)
    assert torch.equal(chosen.index, alone.index)
    assert chosen.count == 2
    assert whole.select(torch.arange(4)) is whole
    h = graphs.y[:, None]
    assert torch.equal(whole.nodes(whole.table(h)), h)


@pytest.mark.parametrize("name", ["pign", "itergnn", "fork"])
def test_graphs_side_by_side_are_as_alone(name: str) -> None:
    """Graphs that end apart, the edges in any order: to 1e-10 what each would be alone."""
    torch.manual_seed(1)
    model: Any = shortest_path.build(name, TINY_PATHS).double().eval()
    body = model.operator.conv
    falling = -0.1 * torch.rand(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(0))
    (body.conv if name == "itergnn" else body).message.weight.data.copy_(falling)
    if name == "pign":  # the gate holds the source and nothing else, so that a graph settles when all is reached
        torch.nn.init.constant_(model.encoder.linear.weight, 20.0)
        torch.nn.init.constant_(model.encoder.linear.bias, -10.0)
        torch.nn.init.eye_(model.operator.gate.weight)
        torch.nn.init.zeros_(model.operator.gate.bias)
    model.settle.stop = shortest_path.SERVED if name == "pign" else FixedSteps(20)
    graphs = some(5, count=5)
    order = torch.randperm(graphs.edges.shape[1], generator=torch.Generator().manual_seed(0))
    assert graphs.edge_x is not None
    shuffled = Featured(Weighted(Graphs(graphs.edges[:, order], graphs.index, 5), graphs.edge_x[order]))
    with torch.no_grad():
        together = model(graphs.x, shuffled)
        steps = model.settle.last.steps
        alone = [model(one.x, featured(one)) for one in map(graphs.take, ([k] for k in range(5)))]
    assert name != "pign" or int(steps.min()) < int(steps.max())
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PathConv(0, 1), "hidden must be at least 1, got 0"),
        (lambda: PathConv(2, 0), "edge_features must be at least 1, got 0"),
        (
            lambda: PathConv(2, 3)(torch.ones(2, 2), Links(torch.zeros(2, 1, dtype=torch.int64), torch.ones(1, 1))),
            "links must have 3 features an edge, got 1",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_error_leaves_the_source_out() -> None:
    assert error(torch.tensor([9.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 2.0])) == pytest.approx(50.0)
    train, data = some(0), some(1)
    guess = float(train.y[train.y > 0].mean())
    by_hand = [abs(guess - y) / y for y in data.y.tolist() if y > 0]
    assert mean_error(train, data) == pytest.approx(100 * sum(by_hand) / len(by_hand), rel=1e-5)


def test_iterations_of_itergnn_are_those_until_it_is_sure() -> None:
    """With a confidence of sigmoid(3) whatever it sees: left is (1 - c)^k, above 1e-7 for 5.3 steps."""
    torch.manual_seed(0)
    model = IterGNN(PathConv(HIDDEN, 1, loops=True), (1, HIDDEN, 1)).double()
    torch.nn.init.zeros_(model.operator.score.weight)
    torch.nn.init.constant_(model.operator.score.bias, 3.0)
    found = served(model, some(0), PathScale(longest=20))
    assert found["iterations"] == math.ceil(math.log(1e-7) / math.log(1 - 1 / (1 + math.exp(-3))))
    assert found["evals"] == 20


@pytest.mark.parametrize(
    ("experiment", "cell", "scale"),
    [
        *((PATHS, cell, TINY_PATHS) for cell in PATHS.cells(TINY_PATHS)),
        *((VALUES, cell, TINY_VALUES) for cell in VALUES.cells(TINY_VALUES)),
    ],
)
def test_every_row_fills_its_columns(experiment: Experiment, cell: str, scale: Any) -> None:
    metrics = experiment.run(cell, 0, Context(scale))["metrics"]
    keys = {"small", "large", "evals", "mean small", "mean large"}
    if cell != "mean":
        keys |= {"training seconds", "diverged"}
    if cell in ("pign", "cgs"):
        keys |= {"settled"}
        assert metrics["settled"] == 100
    assert keys <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert (metrics["small"] == metrics["mean small"]) == (cell == "mean")


def test_a_run_is_repeatable_and_every_cell_sees_the_same_graphs() -> None:
    shortest_path.sets.cache_clear()
    first = PATHS.run("pign", 1, Context(TINY_PATHS))
    shortest_path.sets.cache_clear()
    again, other = PATHS.run("pign", 1, Context(TINY_PATHS)), PATHS.run("mean", 1, Context(TINY_PATHS))
    for name in ("small", "large"):
        assert again["metrics"][name] == first["metrics"][name]
        assert other["metrics"][f"mean {name}"] == first["metrics"][f"mean {name}"]
    assert first["curves"] == again["curves"]


def test_pign_learns_distances() -> None:
    """In 80 steps to well below the error of the mean, on graphs that it has not seen."""
    scale = PathScale(train=64, small=20, large=2, nodes=40, hidden=8, steps=8, epochs=40, lr=1e-2)
    found = PATHS.run("pign", 0, Context(scale))["metrics"]
    assert found["small"] < 0.7 * found["mean small"]


def test_values_of_a_trained_model_are_those_it_predicts() -> None:
    torch.manual_seed(0)
    model = PIGN(PathConv(HIDDEN, 1), (1, HIDDEN, 1), transport="learned", stop=FixedSteps(3)).double()
    data = some(4)
    expected = model(data.x, featured(data))[:, 0]
    torch.testing.assert_close(predicted(model, data), expected.to(data.y.dtype))


def _table(experiment: Experiment, **changes: float) -> Results:
    """A table that meets every threshold, but for the changes "row/column"."""
    scale, lines = experiment.scales["cpu"], {}
    error = {"mean": (50.0, 50.0), "pign": (1.0, 1.1), "untied": (0.4, 20.0), "cgs": (8.9, 9.0)}
    for row in experiment.cells(scale):
        small, large = error.get(row, (4.0, 20.0))
        lines[row] = {"small": small, "large": large, "settled": 100.0, "mean small": 50.0, "mean large": 50.0}
    if experiment is VALUES:
        lines["untied"] |= {"small": 2.0, "large": 2.2}
    for key, value in changes.items():
        row, name = key.split("/")
        lines[row][name] = value
    return Results("cpu", scale, [Record(row, 0, metrics) for row, metrics in lines.items()])


@pytest.mark.parametrize(
    ("experiment", "key", "bad", "failures"),
    [
        (PATHS, "pign/small", 3.1, 1),
        (PATHS, "pign/large", 8.1, 2),
        (PATHS, "pign/settled", 99.0, 1),
        (PATHS, "untied/small", 1.1, 1),
        (PATHS, "untied/large", 3.2, 1),
        (PATHS, "itergnn/large", 2.1, 1),
        (PATHS, "fork/large", 2.1, 1),
        (PATHS, "fork/small", 50.0, 1),
        (PATHS, "itergnn/large", 51.0, 1),
        (VALUES, "pign/large", 4.6, 3),
        (VALUES, "untied/large", 4.1, 2),
        (VALUES, "cgs/large", 10.0, 1),
        (VALUES, "cgs/settled", 99.0, 1),
        (VALUES, "pign/settled", 99.0, 1),
        (VALUES, "cgs/small", 50.0, 1),
        (VALUES, "pign/small", math.nan, 2),
    ],
)
def test_each_threshold_can_fail(experiment: Experiment, key: str, bad: float, failures: int) -> None:
    assert all(check.passed for check in experiment.checks(_table(experiment)))
    failed = [check for check in experiment.checks(_table(experiment, **{key: bad})) if not check.passed]
    assert len(failed) == failures


@pytest.mark.parametrize("experiment", [PATHS, VALUES])
def test_a_smoke_run_counts_the_cells_that_ended(experiment: Experiment) -> None:
    scale, table = experiment.scales["smoke"], _table(experiment)
    assert [check.passed for check in experiment.checks(Results("smoke", scale, table.records))] == [True]
    assert [check.passed for check in experiment.checks(Results("smoke", scale, table.records[1:]))] == [False]


def test_the_set_for_values_flows_from_the_next_state() -> None:
    """V of a state with all rewards but one at 0 follows the edge that pays."""
    graphs = decision_processes(1, torch.Generator().manual_seed(0), gamma=0.0)
    assert graphs.edge_x is not None
    best = torch.zeros(len(graphs.x)).scatter_reduce(0, graphs.edges[1], graphs.edge_x[:, 0], "amax")
    torch.testing.assert_close(graphs.y, best)


def test_they_are_registered() -> None:
    assert [REGISTRY.load(name).id for name in ("shortest-path", "graph-value-iteration")] == [PATHS.id, VALUES.id]
    assert graph_value_iteration.EXPERIMENT is VALUES
