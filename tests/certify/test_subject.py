"""Subjects: models and operators as equations, and nothing of a model changed by looking at it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from settlepoint import Anderson, FixedPoint, FixedSteps, Picard, Tolerance
from settlepoint.certify import Subject
from settlepoint.layers import TanhCell


def model(stop: object = None, inject: str = "input") -> nn.Sequential:
    torch.manual_seed(0)
    layer = FixedPoint(TanhCell(6), Anderson(), stop or Tolerance(1e-5), inject=inject)  # type: ignore[arg-type]
    return nn.Sequential(nn.Linear(3, 6), layer, nn.Linear(6, 2))


def test_a_fixed_point_in_a_model_is_found_with_what_it_was_given():
    net, x = model(), torch.randn(5, 3)
    posed = Subject(net, (x,)).posed()
    (u,) = posed.eq.context
    assert torch.equal(u, net[0](x).detach())
    assert torch.equal(posed.x0, torch.zeros(5, 6))  # type: ignore[arg-type]
    assert isinstance(posed.solver, Anderson)


@pytest.mark.parametrize("inject", ["f", "init"])
def test_the_ways_of_injection_are_followed(inject):
    operator = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    net = nn.Sequential(nn.Linear(3, 6), FixedPoint(operator, inject=inject, stop=FixedSteps(3)))
    x = torch.randn(5, 3)
    posed = Subject(net, (x,)).posed()
    assert torch.equal(posed.x0, net[0](x))  # type: ignore[arg-type]
    assert (posed.eq.f is None) == (inject == "init")


def test_the_depth_is_what_the_layer_takes():
    assert Subject(model(FixedSteps(7)), (torch.randn(4, 3),)).posed().depth == 7
    taken = Subject(model(), (torch.randn(4, 3),)).posed().depth
    assert 1 < taken < 30
    assert Subject(model(), (torch.randn(4, 3),), depth=9).posed().depth == 9


def test_the_score_is_that_of_the_model_after_so_many_steps():
    net, x = model(FixedSteps(5)), torch.randn(4, 3)
    posed = Subject(net, (x,), score=lambda y: float(y.detach().sum())).posed()
    assert posed.score is not None
    assert posed.score(FixedSteps(5)) == pytest.approx(float(net(x).detach().sum()))
    assert posed.score(FixedSteps(1)) != posed.score(FixedSteps(5))


def test_looking_leaves_the_model_as_it_was():
    net, x = model(), torch.randn(4, 3)
    layer = net[1]
    assert isinstance(layer, FixedPoint)
    stop, weights = layer.stop, [p.detach().clone() for p in net.parameters()]
    posed = Subject(net, (x,), score=lambda y: float(y.detach().sum())).posed()
    assert posed.score is not None
    last = layer.last
    posed.score(FixedSteps(3))
    assert layer.stop is stop
    assert layer.last is last
    assert not layer._forward_pre_hooks
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_an_operator_is_iterated_as_it_is():
    T = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    x0 = torch.zeros(8, 4)
    posed = Subject(T, (x0,), depth=6, f=torch.ones(8, 4), lam=0.5, score=lambda x: float(x.detach().sum())).posed()
    assert posed.eq.operator is T
    assert isinstance(posed.solver, Picard)
    assert posed.score is not None
    assert posed.score(FixedSteps(1)) == pytest.approx(float((0.5 * T(x0) + 1).detach().sum()))


def test_an_operator_without_a_depth_gets_twelve():
    assert Subject(lambda x: x / 2, (torch.ones(2, 2),)).posed().depth == 12


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("no", (1,)), TypeError, "model must be an nn.Module or a function, got str"),
        ((torch.tanh, torch.ones(2)), TypeError, "inputs must be a tuple"),
        ((torch.tanh, ()), TypeError, "inputs must be a tuple with at least one entry"),
    ],
)
def test_wrong_subjects_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        Subject(*arguments)


def test_a_depth_counts():
    with pytest.raises(ValueError, match="depth must be an integer >= 1, got 0"):
        Subject(torch.tanh, (torch.ones(2, 2),), depth=0)


def test_two_fixed_points_are_one_too_many():
    twice = nn.ModuleList([FixedPoint(nn.Tanh()), FixedPoint(nn.Tanh())])
    with pytest.raises(ValueError, match="model must hold one FixedPoint, got 2: 0, 1"):
        Subject(twice, (torch.ones(2, 2),))


def test_a_layer_that_is_not_called_is_told():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.settle = FixedPoint(nn.Tanh())

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="model must call its FixedPoint"):
        Subject(Idle(), (torch.ones(2, 2),)).posed()
