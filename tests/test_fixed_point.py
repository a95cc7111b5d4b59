"""The FixedPoint layer: how the input enters, what `last` says, training and serving. Oracle: closed forms."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from tests.cells import DOUBLE
from torch import nn

from settlepoint import (
    Anderson,
    Broyden,
    FixedPoint,
    FixedSteps,
    Implicit,
    NewtonKrylov,
    Picard,
    Status,
    Tolerance,
    Truncated,
    Unrolled,
)

U = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=DOUBLE)
TIGHT = Tolerance(1e-12)


def contraction(width: int, generator: torch.Generator, norm: float = 0.5) -> nn.Linear:
    layer = nn.Linear(width, width, dtype=DOUBLE)
    with torch.no_grad():
        W = torch.randn(width, width, dtype=DOUBLE, generator=generator)
        layer.weight.copy_(norm * W / torch.linalg.matrix_norm(W, 2))
        layer.bias.copy_(torch.randn(width, dtype=DOUBLE, generator=generator))
    return layer


# ---- how the input enters ------------------------------------------------------------------------------------------


def test_inject_f():
    """x = x/2 + u: twice the input."""
    assert torch.allclose(FixedPoint(lambda x: 0.5 * x, stop=TIGHT)(U), 2 * U)


def test_inject_init():
    """x = x/2 + 1 forgets a settled input; after 2 steps u/4 + 3/2 remembers it."""
    settled = FixedPoint(lambda x: 0.5 * x + 1, stop=TIGHT, inject="init")
    assert torch.allclose(settled(U), torch.full_like(U, 2.0))
    early = FixedPoint(lambda x: 0.5 * x + 1, stop=FixedSteps(2), inject="init")
    assert torch.allclose(early(U), U / 4 + 1.5)


def test_inject_input():
    """x = x/2 + 3u, handed to the operator: six times the input, started at zeros."""
    layer = FixedPoint(lambda x, u: 0.5 * x + 3 * u, stop=TIGHT, inject="input")
    assert torch.allclose(layer(U), 6 * U)
    assert torch.allclose(FixedPoint(lambda x, u: 0.5 * x + 3 * u, stop=FixedSteps(1), inject="input")(U), 3 * U)


def test_inject_input_of_another_width():
    """x0 says what the state looks like where the input does not."""
    layer = FixedPoint(lambda x, u: 0.5 * x + u.sum(1, keepdim=True), stop=TIGHT, inject="input")
    assert torch.allclose(layer(U, x0=torch.zeros(2, 3, dtype=DOUBLE)), (2 * U.sum(1, keepdim=True)).expand(2, 3))


def test_smoothed_is_the_recipe_of_the_paper():
    """x <- .7 x + .3 (x/2 + u), three times from u: the distance to 2u shrinks by .85 a step."""
    layer = FixedPoint.smoothed(lambda x: 0.5 * x, steps=3)
    assert torch.allclose(layer(U), 2 * U - 0.85**3 * U)
    assert layer.last.status.tolist() == [Status.COMPLETED] * 2


@pytest.mark.parametrize("inject", ["f", "init", "input"])
def test_several_tensors(inject):
    T = {"f": lambda x: (0.5 * x[0], 0.5 * x[1]), "init": lambda x: (0.5 * x[0], 0.5 * x[1]),
         "input": lambda x, a, b: (0.5 * x[0] + a, 0.5 * x[1] + b)}[inject]  # fmt: skip
    a, b = FixedPoint(T, stop=TIGHT, inject=inject)((U, U[:, :1]))
    factor = 0.0 if inject == "init" else 2.0
    assert torch.allclose(a, factor * U, atol=1e-11)
    assert torch.allclose(b, factor * U[:, :1], atol=1e-11)


def test_context_goes_row_by_row():
    """x = c x + u with one c a row, gathered with its row."""
    c = torch.tensor([[0.1], [0.9]], dtype=DOUBLE)
    layer = FixedPoint(lambda x, c: c * x, stop=Tolerance(1e-9, max_steps=400))
    assert torch.allclose(layer(U, context=(c,)), U / (1 - c), atol=1e-7)
    assert not layer.last.notes
    mixed = FixedPoint(lambda x, u, c: c * x + u, stop=Tolerance(1e-9, max_steps=400), inject="input")
    assert torch.allclose(mixed(U, context=(c,)), U / (1 - c), atol=1e-7)


def test_x0_overrides_the_start():
    layer = FixedPoint(lambda x: 0.5 * x, stop=Tolerance(1e-9))
    layer(U)
    cold = layer.last.evals
    assert torch.allclose(layer(U, x0=2 * U), 2 * U)
    assert layer.last.evals.tolist() == [1, 1]
    assert bool((cold > 1).all())


# ---- last ----------------------------------------------------------------------------------------------------------


def test_last_is_the_detached_solution(generator):
    layer = FixedPoint(contraction(2, generator), Anderson(), stop=Tolerance(1e-8))
    assert layer.last is None
    out = layer(U)
    assert out.requires_grad
    assert not layer.last.value.requires_grad
    assert torch.equal(layer.last.value, out)
    assert layer.last.status.tolist() == [Status.CONVERGED] * 2
    assert bool((layer.last.residual <= 1e-8).all())
    out.sum().backward()
    assert layer.last.gradient.solves >= 1  # the report arrives with backward


def test_last_is_of_the_latest_call():
    layer = FixedPoint(lambda x: 0.5 * x)
    layer(U)
    layer(torch.zeros(5, 2, dtype=DOUBLE))
    assert layer.last.status.shape == (5,)


# ---- a module among modules ----------------------------------------------------------------------------------------


def test_parameters_of_operator_and_solver_are_its_own(generator):
    layer = FixedPoint(contraction(2, generator), NewtonKrylov(inner=2))
    assert [n for n, _ in layer.named_parameters()] == ["operator.weight", "operator.bias"]
    assert "inject='f'" in repr(layer)
    assert "NewtonKrylov(inner=2" in repr(layer)


def test_copies_and_pickles(generator):
    layer = FixedPoint(contraction(2, generator), Broyden(), Tolerance(1e-9), Truncated(2))
    right = layer(U)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(U), right)
    other = FixedPoint(contraction(2, generator), Broyden(), Tolerance(1e-9))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(U), right)


def test_a_called_layer_copies(generator):
    layer = FixedPoint(contraction(2, generator))
    layer(U).sum().backward()
    assert torch.equal(copy.deepcopy(layer)(U), layer(U))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("adjoint", [None, Implicit(), Unrolled(), Truncated()], ids=str)
def test_training_and_serving_give_the_same(generator, mode, adjoint):
    layer = FixedPoint(contraction(2, generator), adjoint=adjoint)
    plain = layer(U)
    getattr(layer, mode)()
    out = layer(U)
    assert torch.equal(out, plain)
    (g,) = torch.autograd.grad(out.sum(), layer.operator.weight)
    assert bool((g != 0).any())


def test_it_learns(generator):
    """Twenty steps of Adam on a tanh cell through implicit gradients: the loss falls to less than half."""
    cell = contraction(4, generator)
    layer = FixedPoint(lambda x, u: torch.tanh(cell(x)) + u, stop=Tolerance(1e-6), inject="input")
    u = torch.randn(16, 4, dtype=DOUBLE, generator=generator)
    target = torch.randn(16, 4, dtype=DOUBLE, generator=generator) * 0.1 + u
    optimiser, losses = torch.optim.Adam(cell.parameters(), 0.05), []
    for _ in range(20):
        loss = ((layer(u) - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_two_calls_before_backward(generator):
    layer = FixedPoint(contraction(2, generator), stop=TIGHT)
    weight = layer.operator.weight
    each = [torch.autograd.grad(layer(u).sum(), weight)[0] for u in (U, -U)]
    (both,) = torch.autograd.grad(layer(U).sum() + layer(-U).sum(), weight)
    assert torch.allclose(both, sum(each), atol=1e-12)


# ---- layers that draw or look at the batch -------------------------------------------------------------------------


class Noisy(nn.Module):
    """A cell with dropout and batch statistics, that notes how many rows it saw."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x, u):
        self.seen.append(len(x))
        return 0.2 * torch.tanh(self.inner(x)) * u + 1


@pytest.mark.parametrize("inner", [nn.BatchNorm1d(3), nn.Dropout(0.3), nn.Sequential(nn.LazyBatchNorm1d())], ids=str)
def test_batch_statistics_and_dropout_in_training(inner):
    """In training every call has all rows; in eval rows may go."""
    u = torch.linspace(0.01, 3, 12)[:, None].expand(12, 3).contiguous()
    layer = FixedPoint(Noisy(inner), Picard(), Tolerance(1e-5, max_steps=60), Truncated(), inject="input")
    torch.manual_seed(0)
    layer.train()(u)
    assert set(layer.operator.seen) == {12}
    assert not layer.last.notes
    layer.operator.seen.clear()
    layer.eval()(u)
    assert layer.last.counts() == {"CONVERGED": 12}
    assert min(layer.operator.seen) < 12


def test_fixed_steps_train_with_dropout():
    torch.manual_seed(0)
    layer = FixedPoint(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), stop=FixedSteps(range(1, 4)))
    layer(torch.ones(4, 3)).sum().backward()
    assert bool(layer.operator[0].weight.grad.isfinite().all())
    assert layer.last.status.tolist() == [Status.COMPLETED] * 4


@pytest.mark.parametrize("inject", ["f", "init", "input"])
def test_weights_are_those_of_the_norm(inject):
    """The residual of one step from u, by hand."""
    operator = (lambda x, u: x + u) if inject == "input" else (lambda x: 2 * x)
    u, weights = torch.ones(2, 3), torch.tensor([1.0, 4.0, 4.0])
    layer = FixedPoint(operator, stop=FixedSteps(0, check=True), inject=inject)
    layer(u, weights=weights)
    moved = {"f": 2.0, "init": 1.0, "input": 1.0}[inject]
    assert layer.last is not None
    torch.testing.assert_close(layer.last.residual, torch.full((2,), 3 * moved))
