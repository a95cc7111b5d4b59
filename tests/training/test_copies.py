"""Networks side by side: what each of them gets is what it would get alone, dropout included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch_geometric.nn import GATConv
from torch_geometric.utils import to_undirected

from settlepoint.layers import Blocks, CopiedDropout, SparseAttention, SparseLinear, adjacency, attended
from settlepoint.layers.masks import mask
from settlepoint.layers.sparse import Places, spread
from settlepoint.models import APPNP, GAT, GCN, PIGN, DeepGCN, Graphs, IterGNN
from settlepoint.training import NodeRecipe, NodeTask, presets
from settlepoint.training.copies import Copies
from settlepoint.training.nodes import fit_copies, fit_nodes

CHANNELS = (12, 4, 3)
Build = Callable[[int], nn.Module]

BUILDS: dict[str, Build] = {
    "gcn": lambda copies: GCN(*CHANNELS, normalize=False, copies=copies),
    "centred gcn": lambda copies: GCN(*CHANNELS, normalize=False, center=True, copies=copies),
    "gat": lambda copies: GAT(*CHANNELS, heads=2, copies=copies),
    "deep": lambda copies: DeepGCN(CHANNELS, 3, inputs=0.5, normalize=False, copies=copies),
    "appnp": lambda copies: APPNP(CHANNELS, copies=copies),
    "published": lambda copies: presets.published(CHANNELS, normalize=False, copies=copies),
    "published gat": lambda copies: presets.published(CHANNELS, backbone="gat", copies=copies),
    "itergnn": lambda copies: IterGNN(
        presets.convolution("gcn", 4, copies, normalize=False, bias=True), CHANNELS, steps=6, copies=copies
    ),
    "decaying fork": lambda copies: IterGNN.fork(
        presets.convolution("gat", 4, copies, normalize=False, bias=True), CHANNELS, steps=6, decay=0.01, copies=copies
    ),
    "settled": lambda copies: presets.settled(CHANNELS, normalize=False, copies=copies),
    "gated": lambda copies: presets.settled(CHANNELS, injection="gated", normalize=False, copies=copies),
    "settled gat": lambda copies: presets.settled(CHANNELS, backbone="gat", center=True, copies=copies),
}


def node_task(gen: torch.Generator, *, sparse: bool = True) -> NodeTask:
    """Thirty nodes with words that speak for their class, ten to train on."""
    y = torch.arange(30) % 3
    x = (torch.rand(30, 12, generator=gen) < 0.2).double()
    x[torch.arange(30), y] = 1.0
    edges = to_undirected(torch.randint(0, 30, (2, 40), generator=gen), num_nodes=30)
    graphs = Graphs.one(adjacency(edges, 30, torch.float64), 30)
    part = torch.arange(30)
    return NodeTask(x.to_sparse() if sparse else x, y, graphs, part < 10, (part >= 10) & (part < 20), part >= 20)


def narrow(build: Build, count: int) -> list[nn.Module]:
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(build(1).double())
    return models


def streams(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + first + i) for i in range(count)]


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", BUILDS)
def test_side_by_side_is_one_by_one(name: str, sparse: bool, generator: torch.Generator) -> None:
    build, task, recipe = BUILDS[name], node_task(generator, sparse=sparse), NodeRecipe(epochs=6)
    together = narrow(build, 3)
    histories = fit_copies(Copies(build(3).double(), together, streams(3)), task, recipe)
    for seed, model in enumerate(narrow(build, 3)):
        alone = fit_copies(Copies(model, [model], streams(1, seed)), task, recipe)[0]
        torch.testing.assert_close(torch.tensor(histories[seed].loss), torch.tensor(alone.loss), atol=1e-10, rtol=0)
        assert histories[seed].val == alone.val
        assert histories[seed].test == alone.test
        assert len(set(alone.loss)) > 1
        for mine, theirs in zip(together[seed].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)


def test_no_mask_is_shared(generator: torch.Generator) -> None:
    """Copies of equal weights that draw from streams of their own drift apart; from equal streams they do not."""
    build, task = BUILDS["gcn"], node_task(generator)
    apart, alike = [], []
    for found, seeds in ((apart, (1, 2)), (alike, (1, 1))):
        torch.manual_seed(0)
        first = build(1).double()
        torch.manual_seed(0)
        models = [first, build(1).double()]
        copies = Copies(build(2).double(), models, [torch.Generator().manual_seed(seed) for seed in seeds])
        found += [history.loss for history in fit_copies(copies, task, NodeRecipe(epochs=3))]
    assert apart[0] != apart[1]
    assert alike[0] == alike[1]


def test_a_copy_ends_with_the_weights_of_its_own_best_epoch(generator: torch.Generator) -> None:
    build, task = BUILDS["gcn"], node_task(generator)
    models = narrow(build, 3)
    histories = fit_copies(Copies(build(3).double(), models, streams(3)), task, NodeRecipe(epochs=12, lr=0.1))
    assert len({history.chosen for history in histories}) > 1
    for model, history in zip(models, histories, strict=True):
        assert not model.training
        scores = model(task.x, task.graphs)
        assert 100 * float((scores.argmax(1) == task.y)[task.test].double().mean()) == history.test[history.chosen]


def test_one_model_draws_from_the_global_generator(generator: torch.Generator) -> None:
    task = node_task(generator)
    losses = []
    for seed in (1, 1, 2):
        (model,) = narrow(BUILDS["gcn"], 1)
        torch.manual_seed(seed)
        losses.append(fit_nodes(model, task, NodeRecipe(epochs=3)).loss)
    assert losses[0] == losses[1] != losses[2]


def test_what_is_not_as_wide_as_its_copies_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder.linear.weight must be 3 times as wide as \(4, 12\), got \(8, 12\)"):
        Copies(BUILDS["gcn"](2), [BUILDS["gcn"](1)] * 3)
    plain = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match="must draw by CopiedDropout"):
        Copies(plain, [plain], streams(1))
    with pytest.raises(ValueError, match="must have 2 copies, one a stream, got 1"):
        Copies(BUILDS["gcn"](1), [BUILDS["gcn"](1)], streams(2))
    with pytest.raises(ValueError, match="outputs must be a multiple of copies, got 5 and 2"):
        SparseLinear(3, 5, copies=2)
    with pytest.raises(ValueError, match="copies must be at least 1, got 0"):
        Blocks(3, 5, 0)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.9])
def test_masks_drop_their_share(p: float, generator: torch.Generator) -> None:
    found = mask(torch.empty(501, 401), p, generator)
    kept = found[found > 0]
    assert abs(1 - len(kept) / found.numel() - p) < 5e-3
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), atol=1e-4, rtol=1e-4)


def test_dropout_is_off_in_evaluation(generator: torch.Generator) -> None:
    x = torch.randn(5, 6, generator=generator)
    drop = CopiedDropout(0.5, 2)
    assert torch.equal(drop.eval()(x), x)
    assert not torch.equal(drop.train()(x), x)
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\), got 1"):
        CopiedDropout(1.0)


def entries(gen: torch.Generator) -> tuple[torch.Tensor, Places]:
    """A 7 x 5 matrix with an empty row and an empty column."""
    dense = torch.rand(7, 5, generator=gen, dtype=torch.float64) * (torch.rand(7, 5, generator=gen) < 0.5)
    dense[2], dense[:, 3] = 0, 0
    return dense, Places.of(dense.to_sparse())


def test_spread_is_a_dense_product_to_second_order(generator: torch.Generator) -> None:
    dense, places = entries(generator)
    values = dense[dense != 0].clone().requires_grad_()
    x = torch.randn(5, 1, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(spread(values[:, None], x, places)[:, 0], dense @ x[:, 0])
    assert torch.equal(places.matrix(values.detach()).to_dense(), dense)
    run = lambda v, z: spread(torch.stack((v, 2 * v), 1), z.expand(5, 2, 4), places)  # noqa: E731
    assert torch.autograd.gradcheck(run, (values, x))
    assert torch.autograd.gradgradcheck(run, (values, x))


@pytest.mark.parametrize("concat", [True, False])
def test_attention_on_a_matrix_is_attention_along_edges(concat: bool, generator: torch.Generator) -> None:
    edges = to_undirected(torch.randint(1, 9, (2, 15), generator=generator), num_nodes=10)  # 0 and 9 are isolated
    conv = GATConv(6, 4, heads=3, concat=concat).double()
    x = torch.randn(10, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    matrix = adjacency(edges, 10, torch.float64)
    theirs, ours = conv(x, edges), attended(conv, x, Places.of(matrix))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    torch.testing.assert_close(SparseAttention(conv)(x, edges), theirs, atol=1e-12, rtol=0)
    inputs = (x, conv.att_src, conv.att_dst, conv.lin.weight)
    for mine, theirs in zip(_gradients(ours, inputs), _gradients(conv(x, edges), inputs), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=0)


def _gradients(y: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(y.square().sum(), inputs)


def test_attention_does_not_overflow() -> None:
    matrix = adjacency(torch.tensor([[0, 1], [1, 0]]), 2)
    conv = GATConv(1, 1)
    nn.init.constant_(conv.att_src, 1e4)
    assert bool(attended(conv, torch.tensor([[1e3], [-1e3]]), Places.of(matrix)).isfinite().all())


def test_sparse_features_are_the_dense_ones(generator: torch.Generator) -> None:
    x = torch.randn(6, 5, generator=generator) * (torch.rand(6, 5, generator=generator) < 0.4)
    layer = SparseLinear(5, 4)
    for sparse in (x.to_sparse(), x.to_sparse_csr()):
        torch.testing.assert_close(layer(sparse), layer(x))
    (dense,) = torch.autograd.grad(layer(x).square().sum(), layer.linear.weight)
    (sparse,) = torch.autograd.grad(layer(x.to_sparse()).square().sum(), layer.linear.weight)
    torch.testing.assert_close(sparse, dense)


def test_a_held_pign_side_by_side(generator: torch.Generator) -> None:
    """PIGN with convolutions and weights of its own, built by hand, joins as the presets do."""
    models, task = narrow(_by_hand, 2), node_task(generator)
    histories = fit_copies(Copies(_by_hand(2).double(), models, streams(2)), task, NodeRecipe(epochs=2))
    assert all(len(history.loss) == 2 for history in histories)


def _by_hand(copies: int) -> PIGN:
    conv = GATConv(4 * copies, 4, copies)
    conv.lin = Blocks(4, 4, copies, bias=False)
    return PIGN(SparseAttention(conv, copies), CHANNELS, transport="learned", copies=copies)
