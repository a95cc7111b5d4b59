"""Implicit graph models: proved rates, direct solves, symmetries, gradients, odd graphs, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tests.models.implicit_models import (
    CHANNELS,
    CLASSES,
    FEATURES,
    HIDDEN,
    MODELS,
    NONE,
    TIGHT,
    batch,
    built,
    cell,
    featured,
    graph,
    one,
    reported,
)
from torch import Tensor, nn

from settlepoint import Anderson, Equation, FixedSteps, Implicit, Picard, Unrolled, certify, solve
from settlepoint.layers import Weighted
from settlepoint.models import APPNP, CGS, EIGNN, IGNN, GraphEquilibrium, Graphs

EVERY = pytest.mark.parametrize("name", MODELS)
LINEAR = pytest.mark.parametrize("name", ["appnp", "eignn", "cgs", "cgs edges"])
NORMS = {
    "two": lambda r: r.flatten(1).norm(dim=1),
    "sup": lambda r: r.flatten(1).abs().amax(1),
}


@EVERY
def test_every_step_contracts_at_the_proved_rate(name: str, generator: torch.Generator) -> None:
    """||r_{k+1}|| <= rate ||r_k|| in the norm of the rate, from a start where r is not 0; 1e-12 for rounding."""
    model, (x, edges) = built(name), graph(20, generator)
    with torch.no_grad():
        eq, start = model.posed(x, one(name, edges, 20))
        assert isinstance(start, Tensor)
        h, norm, sizes = 5 * torch.randn_like(start), NORMS[model.rate.norm], []
        for _ in range(10):
            sizes.append(norm(eq.residual(h)))
            h = eq.image(h)
    r = torch.cat(sizes)
    assert 0 < model.rate.value < 1
    assert float(r[0]) > 1
    assert float(r[-1]) > 1e-8  # above rounding, or the check would be of that
    assert (r[1:] <= model.rate.value * (1 + 1e-12) * r[:-1]).all()


@EVERY
def test_the_library_proves_what_is_claimed(name: str, generator: torch.Generator) -> None:
    """certify.graph finds, without knowing the model, the rate or a smaller one, and its radius holds the error."""
    model, (x, edges) = built(name), graph(12, generator)
    with torch.no_grad():
        eq, start = model.posed(x, one(name, edges, 12))
        found = certify.graph(eq, start, model.rate.norm)
        fixed = solve(eq, start, Picard(), TIGHT).require().value
    assert isinstance(fixed, Tensor)
    assert isinstance(start, Tensor)
    assert found.counts() == {"proved": 1}
    assert float(found.rate) <= model.rate.value * (1 + 1e-6)
    assert 0 < float((fixed - start).norm()) <= float(found.radius)


@EVERY
def test_permutation_equivariance(name: str, generator: torch.Generator) -> None:
    model, (x, edges) = built(name), graph(12, generator)
    order = torch.randperm(12, generator=generator)
    mixed = torch.randperm(edges.shape[1], generator=generator)
    given = one(name, edges, 12)
    moved: Graphs | Weighted = Graphs.one(torch.argsort(order)[edges][:, mixed], 12)
    if isinstance(given, Weighted):
        moved = Weighted(moved, given.weight[mixed])
    with torch.no_grad():
        torch.testing.assert_close(model(x[order], moved), model(x, given)[order], atol=1e-10, rtol=0)


@EVERY
def test_a_batch_is_its_graphs(name: str, generator: torch.Generator) -> None:
    """In value, and in the number of steps: graphs stop on their own, the one without nodes at once."""
    model = built(name, solver=Picard())
    singles, x, graphs = batch([7, 1, 0, 12, 30], generator)
    with torch.no_grad():
        together = model(x, featured(name, graphs))
        report = reported(model)
        alone, steps = [], []
        for features, edges in singles:
            alone.append(model(features, one(name, edges, len(features))))
            steps.append(int(reported(model).steps))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-10, rtol=0)
    assert report.steps.tolist() == steps
    assert report.notes == ()
    assert report.work < int(report.steps.max()) * len(singles)  # the finished were gathered away
    assert report.counts() == {"CONVERGED": len(singles)}


def dense(edges: Tensor, nodes: int) -> Tensor:
    """D^{-1/2} (L + I) D^{-1/2}, written out."""
    a = torch.eye(nodes, dtype=torch.float64)
    a[edges[0], edges[1]] = 1
    return a / a.sum(1).sqrt()[:, None] / a.sum(1).sqrt()[None, :]


def direct(model: GraphEquilibrium, x: Tensor, given: Graphs | Weighted) -> Tensor:
    """The scores by a dense solve, differentiable; EIGNN in closed form by the eigenvectors of S and g(F)."""
    u, nodes, edges = model.encoder(x), len(x), given.edges
    match model:
        case APPNP():
            matrix = torch.eye(nodes, dtype=x.dtype) - 0.9 * dense(edges, nodes)
            return model.decoder(torch.linalg.solve(matrix, 0.1 * u))
        case EIGNN():
            f = cell(model).factor
            g = f.T @ f / (f.T @ f).square().sum().sqrt()
            (s, left), (m, right) = torch.linalg.eigh(dense(edges, nodes)), torch.linalg.eigh(g)
            inner = left.T @ u @ right / (1 - 0.8 * s[:, None] * m[None, :])
            return model.decoder(left @ inner @ right.T)
    assert isinstance(model, CGS)
    kept = given if isinstance(given, Weighted) else Weighted(given, x.new_zeros(edges.shape[1], 0))
    scores, parts = model.scores(u, kept), []
    for k, b in enumerate(u.chunk(2, 1)):
        a = torch.zeros(nodes, nodes, dtype=x.dtype).index_put((edges[1], edges[0]), scores[:, k].exp())
        a = a / torch.where(a.sum(1) > 0, a.sum(1), 1.0)[:, None]
        parts.append(torch.linalg.solve(torch.eye(nodes, dtype=x.dtype) - 0.8 * a, b))
    return model.decoder(torch.cat(parts, 1))


@pytest.mark.parametrize("solver", [Picard(), Anderson(5)], ids=repr)
@LINEAR
def test_the_fixed_point_is_that_of_a_direct_solve(name: str, solver: nn.Module, generator: torch.Generator) -> None:
    model, (x, edges) = built(name, solver=solver), graph(30, generator)
    given = one(name, edges, 30)
    with torch.no_grad():
        torch.testing.assert_close(model(x, given), direct(model, x, given), atol=1e-8, rtol=0)


@LINEAR
def test_implicit_gradients_are_those_of_a_direct_solve(name: str, generator: torch.Generator) -> None:
    """Of features and of every parameter, those that make A and b among them."""
    model, (x, edges) = built(name, adjoint=Implicit()), graph(9, generator)
    x.requires_grad_()
    given, inputs = one(name, edges, 9), [x, *model.parameters()]
    found = torch.autograd.grad(model(x, given).sin().sum(), inputs)
    expected = torch.autograd.grad(direct(model, x, given).sin().sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


@EVERY
def test_gradients_of_a_batch_are_those_of_unrolling(name: str, generator: torch.Generator) -> None:
    """With graphs gathered away in between: their edges, and what weighs them, come back for the gradient."""
    _, x, graphs = batch([3, 1, 8], generator)
    found = []
    for stop, adjoint in ((FixedSteps(250), Unrolled()), (TIGHT, Unrolled()), (TIGHT, Implicit())):
        model = built(name, solver=Picard(), stop=stop, adjoint=adjoint)
        model(x, featured(name, graphs)).sin().sum().backward()
        found.append([p.grad for p in model.parameters()])
    for expected, *others in zip(*found, strict=True):
        for grad in others:
            torch.testing.assert_close(grad, expected, atol=1e-8, rtol=1e-7)


def test_ignn_is_its_equation(generator: torch.Generator) -> None:
    """X = relu(A X W^T + b) in the paper's own units, which the state is not in."""
    model, (x, edges) = built("ignn"), graph(14, generator)
    with torch.no_grad():
        b, w = model.encoder(x), cell(model).linear.weight
        state = torch.zeros_like(b)
        for _ in range(300):
            state = (dense(edges, 14) @ state @ w.T + b).relu()
        scores = model(x, Graphs.one(edges, 14))
    torch.testing.assert_close(scores, model.decoder(state), atol=1e-9, rtol=0)


@EVERY
def test_models_can_be_copied_after_a_solve(name: str, generator: torch.Generator) -> None:
    """What the operator remembers of its graphs has gradients, and does not come along."""
    _, x, graphs = batch([3, 1, 8], generator)
    model = built(name)
    scores = model(x, featured(name, graphs))
    assert torch.equal(copy.deepcopy(model)(x, featured(name, graphs)), scores)


@pytest.mark.parametrize("sizes", [[0], [1], [4], [0, 0], [0, 3]])
@EVERY
def test_graphs_without_edges(name: str, sizes: list[int], generator: torch.Generator) -> None:
    """Every node stands alone: A = I where loops are added, and 0 where A is learned."""
    model, nodes = built(name), sum(sizes)
    x = torch.randn(nodes, FEATURES, dtype=torch.float64, generator=generator)
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    with torch.no_grad():
        scores, u = model(x, featured(name, Graphs(NONE, index, len(sizes)))), model.encoder(x)
        if name.startswith("ignn"):
            w, h = cell(model).linear.weight, u
            for _ in range(300):
                h = (h @ w.T + u).relu()
        elif name == "eignn":
            h = torch.linalg.solve(torch.eye(HIDDEN, dtype=x.dtype) - 0.8 * cell(model).g, u.T).T
        else:
            h = u
        torch.testing.assert_close(scores, model.decoder(h), atol=1e-9, rtol=0)
    assert scores.shape == (nodes, CLASSES)


def test_appnp_takes_ten_steps_of_its_own(generator: torch.Generator) -> None:
    x, edges = graph(11, generator)
    torch.manual_seed(3)
    model = APPNP(CHANNELS, alpha=0.2).double().eval()
    with torch.no_grad():
        h = z = model.encoder(x)
        for _ in range(10):
            z = 0.8 * dense(edges, 11) @ z + 0.2 * h
        torch.testing.assert_close(model(x, Graphs.one(edges, 11)), z, atol=1e-12, rtol=0)


def test_the_adjacency_may_be_given(generator: torch.Generator) -> None:
    x, edges = graph(11, generator)
    model = built("eignn")
    with torch.no_grad():
        given = model(x, Graphs.one(dense(edges, 11).to_sparse(), 11))
        torch.testing.assert_close(given, model(x, Graphs.one(edges, 11)), atol=1e-10, rtol=0)


def test_ignn_stays_well_posed_in_training(generator: torch.Generator) -> None:
    """Projected after each step, or parametrised: the rate never passes kappa, while W does move."""
    x, edges = graph(10, generator)
    for parametrised in (False, True):
        model = built("ignn parametrised" if parametrised else "ignn")
        optimiser = torch.optim.SGD(model.parameters(), lr=5.0)
        before = cell(model).linear.weight.detach().clone()
        assert model.rate.value == pytest.approx(0.8)  # at its bound, where only the bound holds it
        for _ in range(3):
            optimiser.zero_grad()
            model(x, Graphs.one(edges, 10)).square().sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            model.project()  # type: ignore[operator]
            assert model.rate.value <= 0.8 * (1 + 1e-12)
        assert float((cell(model).linear.weight - before).detach().norm()) > 1e-3


TWO = torch.zeros(2, FEATURES, dtype=torch.float64)
ONE_WAY = torch.tensor([[0], [1]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APPNP(CHANNELS, alpha=0.0), r"alpha must lie in \(0, 1\), got 0.0"),
        (lambda: APPNP(CHANNELS, alpha=1.0), r"alpha must lie in \(0, 1\), got 1.0"),
        (lambda: IGNN(CHANNELS, kappa=1.0), r"kappa must lie in \(0, 1\), got 1.0"),
        (lambda: EIGNN(CHANNELS, gamma=-0.1), r"gamma must lie in \(0, 1\), got -0.1"),
        (lambda: CGS(CHANNELS, gamma=float("nan")), r"gamma must lie in \(0, 1\), got nan"),
        (lambda: CGS(CHANNELS, heads=3), "heads must divide the 4 hidden channels, got 3"),
        (lambda: CGS(CHANNELS, heads=0), "heads must divide the 4 hidden channels, got 0"),
        (lambda: built("cgs")(TWO, Graphs.one(torch.tensor([[0], [2]]), 2)), r"nodes in \[0, 2\), got 2"),
        (lambda: built("cgs")(TWO, Graphs.one(torch.eye(2).to_sparse(), 2)), r"edges must be \(2, E\) to carry"),
        (lambda: built("cgs edges")(TWO, Graphs.one(ONE_WAY, 2)), "graphs must have 2 numbers an edge, got 0"),
        (lambda: built("appnp")(TWO, Graphs.one(ONE_WAY, 2)), "both directions.*1 out of node 0 and 0 into it"),
        (lambda: built("eignn")(TWO, Graphs.one(ONE_WAY - 1, 2)), r"nodes in \[0, 2\), got -1"),
        (lambda: built("ignn")(TWO, Graphs.one(torch.eye(2).to_sparse(), 2)), r"edges must be \(2, E\) where"),
    ],
)
def test_wrong_calls_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_features_that_are_not_numbers_are_reported(generator: torch.Generator) -> None:
    """The graph with a NaN says so; the other settles as it would alone."""
    model, (singles, x, graphs) = built("appnp"), batch([6, 5], generator)
    x[0, 0] = torch.nan
    with torch.no_grad():
        scores = model(x, graphs)
        report = reported(model)
        assert report.counts() == {"NONFINITE": 1, "CONVERGED": 1}
        alone = model(singles[1][0], Graphs.one(singles[1][1], 5))
    torch.testing.assert_close(scores[6:], alone, atol=1e-10, rtol=0)


def test_equations_are_those_that_forward_solves(generator: torch.Generator) -> None:
    model, (x, edges) = built("cgs"), graph(8, generator)
    eq, start = model.posed(x, Graphs.one(edges, 8))
    assert isinstance(eq, Equation)
    with torch.no_grad():
        h = solve(eq, start, Picard(), TIGHT).require().value
        torch.testing.assert_close(model.decoder(h[0]), model(x, Graphs.one(edges, 8)), atol=1e-10, rtol=0)
