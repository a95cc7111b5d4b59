"""Graph models on a GPU: the numbers of the CPU, no wait for the host, memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv

from settlepoint import Anderson, FixedSteps, Implicit, Picard, Tolerance, Unrolled
from settlepoint.layers import Blocks, SparseAttention, adjacency, transported
from settlepoint.models import APPNP, CGS, EIGNN, PIGN, Graphs
from settlepoint.training import NodeRecipe, NodeTask, presets
from settlepoint.training.copies import Copies
from settlepoint.training.nodes import fit_copies

pytestmark = pytest.mark.gpu
CHANNELS = (5, 16, 3)


def batch(generator: torch.Generator, sizes: tuple[int, ...] = (40, 7, 1, 25)) -> tuple[Tensor, Graphs]:
    """Features and graphs of random undirected links, float64."""
    edges, start = [], 0
    for size in sizes:
        ends = torch.randint(0, size, (2, 2 * size), generator=generator)
        ends = ends[:, ends[0] != ends[1]]
        edges.append(torch.cat((ends, ends.flip(0)), 1) + start)
        start += size
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(start, CHANNELS[0], generator=generator, dtype=torch.float64)
    return x, Graphs(torch.cat(edges, 1), index, len(sizes))


def there(graphs: Graphs) -> Graphs:
    return Graphs(graphs.edges.cuda(), graphs.index.cuda(), graphs.count)


def _pign(**settings) -> PIGN:
    conv = GCNConv(CHANNELS[1], CHANNELS[1], bias=False)
    return PIGN(conv, CHANNELS, solver=Picard(), stop=Tolerance(atol=1e-11, max_steps=2000), **settings)


MODELS = {
    "pign": _pign,
    "gated": lambda: _pign(injection="gated"),
    "centred": lambda: _pign(center=True),
    "appnp": lambda: APPNP(CHANNELS, solver=Anderson(), stop=Tolerance(atol=1e-11)),
    "eignn": lambda: EIGNN(CHANNELS, stop=Tolerance(atol=1e-11, max_steps=2000)),
    "cgs": lambda: CGS(CHANNELS, stop=Tolerance(atol=1e-11, max_steps=2000)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_the_numbers_of_the_cpu(name: str, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model, (x, graphs) = MODELS[name]().double().eval(), batch(generator)
    model(x, graphs).square().sum().backward()
    scores, steps = model(x, graphs).detach(), model.settle.last.steps
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.cuda()
    moved = model(x.cuda(), there(graphs))
    torch.testing.assert_close(moved.detach().cpu(), scores, atol=1e-9, rtol=0)
    assert int((model.settle.last.steps.cpu() - steps).abs().max()) <= 1
    moved.square().sum().backward()
    for mine, theirs in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(mine.grad.cpu(), theirs, atol=1e-7, rtol=1e-7)


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("kind", ["messages", "matrix", "attention"])
def test_fixed_steps_never_wait_for_the_device(kind: str, generator: torch.Generator) -> None:
    x, graphs = batch(generator, (60,))
    x = x.float().cuda()
    here = there(graphs)
    if kind == "messages":
        conv = transported(GCNConv(16, 16, cached=True), "identity")
    else:
        here = Graphs.one(adjacency(graphs.edges, 60).cuda(), 60)
        conv = GCNConv(16, 16, normalize=False) if kind == "matrix" else SparseAttention(GATConv(16, 16))
    model = PIGN(conv, CHANNELS, transport="learned", stop=FixedSteps(10)).cuda().eval()
    with torch.no_grad():
        model(x, here)  # what is measured once for a graph: sizes, degrees
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        u = model.encode(x, here)
        model.settle(u, u, model.context(here))
        torch.cuda.set_sync_debug_mode("default")


def _peak(adjoint: object, steps: int, generator: torch.Generator) -> int:
    x, graphs = batch(generator, (3000,))
    conv = GCNConv(64, 64, bias=False)
    conv.lin = Blocks(64, 64, bias=False)
    model = PIGN(conv, (5, 64, 3), transport="learned", solver=Picard(), stop=FixedSteps(steps), adjoint=adjoint).cuda()
    x, graphs = x.float().cuda(), there(graphs)
    model(x, graphs).square().mean().backward()
    torch.cuda.reset_peak_memory_stats()
    model(x, graphs).square().mean().backward()
    return torch.cuda.max_memory_allocated()


def test_the_implicit_gradient_takes_no_more_memory_for_more_steps(generator: torch.Generator) -> None:
    implicit = Implicit(Anderson(5), Tolerance(atol=0.0, rtol=1e-4, max_steps=100))
    few, many = (_peak(implicit, steps, generator) for steps in (20, 320))
    assert many <= 1.05 * few
    assert _peak(Unrolled(), 320, generator) > 3 * _peak(Unrolled(), 20, generator)


@pytest.mark.parametrize("backbone", ["gcn", "gat"])
def test_seeds_train_side_by_side(backbone: str, generator: torch.Generator) -> None:
    x, graphs = batch(generator, (30,))
    part = torch.arange(30).cuda()
    here = Graphs.one(adjacency(graphs.edges, 30).cuda(), 30)
    task = NodeTask(x.float().cuda(), part % 3, here, part < 10, (part > 9) & (part < 20), part > 19)
    build = lambda copies: presets.settled(CHANNELS, normalize=False, backbone=backbone, copies=copies).cuda()  # noqa: E731
    models = [build(1), build(1)]
    streams = [torch.Generator("cuda").manual_seed(i) for i in (1, 2)]
    histories = fit_copies(Copies(build(2), models, streams), task, NodeRecipe(epochs=30))
    assert all(history.loss[-1] < history.loss[0] for history in histories)
