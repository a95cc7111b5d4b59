"""PIGN: symmetries, the fixed point against a sparse solve, contraction in every step, odd graphs, a missing PyG."""

from __future__ import annotations

import sys

import pytest
import torch
from scipy.sparse import coo_array, eye_array
from scipy.sparse.linalg import spsolve
from tests.cells import host_reads
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, SAGEConv
from torch_geometric.utils import to_undirected

from settlepoint import Anderson, Equation, FixedSteps, Picard, Tolerance, Truncated, solve
from settlepoint.layers import Activated, Mixed, SparseAttention, adjacency, transported
from settlepoint.models import GCN, PIGN, Graphs
from settlepoint.training import presets

CHANNELS = (5, 4, 3)
TIGHT = Tolerance(atol=1e-11, max_steps=2000)


def graph(nodes: int, gen: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features and undirected random links, three a node; node 0 is isolated."""
    edges = torch.randint(1, max(nodes, 2), (2, 3 * nodes), generator=gen)
    edges = to_undirected(edges[:, (edges[0] != edges[1]) & (edges.amax(0) < nodes)], num_nodes=nodes)
    return torch.randn(nodes, CHANNELS[0], generator=gen, dtype=torch.float64), edges


def pign(stop=TIGHT, solver=None, **settings) -> PIGN:
    torch.manual_seed(3)
    conv = GCNConv(CHANNELS[1], CHANNELS[1], bias=settings.get("transport", "identity") != "identity")
    return PIGN(conv, CHANNELS, solver=solver or Picard(), stop=stop, **settings).double().eval()


VARIANTS = {
    "settled": {},
    "damped": {"solver": Picard(damping=0.7)},
    "ten steps": {"stop": FixedSteps(10)},
    "gated": {"injection": "gated"},
    "mixed": {"transport": "mixed", "injection": 0.5},
    "learned": {"transport": "learned", "injection": 0.5},
    "centred": {"center": True},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_permutation_equivariance(name: str, generator: torch.Generator) -> None:
    model, (x, edges) = pign(**VARIANTS[name]), graph(12, generator)
    order = torch.randperm(12, generator=generator)
    place = torch.argsort(order)
    shuffled = place[edges][:, torch.randperm(edges.shape[1], generator=generator)]
    with torch.no_grad():
        scores, moved = model(x, Graphs.one(edges, 12)), model(x[order], Graphs.one(shuffled, 12))
    torch.testing.assert_close(moved, scores[order], atol=1e-10, rtol=0)


def batch(sizes: list[int], gen: torch.Generator) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Graphs]:
    singles, start, edges = [graph(size, gen) for size in sizes], 0, []
    for (_, links), size in zip(singles, sizes, strict=True):
        edges.append(links + start)
        start += size
    joined = torch.cat(edges, 1)
    joined = joined[:, torch.randperm(joined.shape[1], generator=gen)]
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return singles, torch.cat([x for x, _ in singles]), Graphs(joined, index, len(sizes))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_is_its_graphs(name: str, generator: torch.Generator) -> None:
    model = pign(**VARIANTS[name])
    singles, x, graphs = batch([7, 1, 12, 9], generator)
    with torch.no_grad():
        together = model(x, graphs)
        report = model.settle.last
        assert report is not None
        alone, steps = [], []
        for features, edges in singles:
            alone.append(model(features, Graphs.one(edges, len(features))))
            assert model.settle.last is not None
            steps.append(int(model.settle.last.steps))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-10, rtol=0)
    assert report.steps.tolist() == steps  # each graph stopped when it would have stopped alone


def test_finished_graphs_are_gathered_away(generator: torch.Generator) -> None:
    """A single node settles at rate .9 in one step of its own; links make it slower: rows finish apart."""
    model = pign(injection="gated", solver=Picard())
    _, x, graphs = batch([3, 3, 30, 30], generator)
    with torch.no_grad():
        model(x, graphs)
    report = model.settle.last
    assert report is not None
    assert report.notes == ()
    assert report.work < int(report.steps.max()) * 4
    assert report.counts() == {"CONVERGED": 4}


def sparse_solution(model: PIGN, x: Tensor, edges: Tensor) -> Tensor:
    """(I - .9 A) h = .1 u by SciPy, A written out here."""
    nodes = len(x)
    links = (coo_array((torch.ones(edges.shape[1]).numpy(), edges.numpy()), (nodes, nodes)) + eye_array(nodes)).tocsr()
    degree = links.sum(axis=1)
    a = links.multiply(1 / degree[:, None] ** 0.5).multiply(1 / degree[None, :] ** 0.5)
    u = model.encoder(x).detach().numpy()
    return torch.as_tensor(spsolve((eye_array(nodes) - 0.9 * a).tocsc(), 0.1 * u))


@pytest.mark.parametrize("solver", [Picard(), Picard(damping=0.5), Anderson(5)], ids=repr)
def test_the_fixed_point_is_that_of_a_sparse_solve(solver: nn.Module, generator: torch.Generator) -> None:
    model, (x, edges) = pign(solver=solver), graph(40, generator)
    with torch.no_grad():
        scores = model(x, Graphs.one(edges, 40))
        torch.testing.assert_close(scores, model.decoder(sparse_solution(model, x, edges)), atol=1e-7, rtol=0)


@pytest.mark.parametrize("damping", [0.0, 0.3, 0.7])
@pytest.mark.parametrize(("transport", "injection"), [("identity", 0.1), ("learned", 0.2)])
def test_the_residual_falls_at_the_proved_rate(
    transport: str, injection: float, damping: float, generator: torch.Generator
) -> None:
    """||r_{k+1}|| <= (a + (1 - a) L) ||r_k||, L = (1 - g) ||W||, from a start where r is not 0."""
    model, (x, edges) = pign(transport=transport, injection=injection), graph(20, generator)
    graphs = Graphs.one(edges, 20)
    weight = model.operator.conv.lin.weight if transport == "learned" else torch.eye(4)
    bound = (1 - injection) * float(torch.linalg.matrix_norm(weight.detach(), 2))
    with torch.no_grad():
        u = model.encode(x, graphs)
        eq = Equation(model.operator, context=(u, *model.context(graphs)))
        found = solve(eq, 5 * torch.randn_like(u), Picard(damping), Tolerance(1e-9, max_steps=60), trace=True)
    assert found.trace is not None
    r = found.trace.residual[:, 0]
    assert float(r[0]) > 1
    assert (r[1:] <= (damping + (1 - damping) * bound) * r[:-1] * (1 + 1e-12)).all()


def test_implicit_and_unrolled_gradients_agree(generator: torch.Generator) -> None:
    x, edges = graph(9, generator)
    found = []
    for stop in (TIGHT, FixedSteps(300)):
        model = pign(stop=stop, injection=0.3, transport="learned")
        model(x, Graphs.one(edges, 9)).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-7)


def test_the_default_is_ten_smoothed_steps(generator: torch.Generator) -> None:
    x, edges = graph(9, generator)
    torch.manual_seed(3)
    model = PIGN(GCNConv(CHANNELS[1], CHANNELS[1], bias=False), CHANNELS).double()
    same = pign(solver=Picard(damping=0.7), stop=FixedSteps(10))
    assert torch.equal(model(x, Graphs.one(edges, 9)), same(x, Graphs.one(edges, 9)))


NONE = torch.zeros(2, 0, dtype=torch.int64)


@pytest.mark.parametrize("nodes", [0, 1, 4])
def test_graphs_without_edges(nodes: int) -> None:
    """Every node stands alone: A = I, so that h = u."""
    model, x = pign(), torch.ones(nodes, 5, dtype=torch.float64)
    with torch.no_grad():
        scores = model(x, Graphs.one(NONE, nodes))
        torch.testing.assert_close(scores, model.decoder(model.encoder(x)), atol=1e-9, rtol=0)
    assert scores.shape == (nodes, 3)


def test_the_adjacency_is_that_of_pyg(generator: torch.Generator) -> None:
    x, edges = graph(15, generator)
    edges = torch.cat((edges, torch.tensor([[3], [3]])), 1)  # a loop of its own, as PyG leaves it
    model = pign(stop=FixedSteps(5))
    with torch.no_grad():
        expected = model(x, Graphs.one(edges, 15))
        model.operator.conv.normalize = False
        found = model(x, Graphs.one(adjacency(edges, 15, torch.float64), 15))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_the_published_preset_is_its_algorithm(generator: torch.Generator) -> None:
    """h = .7 h + .3 relu(A h W + b), ten times from the encoder, without injection."""
    torch.manual_seed(0)
    model, (x, edges) = presets.published(CHANNELS).double().eval(), graph(11, generator)
    with torch.no_grad():
        h = model.encoder(x)
        conv = model.operator.conv.conv
        for _ in range(10):
            h = 0.7 * h + 0.3 * conv(h, edges).relu()
        torch.testing.assert_close(model(x, Graphs.one(edges, 11)), model.decoder(h), atol=1e-12, rtol=0)
    assert isinstance(model.operator.conv, Activated)


def test_gat_carries_features_as_they_are(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    x, edges = graph(8, generator)
    model = PIGN(GATConv(4, 2, heads=2), CHANNELS, solver=Anderson(5), stop=TIGHT).double()
    assert model(x, Graphs.one(edges, 8)).shape == (8, 3)
    assert isinstance(transported(GCNConv(4, 4), "mixed").lin, Mixed)


def test_dropout_of_sparse_features_keeps_their_mean() -> None:
    torch.manual_seed(0)
    encoder = presets.settled((1000, 2, 2)).encoder.train()
    x = torch.ones(1, 1000).to_sparse()
    nn.init.ones_(encoder.linear.weight)
    mean = torch.stack([encoder(x)[0, 0] - encoder.linear.bias[0] for _ in range(50)]).mean()
    assert float(mean.detach()) == pytest.approx(1000, rel=0.02)  # 50,000 draws of 0 or 2
    assert torch.equal(encoder.eval()(x), encoder(x.to_dense()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pign(injection=1.0), ValueError, r"injection must lie in \[0, 1\).*got 1.0"),
        (lambda: pign(injection="always"), ValueError, "got 'always'"),
        (lambda: pign(transport="none"), ValueError, "transport must be.*got 'none'"),
        (lambda: transported(SAGEConv(4, 4), "identity"), TypeError, "GCNConv and GATConv, got SAGEConv"),
        (lambda: presets.settled(CHANNELS, dropout=0.5).encoder.__class__(2, 2, dropout=1), ValueError, "dropout"),
    ],
)
def test_wrong_settings_are_refused(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [lambda: presets.settled(CHANNELS), lambda: presets.published(CHANNELS), lambda: GCN(*CHANNELS),
     lambda: transported(nn.Identity(), "identity")],
)  # fmt: skip
def test_without_pyg_the_extra_is_named(make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_geometric"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(ImportError, match=r'pip install "settlepoint\[graphs\]"'):
        make()


@pytest.mark.parametrize("kind", ["messages", "matrix", "attention"])
def test_fixed_steps_read_nothing_on_the_host(
    kind: str, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    x, edges = graph(20, generator)
    graphs = Graphs.one(edges if kind == "messages" else adjacency(edges, 20, torch.float64), 20)
    conv = {
        "messages": lambda: GCNConv(4, 4, cached=True),
        "matrix": lambda: GCNConv(4, 4, normalize=False),
        "attention": lambda: SparseAttention(GATConv(4, 4)),
    }[kind]()
    model = PIGN(conv, CHANNELS, transport="learned", stop=FixedSteps(5)).double().eval()
    with torch.no_grad():
        model(x, graphs)  # what is measured once for a graph: sizes, degrees
        with host_reads(monkeypatch) as reads:
            model(x, graphs)
    assert (reads.looks, reads.scalars) == (0, 0)


def test_a_tolerance_holds_dropout_and_statistics_still(generator: torch.Generator) -> None:
    """With a new mask a call there is no fixed point; held, training mode settles, and each pass draws anew."""
    x, edges = graph(20, generator)
    torch.manual_seed(0)
    for held in (False, True):
        conv = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        body = Activated(_OnNodes(conv), 0.5, norm=4, held=held)
        model = PIGN(body, CHANNELS, transport="learned", injection=0.7, solver=Picard(), stop=TIGHT).double().train()
        first, counts = model(x, Graphs.one(edges, 20)).detach(), model.settle.last
        assert counts is not None
        assert bool(counts.converged.all()) is held
        assert (int(body.norm.num_batches_tracked) == 1) is held  # type: ignore[arg-type]
        if held:
            assert not torch.allclose(model(x, Graphs.one(edges, 20)), first)
            model.eval()
            assert torch.equal(model(x, Graphs.one(edges, 20)), model(x, Graphs.one(edges, 20)))


class _OnNodes(nn.Module):
    """A map of every node on its own, as a convolution."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        return self.inner(h)


def test_own_encoder_decoder_and_adjoint(generator: torch.Generator) -> None:
    x, edges = graph(9, generator)
    encoder, decoder = nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 3)
    conv = GCNConv(4, 4, bias=False)
    adjoint = Truncated(2)
    model = PIGN(
        conv, CHANNELS, stop=TIGHT, solver=Picard(), adjoint=adjoint, encoder=encoder, decoder=decoder
    ).double()
    exact = PIGN(conv, CHANNELS, transport="learned", stop=TIGHT, solver=Picard(), encoder=encoder, decoder=decoder)
    graphs = Graphs.one(edges, 9)
    torch.testing.assert_close(model(x, graphs), exact(x, graphs))
    cut, whole = (torch.autograd.grad(m(x, graphs).square().sum(), encoder[0].weight)[0] for m in (model, exact))
    assert not torch.allclose(cut, whole, rtol=1e-3)
    assert torch.nn.functional.cosine_similarity(cut.flatten(), whole.flatten(), dim=0) > 0.5


def test_an_empty_sequence_is_an_encoder_and_posed_is_what_forward_solves() -> None:
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    conv, same = GCNConv(4, 4), torch.nn.Sequential()
    model = PIGN(conv, (4, 4, 4), injection=0.5, encoder=same, decoder=same, stop=Tolerance(atol=1e-6))
    assert model.encoder is same
    assert model.decoder is same
    x, graphs = torch.randn(3, 4), Graphs.one(edges, 3)
    eq, start = model.posed(x, graphs)
    found = solve(eq, start, Picard(), Tolerance(atol=1e-6))
    assert torch.allclose(graphs.nodes(found.value), model(x, graphs), atol=1e-5)


@pytest.mark.parametrize("rows", [2, 4, 6])
def test_features_of_another_number_of_nodes(rows: int) -> None:
    graphs = Graphs(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0, 1]), 2)
    model = PIGN(GCNConv(4, 4), (3, 4, 2))
    with pytest.raises(ValueError, match=f"x must have 3 rows, one a node, got {rows}"):
        model(torch.ones(rows, 3), graphs)
