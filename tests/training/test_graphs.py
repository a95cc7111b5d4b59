"""fit_graphs: what it minimises, what it scores, in which order it sees the graphs, and that it tells of divergence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from settlepoint.data import GraphSet
from settlepoint.models import PIGN, Graphs
from settlepoint.training import GraphRecipe, balanced, commonest, evaluated, fit_graphs, macro_f1

CONSTANT = GraphRecipe(epochs=5, batch=2, lr=0.05)


def separable(sizes: tuple[int, ...] = (4, 3, 5, 6), seed: int = 0, unscored: bool = False) -> GraphSet:
    """Graphs without edges whose classes a linear map tells apart; every third node unscored."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(sizes), 3, generator=gen)
    y = (x[:, 0] > 0).long()
    if unscored:
        y[::3] = -1
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return GraphSet(x=x, y=y, edges=torch.zeros(2, 0, dtype=torch.int64), index=index, count=len(sizes), classes=2)


def distances(seed: int = 0) -> GraphSet:
    """Graphs without edges with a number on every node, linear in its features."""
    graphs = separable(seed=seed)
    y = graphs.x @ torch.tensor([1.0, -2.0, 0.5])
    return GraphSet(x=graphs.x, y=y, edges=graphs.edges, index=graphs.index, count=graphs.count)


class PerNode(nn.Module):
    """A linear map of every node; remembers the nodes that it was shown in training."""

    def __init__(self, outputs: int = 2, features: int = 3):
        super().__init__()
        self.linear = nn.Linear(features, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        if self.training:
            self.shown.append(x)
        return self.linear(x)


class Constant(nn.Module):
    """The same number for every node: the gradient of its sum is the same in every step."""

    def __init__(self, value: float = 0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        return self.value.expand(len(x))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 99))
def test_balanced_is_the_weighted_mean_of_the_benchmark(classes: list[int], seed: int) -> None:
    """Against the sum written out: w_c = (n - n_c) / n where c occurs."""
    scores, y = torch.randn(len(classes), 4, generator=generator(seed), dtype=torch.float64), torch.tensor(classes)
    weight = [(len(classes) - classes.count(c)) / len(classes) if c in classes else 0.0 for c in range(4)]
    losses = -scores.log_softmax(1)
    over = sum(weight[c] for c in classes)
    written = sum(weight[c] * float(losses[i, c]) for i, c in enumerate(classes)) / over if over else 0.0
    assert float(balanced(scores, y)) == pytest.approx(written, abs=1e-12)


def test_balanced_has_a_gradient_of_0_for_a_single_class_and_for_no_node() -> None:
    for y in (torch.tensor([1, 1]), torch.zeros(0, dtype=torch.int64)):
        scores = torch.randn(len(y), 3, requires_grad=True)
        balanced(scores, y).backward()
        assert scores.grad is not None
        assert not scores.grad.any()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
def test_macro_f1_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    told, true = (torch.tensor(side) for side in zip(*pairs, strict=True))
    scores = nn.functional.one_hot(told, 5).double()
    expected = f1_score(true, told, average="macro", zero_division=0.0)  # pyright: ignore[reportArgumentType]
    assert macro_f1(scores, true) == pytest.approx(expected, abs=1e-12)


def test_scores_that_are_not_finite_are_wrong() -> None:
    scores, y = torch.eye(3), torch.arange(3)
    assert macro_f1(scores, y) == 1.0
    scores[2, 2] = math.inf
    assert macro_f1(scores, y) == pytest.approx(2 / 3)  # class 2 is never told
    assert macro_f1(torch.full((3, 3), math.nan), y) == 0.0


def test_commonest_names_the_class_of_the_training_graphs() -> None:
    """By hand: all 6 nodes named 1, of which 2 are: F1 = 2 * 2 / (2 * 2 + 4) = 1/2 for class 1, 0 for class 0."""
    train, data = separable(), separable((6,))
    train = train.take([0])
    train.y[:] = torch.tensor([-1, -1, -1, 1])
    data.y[:] = torch.tensor([1, 0, 0, 0, 0, 1])
    assert commonest(train, data) == 0.25


def test_it_learns_what_can_be_learnt() -> None:
    model, train, val = PerNode(), separable((30, 40, 50)), separable((50,), seed=1)
    history = fit_graphs(model, train, val, GraphRecipe(epochs=60, batch=2, lr=0.05), generator=generator(0))
    assert history.diverged is None
    assert history.loss[-1] < history.loss[0] / 2
    assert history.val[-1] == evaluated(model, val) > 0.95
    assert not model.training
    assert len(history.loss) == len(history.val) == 60


def test_numbers_are_learnt_by_the_squared_error_unless_another_loss_is_given() -> None:
    absolute: Callable[[Tensor, Tensor], Tensor] = lambda out, y: (out - y).abs().mean()  # noqa: E731
    found = {}
    for name, loss in (("squared", None), ("absolute", absolute)):
        model = PerNode(1)
        history = fit_graphs(model, distances(), distances(1), CONSTANT, generator=generator(0), loss=loss)
        found[name] = model.linear.weight.detach().clone()
        assert history.val[-1] > history.val[0]  # minus the mean absolute error
        error = (model.linear(distances(1).x)[:, 0] - distances(1).y).abs().mean()
        assert history.val[-1] == pytest.approx(-float(error.detach()), rel=1e-6)
    assert not torch.equal(found["squared"], found["absolute"])


def test_a_score_of_your_own() -> None:
    history = fit_graphs(PerNode(), separable(), separable(), CONSTANT, score=lambda scores, y: float(len(y)))
    assert history.val == [18.0] * 5


def test_without_validation_there_are_no_scores() -> None:
    told = []
    history = fit_graphs(PerNode(), separable(), None, CONSTANT, after_epoch=lambda *pair: told.append(pair))
    assert all(math.isnan(value) for value in history.val)
    assert [epoch for epoch, _ in told] == [0, 1, 2, 3, 4]


def test_unscored_nodes_teach_nothing() -> None:
    """A map of single nodes learns the same from a set as from what is left when its unscored nodes are taken out."""
    whole = separable(unscored=True)
    kept = whole.y >= 0
    left = GraphSet(x=whole.x[kept], y=whole.y[kept], edges=whole.edges, index=whole.index[kept], count=4, classes=2)
    models = PerNode(), PerNode()
    for model, graphs in zip(models, (whole, left), strict=True):
        fit_graphs(model, graphs, graphs, CONSTANT, generator=generator(3))
    assert torch.allclose(models[0].linear.weight, models[1].linear.weight, atol=1e-6)  # float32, 10 steps


def test_every_epoch_shows_every_graph_once_in_an_order_of_its_own() -> None:
    model, graphs = PerNode(), separable()
    fit_graphs(model, graphs, None, CONSTANT, generator=generator(0))
    epochs = [torch.cat(model.shown[i : i + 2]) for i in range(0, 10, 2)]
    for epoch in epochs:
        assert torch.equal(epoch[epoch[:, 0].argsort()], graphs.x[graphs.x[:, 0].argsort()])
    assert any(not torch.equal(epoch, epochs[0]) for epoch in epochs)
    again = PerNode()
    fit_graphs(again, graphs, None, CONSTANT, generator=generator(0))
    assert torch.equal(again.linear.weight, model.linear.weight)


def test_after_step_can_project() -> None:
    model, calls = PerNode(), []

    def project() -> None:
        calls.append(1)
        with torch.no_grad():
            model.linear.weight.clamp_(-0.01, 0.01)

    fit_graphs(model, separable(), None, CONSTANT, after_step=project)
    assert len(calls) == 10
    assert float(model.linear.weight.detach().abs().max()) == pytest.approx(0.01)


def _rates(recipe: GraphRecipe) -> list[float]:
    """The learning rate of each step: AdamW without gradients shrinks a weight by 1 - lr * weight_decay."""
    model, seen = Constant(1.0), [1.0]
    recipe = replace(recipe, weight_decay=0.5, decoupled=True)
    fit_graphs(
        model.double(), distances().take([0]), None, recipe, loss=lambda out, y: 0.0 * out.sum(),
        after_step=lambda: seen.append(model.value.item()),
    )  # fmt: skip
    return [(1 - b / a) / 0.5 for a, b in pairwise(seen)]


def test_onecycle_rises_to_lr_and_falls_to_nearly_nothing() -> None:
    rates = _rates(GraphRecipe(epochs=50, lr=0.1, schedule="onecycle", pct_start=0.2))
    assert rates.index(max(rates)) == 9  # a fifth of 50 steps, counted from 0
    assert max(rates) == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.004)  # a 25th, as torch has it
    assert rates[-1] < 1e-6
    assert _rates(GraphRecipe(epochs=50, lr=0.1)) == pytest.approx([0.1] * 50)


@pytest.mark.parametrize("epochs", [4, 5, 6])
def test_onecycle_needs_no_step_to_rise_in(epochs: int) -> None:
    """torch divides by 0 where pct_start of all steps is one step, as a fifth of 5."""
    rates = _rates(GraphRecipe(epochs=epochs, lr=0.1, schedule="onecycle", pct_start=0.2))
    assert len(rates) == epochs
    assert 0.05 < max(rates) <= 0.1
    assert rates[-1] < 1e-6


def test_gradients_are_shortened_together() -> None:
    model = PerNode(1)
    norms = []

    def note() -> None:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in grads]).norm()))

    for clip in (math.inf, 1e-3):
        fit_graphs(model, distances(), None, GraphRecipe(epochs=1, batch=2, lr=1e-9, clip=clip), after_step=note)
    assert min(norms[:2]) > 1e-2
    assert max(norms[2:]) == pytest.approx(1e-3, rel=1e-2)


def test_decoupled_decay_shrinks_the_weights_themselves() -> None:
    """AdamW without gradients: (1 - lr * weight_decay)^steps; with an L2 penalty Adam moves by lr."""
    after = {}
    for decoupled in (True, False):
        model = Constant(1.0)
        recipe = GraphRecipe(epochs=3, lr=0.01, weight_decay=0.5, decoupled=decoupled)
        fit_graphs(model, distances().take([0]), None, recipe, loss=lambda out, y: 0.0 * out.sum())
        after[decoupled] = model.value.item()
    assert after[True] == pytest.approx((1 - 0.005) ** 3, rel=1e-6)
    assert after[False] == pytest.approx(1 - 0.03, rel=1e-3)


@pytest.mark.parametrize(
    "loss",
    [
        lambda out, y: out.sum() * math.nan,
        lambda out, y: (50.0 * (out.mean() - 1.0).abs()).exp() * math.inf,
        lambda out, y: out.mean().abs().sqrt(),  # finite, its gradient at 0 is not
    ],
    ids=["nan", "inf", "gradient"],
)
def test_a_fit_that_diverges_says_so_and_ends(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    told = []
    history = fit_graphs(
        Constant(), distances(), distances(1), CONSTANT, loss=loss, after_epoch=lambda *pair: told.append(pair)
    )
    assert history.diverged == 0
    assert len(history.loss) == len(history.val) == len(told) == 1
    assert math.isnan(history.val[0])


def test_a_batch_without_nodes_is_a_step_of_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    y = torch.zeros(0)
    empty = GraphSet(x=torch.zeros(0, 3), y=y, edges=torch.zeros(2, 0, dtype=torch.int64), index=none, count=2)
    history = fit_graphs(PerNode(1), empty, None, CONSTANT)
    assert history.diverged is None
    assert history.loss == [0.0] * 5


def test_the_score_does_not_depend_on_the_batches() -> None:
    graphs = separable((5, 7, 6, 4, 3))
    torch.manual_seed(0)
    model = PIGN(GCNConv(4, 4), (3, 4, 2), transport="learned")
    scores = {evaluated(model, graphs, batch=size) for size in (1, 2, 64)}
    assert len(scores) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"lr": 0.0}, r"lr must be above 0, got 0\.0"),
        ({"lr": math.nan}, "lr must be above 0, got nan"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"clip": -1.0}, "clip must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"pct_start": 1.0}, r"pct_start must lie in \[0, 1\), got 1\.0"),
        ({"schedule": "cosine"}, "schedule must be 'constant' or 'onecycle', got 'cosine'"),
    ],
)
def test_a_recipe_that_trains_nothing_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphRecipe(**({"epochs": 1} | changes))  # type: ignore[arg-type]


def test_sets_that_do_not_fit_are_refused() -> None:
    graphs = separable()
    with pytest.raises(ValueError, match="train must hold graphs, got an empty set"):
        fit_graphs(PerNode(), graphs.take([]), graphs, CONSTANT)
    with pytest.raises(ValueError, match="val must hold graphs, got an empty set"):
        fit_graphs(PerNode(), graphs, graphs.take([]), CONSTANT)
    with pytest.raises(ValueError, match="data must hold graphs, got an empty set"):
        evaluated(PerNode(), graphs.take([]))
    with pytest.raises(ValueError, match="val must have the 2 classes and 3 features of train, got 0 and 3"):
        fit_graphs(PerNode(), graphs, distances(), CONSTANT)


@pytest.mark.parametrize(
    ("outputs", "graphs", "message"),
    [
        (3, separable(), r"model must give \(18, 2\), a score for each of 2 classes a node, got \(18, 3\)"),
        (2, distances(), r"model must give \(18, 1\), a number a node, got \(18, 2\)"),
    ],
)
def test_a_model_that_does_not_fit_the_set_is_refused(outputs: int, graphs: GraphSet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluated(PerNode(outputs), graphs)
