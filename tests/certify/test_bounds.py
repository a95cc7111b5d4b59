"""Every proved bound against true Jacobians: 1,000 random networks, on the whole space and on balls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.cells import DOUBLE
from tests.certify.measured import bounded, broken, seen
from tests.certify.nets import Draw, Net
from tests.certify.nets_graph import graph_net
from tests.certify.nets_image import image_net
from tests.certify.nets_tokens import token_net
from tests.certify.nets_vector import vector_net
from torch import Tensor, nn

from settlepoint import Equation, certify
from settlepoint.layers import adjacency, pyg

PART = 50
KINDS = {vector_net: 9, image_net: 5, token_net: 3, graph_net: 3}  # parts of 50 nets: 1,000 in all
PARTS = [(make, part) for make, count in KINDS.items() for part in range(count)]


@pytest.mark.parametrize(("make", "part"), PARTS, ids=[f"{m.__name__}-{p}" for m, p in PARTS])
def test_no_net_moves_faster_than_its_bounds(make, part, seed):
    """||J||_2 <= two, and every other field, by autograd at the centre and inside the ball. Nets that are refused
    everywhere are drawn again; they must be few, since refusing everything would pass too."""
    wrong, held, drawn = [], 0, 0
    while held < PART:
        drawn += 1
        draw = Draw(seed + 1000 * part + drawn)
        net = make(draw)
        true = seen(net, draw)
        found = {r: t for r in net.radii if (t := bounded(net, r)) is not None and bool(t.bound.two.isfinite().all())}
        over = {r: o for r, t in found.items() if (o := broken(t, true.near(r), r))}
        wrong += [f"seed {draw.seed}, radius {r}: {net}: {o}" for r, o in over.items()]
        held += bool(found)
        assert drawn <= 1.2 * PART, f"{drawn - held} of {drawn} nets refused"
    assert not wrong, "\n".join(wrong)


# ---- one piece at a time, at the point where it moves most ---------------------------------------------------------


def at(*values: float) -> Tensor:
    return torch.tensor([values], dtype=DOUBLE)


HEADS = torch.stack([torch.eye(4, dtype=DOUBLE)] * 3)
RANK_ONE = torch.stack([torch.eye(2, dtype=DOUBLE)[:, :1] * torch.eye(3, dtype=DOUBLE)[i] for i in range(3)])
ONES = torch.ones(4, dtype=DOUBLE)
TABLE = torch.full((4, 4), 0.5, dtype=DOUBLE)
NODES = torch.arange(4)


def gathered_maximum(x: Tensor) -> Tensor:
    """Largest messages behind a sparse product: rows of the matrix that gathers have several entries."""
    sent = torch.index_select(torch.sparse.mm(TABLE.to_sparse_coo(), x), 0, NODES)
    return x.new_zeros(4, 2).scatter_reduce_(0, NODES[:, None].expand(4, 2), sent, "amax", include_self=False)


def outer(y: Tensor) -> Tensor:
    return (y.mT @ y).flatten(1)


PIECES = {
    "places twice, once from the end": lambda x: x[:, [3, -1]],
    "places as a tuple": lambda x: x[:, (3, 3)],
    "places of NumPy": lambda x: x[:, np.array([3, 3])],
    "pairs of places": lambda x: x[:, None][:, [0, 0], [1, 1]],
    "pairs of places from the end": lambda x: x[:, None][:, [0, -1], [1, 1]],
    "repeats of one": lambda x: x.repeat_interleave(torch.tensor([4, 1, 1, 1]), dim=1),
    "copied over itself": lambda x: torch.index_copy(x, 1, torch.tensor([0, 1]), 5 * x[:, :2]),
    "copied among constants": lambda x: outer(
        torch.index_copy(torch.full((len(x), 4), 100.0, dtype=DOUBLE), 1, NODES[:2], torch.tanh(x)[:, :2])[:, None]
    ),
    "padded by a large constant": lambda x: outer(F.pad(torch.tanh(x)[:, None], (1, 1), value=100.0)),
    "soft-max padded by a large constant": lambda x: outer(F.pad(torch.softmax(x, -1)[:, None], (1, 1), value=100.0)),
    "filled with a large constant": lambda x: outer(torch.softmax(x, -1)[:, None].masked_fill(NODES > 2, 100.0)),
    "matrices side by side": lambda x: (x[:, None, None] @ HEADS).flatten(1),
    "matrices from the left": lambda x: (HEADS @ x[:, None, :, None]).flatten(1),
    "a matrix times heads": lambda x: (x @ HEADS).movedim(0, 1).flatten(1),
    "a letter alone in the state": lambda x: torch.einsum("bni,i->b", x[:, None].expand(-1, 9, -1), ONES)[:, None],
    "a letter alone in a constant": lambda x: torch.einsum("bi,j->bi", x, ONES),
    "a letter alone in a factor": lambda x: torch.einsum("bi,bj->bi", torch.tanh(x), 1 + torch.sin(x)),
    "more windows than entries": lambda x: F.adaptive_avg_pool1d(x[:, None, :1], 9)[:, 0],
    "windows without channels": lambda x: F.max_pool1d(x, 3, 1, 1),
    "windows by place of argument": lambda x: torch.max_pool1d(x[:, None], 2, 1, 0, 2)[:, 0],
    "padding by reflection": lambda x: F.pad(x[:, None], (3, 3), mode="reflect")[:, 0],
    "padding in a circle": lambda x: F.pad(x[:, None], (4, 4), mode="circular")[:, 0],
    "padding by the edge": lambda x: F.pad(x[:, None], (0, 9), mode="replicate")[:, 0],
    "a soft plus that jumps": lambda x: F.softplus(x, 1.0, 1.0),
    "an exponential in disguise": lambda x: F.celu(x, -1.0),
    "a shrinkage of its own": lambda x: F.softshrink(x, 1.0),
    "a part of a complex number": lambda x: 5 * x.real + 0.1 * x,
    "two last dimensions": lambda x: torch.stack((x, 2 * x), -1)[..., 0],
    "entries by a mask": lambda x: x[:, ONES > 0],
    "side by side along the last": lambda x: torch.hstack([x, x]),
    "rolled over the edge of nodes": lambda x: torch.roll(x.reshape(len(x), 2, 2), 1, (1,)).flatten(1),
    "a letter of size one": lambda x: torch.einsum("bi,i->b", x[:, :1], ONES)[:, None],
    "taps that meet on a small circle": lambda x: F.conv2d(
        F.pad(x.view(-1, 1, 2, 2), (1, 1, 1, 1), mode="circular"), torch.ones(1, 1, 2, 2, dtype=DOUBLE), dilation=2
    ).flatten(1),
    "a slope that torch rounds": lambda x: F.celu(x, 0.7530081510543822),
    "pooling by columns": lambda x: F.interpolate(x[:, None], size=13, mode="linear", align_corners=True)[:, 0],
    "gathered often": lambda x: torch.gather(x, 1, torch.zeros(len(x), 5, dtype=torch.int64)),
    "windows that overlap": lambda x: x.unfold(1, 3, 1).flatten(1),
    "normalised far from 0": lambda x: F.layer_norm(x, (4,), eps=1e-12),
}  # fmt: skip
CENTRES = (at(0, 0, 0, 0), at(0, 5, 0, 0), at(1 - 1e-5, 1, 1, -1), at(-3, 0, 1, 2), at(-1e-9, -1e-9, 1, 0))


@pytest.mark.parametrize("name", PIECES)
def test_pieces_that_were_once_or_might_be_bounded_too_low(name, seed):
    """A refusal is as good; a bound below the truth is not. (torch.func.jacrev would do as well.)"""
    for centre in CENTRES:
        draw = Draw(seed)
        net = Net((name,), PIECES[name], centre)
        true = seen(net, draw)
        for r in net.radii:
            t = bounded(net, r)
            assert t is None or not broken(t, true.near(r), r), r


def test_the_largest_of_gathered_messages(seed):
    draw = Draw(seed)
    net = Net(("max",), gathered_maximum, draw.normal(4, 2), whole=True)
    t = bounded(net, math.inf)
    assert t is None or not broken(t, seen(net, draw).near(math.inf), math.inf)


NODE_PIECES = {
    "an entry of every node": lambda x: x[..., 0],
    "a mask of two dimensions": lambda x: x[torch.ones(3, 4, dtype=torch.bool)],
    "side by side": lambda x: torch.hstack([x, x]),
    "rolled through all nodes": lambda x: torch.roll(x, 1),
    "entries of one column": lambda x: x.unbind(1)[0],
    "turned": lambda x: x.T,
    "flat": lambda x: x.flatten(),
    "summed over nodes": lambda x: x.sum(0, keepdim=True),
}


@pytest.mark.parametrize("name", NODE_PIECES)
def test_the_node_norm_ends_where_nodes_do(name, seed):
    """What was along the last dimension is no node of the result."""
    draw = Draw(seed)
    net = Net((name,), lambda x: NODE_PIECES[name](x), torch.zeros(3, 4, dtype=DOUBLE), whole=True)
    t = bounded(net, math.inf)
    assert t is None or not broken(t, seen(net, draw).near(math.inf), math.inf)


# ---- what torch's functions do not see -----------------------------------------------------------------------------


def into(function, *others):
    def operator(x: Tensor) -> Tensor:
        held = torch.empty(2, 3, dtype=DOUBLE)
        function(x, *others, out=held)
        return held + 0.1 * x

    return operator


def copied(x: Tensor) -> Tensor:
    held = torch.zeros(2, 3, dtype=DOUBLE)
    held.copy_(x)
    return 5 * held + 0.1 * x


def scripted(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function in the graph of torch.jit, which asks no __torch_function__."""
    return torch.jit.trace(function, torch.zeros(2, 3, dtype=DOUBLE))  # type: ignore[return-value]


def written_through_a_view(x: Tensor) -> Tensor:
    y = 1.0 * x
    y[:, :2].mul_(5)
    return y


def written_behind_autograd(name: str) -> Callable[[Tensor], Tensor]:
    def operator(x: Tensor) -> Tensor:
        y = 1.0 * x
        (y.data if name == "data" else y.detach()).mul_(5)
        return y

    return operator


def unfollowed(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return 5 * x


LEAKS = {
    "unfollowed": lambda x: unfollowed(x) + 0.1 * x,
    "a view written into": written_through_a_view,
    "detach written into": written_behind_autograd("detach"),
    "data written into": written_behind_autograd("data"),
    "data written into and read": lambda x: 1.0 * written_behind_autograd("data")(x),
    "vmap": lambda x: 5 * torch.vmap(torch.tanh)(x) + 0.1 * x,
    "vmap where it is flat": lambda x: 5 * torch.vmap(torch.relu)(x - 10) + 0.1 * x,
    "func.grad": lambda x: 0.1 * x - torch.func.grad(lambda v: (v**2).sum())(x),
    "func.jvp": lambda x: 0.1 * x - 5 * torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[0],
    "jit": lambda x: scripted(lambda v: torch.tanh(5 * v))(x) + 0.1 * x,
    "jit where it is flat": lambda x: scripted(lambda v: torch.relu(5 * (v - 10)))(x) + 0.1 * x,
    "as_subclass": lambda x: 5 * x.as_subclass(Tensor) + 0.1 * x,
    "tensor": lambda x: 5 * torch.tensor(x.detach()) + 0.1 * x,
    "new_tensor": lambda x: 5 * x.new_tensor(x) + 0.1 * x,
    "numpy": lambda x: 5 * torch.from_numpy(x.detach().numpy()) + 0.1 * x,
    "tolist": lambda x: 5 * torch.tensor(x.tolist(), dtype=DOUBLE) + 0.1 * x,
    "item": lambda x: x.sum().item() * x,
    "out of add": into(torch.add, ONES[:3]),
    "out of tanh": into(torch.tanh),
    "copy_": copied,
    "clamp by itself": lambda x: torch.clamp(5 * x, min=float(x.detach().min())),
}


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor", "ignore:.torch.jit.trace", "ignore:Converting")
@pytest.mark.parametrize("name", LEAKS)
def test_what_goes_past_torch_is_no_constant(name, generator):
    """Refused, or bounded by what values do: ||T(a) - T(b)|| <= L ||a - b||."""
    operator = LEAKS[name]
    a = torch.randn(2, 3, dtype=DOUBLE, generator=generator)
    try:
        bound = certify.lipschitz_upper(operator, example=(a,))
    except certify.Refused:
        return
    with torch.no_grad():
        for size in (1e-3, 1.0, 30.0):
            b = a + size * torch.randn(2, 3, dtype=DOUBLE, generator=generator)
            assert (operator(a) - operator(b)).norm() <= bound * (a - b).norm() * (1 + 1e-9)


# ---- not vacuous ---------------------------------------------------------------------------------------------------


def dense(operator, x: Tensor) -> Tensor:
    return torch.func.jacrev(lambda z: operator(z).reshape(-1))(x).reshape(-1, x.numel()).detach()


def test_a_matrix_has_its_norm_to_rounding(generator):
    layer = nn.Linear(7, 5, dtype=DOUBLE)
    found = certify.lipschitz_upper(layer)
    assert found == pytest.approx(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)), rel=1e-6)
    assert certify.lipschitz_upper(layer, norm="sup") == pytest.approx(float(layer.weight.detach().abs().sum(1).max()))


def test_an_orthogonal_layer_has_its_norm_at_0():
    """tanh'(0) = 1: the bound of the composition is attained."""
    net = nn.Sequential(nn.Linear(6, 6, bias=False, dtype=DOUBLE), nn.Tanh())
    nn.init.orthogonal_(net[0].weight, 0.8)  # type: ignore[arg-type]
    assert certify.lipschitz_upper(net) == pytest.approx(0.8, rel=1e-6)
    J = dense(net, torch.zeros(1, 6, dtype=DOUBLE))
    assert float(torch.linalg.matrix_norm(J, 2)) == pytest.approx(0.8, rel=1e-6)


def test_a_graph_convolution_has_the_product_of_two_norms(generator):
    """||x -> A x W|| = ||A||_2 ||W||_2, the norm of a Kronecker product; A by `layers.adjacency`, made dense."""
    ends = torch.randint(0, 7, (2, 12), generator=generator)
    ends = ends[:, ends[0] != ends[1]]
    edges = torch.unique(torch.cat((ends, ends.flip(0)), 1), dim=1)
    conv = pyg().GCNConv(3, 3).double().requires_grad_(False)
    A = adjacency(edges, 7, DOUBLE).to_dense()
    true = float(torch.linalg.matrix_norm(A, 2) * torch.linalg.matrix_norm(conv.lin.weight, 2))
    x = torch.zeros(7, 3, dtype=DOUBLE)
    assert certify.lipschitz_upper(conv, example=(x, edges)) == pytest.approx(true, rel=1e-6)
    assert float(torch.linalg.matrix_norm(dense(lambda z: conv(z, edges), x), 2)) == pytest.approx(true, rel=1e-9)


@pytest.mark.parametrize(("mode", "factor"), [("zeros", 1.06), ("circular", 1.03)])
def test_a_convolution_is_bounded_closely(mode, factor, generator):
    """Above the dense matrix on 12 x 12 by 1 / cos(pi / 32)^2 for the grid of frequencies, and by the edges."""
    conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        conv.weight.copy_(torch.rand(conv.weight.shape, generator=generator))
        basis = torch.eye(288, dtype=DOUBLE).reshape(-1, 2, 12, 12)
        true = float(torch.linalg.matrix_norm(conv(basis).flatten(1), 2))
    assert true <= certify.lipschitz_upper(conv, example=(basis[:1],)) <= factor * true


def test_half_of_all_bounds_at_a_point_are_within_a_factor_of_three(seed):
    """Of random vector and image nets on balls of radius 1e-4, where truth and bound should meet."""
    shares = []
    for number in range(60):
        draw = Draw(seed + number)
        net = (vector_net, image_net)[number % 2](draw)
        true, t = seen(net, draw), bounded(net, 1e-4)
        if t is not None:
            norm = torch.linalg.matrix_norm(true.J[0], ord=2)
            shares.append(float((norm.clamp(min=1e-12) / t.bound.two.clamp(min=1e-12)).max()))
    assert len(shares) > 50
    assert float(torch.tensor(shares).median()) > 1 / 3


def test_bounds_on_smaller_balls_are_smaller(generator):
    """x^2, exp, LayerNorm: what a Region is for."""
    norm = nn.LayerNorm(4, eps=1e-3, dtype=DOUBLE)
    for operator in (torch.square, torch.exp, lambda x: norm(x) * x):
        x = torch.randn(2, 4, dtype=DOUBLE, generator=generator)
        two = [certify.traced(Equation(operator), x, r).bound.two for r in (1e-4, 1e-2, 1.0)]
        assert bool((two[0] < two[1]).all() & (two[1] < two[2]).all())
