"""What makes a bound true in training: projections, penalties, and operators that contract by construction."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells import DOUBLE
from torch import nn

from settlepoint import Equation, FixedPoint, Tolerance, certify
from settlepoint.layers import TanhCell, linear


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 8), (60, 40)])
def test_one_projection_reaches_the_norm(shape, dtype, generator):
    """Oracle: singular values; and nothing is lost: a matrix that meets the bound is left alone, bit for bit."""
    layer = linear(shape[1], shape[0], generator=generator, dtype=dtype)
    with torch.no_grad():
        layer.weight.mul_(100)
    assert certify.project_(layer, 0.9) is layer
    assert float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2)) <= 0.9 * (1 + 1e-6)
    before = layer.weight.detach().clone()
    certify.project_(layer, 1.0)
    assert torch.equal(before, layer.weight)


def test_the_projection_is_the_nearest_matrix(generator):
    """Only singular values above the target move; scaling would be farther away."""
    layer = linear(6, 6, generator=generator, dtype=DOUBLE)
    start = layer.weight.detach().clone() * 4
    with torch.no_grad():
        layer.weight.copy_(start)
    certify.project_(layer, 1.0)
    scaled = start / torch.linalg.matrix_norm(start, 2)
    assert (layer.weight - start).norm() < (scaled - start).norm()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_a_convolution_is_projected_as_an_operator(mode, generator):
    """Oracle: the dense matrix of the convolution on a 9 x 9 image. The flattened kernel would be the wrong norm."""
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, dtype=DOUBLE, generator=generator).abs())
    certify.project_(conv, 0.9)
    basis = torch.eye(2 * 81, dtype=DOUBLE).reshape(-1, 2, 9, 9)
    dense = conv(basis).detach().flatten(1)
    assert float(torch.linalg.matrix_norm(dense, 2)) <= 0.9 * (1 + 1e-6)
    assert float(torch.linalg.matrix_norm(dense, 2)) > 0.8
    assert float(torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2)) < 0.6


def test_a_projection_in_a_training_loop_keeps_the_certificate(generator):
    cell = TanhCell(8, gain=2.0, generator=generator)
    layer = FixedPoint(cell, stop=Tolerance(1e-5, max_steps=500), inject="input")
    optimizer = torch.optim.SGD(cell.parameters(), 0.5)
    u = torch.randn(4, 8, generator=generator)
    certify.project_(cell, 0.9)
    for _ in range(3):
        optimizer.zero_grad()
        (-layer(u).square().mean()).backward()
        optimizer.step()
        certify.project_(cell, 0.9)
        assert certify.lipschitz_upper(cell) <= 0.9 * (1 + 1e-6)
    assert layer.last is not None
    assert certify.certificate(Equation(cell, context=(u,)), layer(u).detach()).counts() == {"proved": 4}


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_targets_are_positive(target):
    with pytest.raises(ValueError, match="target must be a finite number > 0"):
        certify.project_(nn.Linear(2, 2), target)


def problem(generator, rows=6, width=7):
    W = (torch.randn(width, width, dtype=DOUBLE, generator=generator) / 3).requires_grad_()
    u = torch.randn(rows, width, dtype=DOUBLE, generator=generator)
    return Equation(lambda x, u: torch.tanh(x @ W + u), context=(u,)), W, u / 2


def test_hutchinson_has_no_bias(generator):
    """Oracle: the dense Jacobian; 4,000 samples leave about 1 %."""
    eq, _, x = problem(generator)
    dense = certify.jacobians(eq.at(x), x).detach()
    found = certify.jacobian_penalty(eq, x, samples=4000, generator=generator)
    assert float(found.detach()) == pytest.approx(float(dense.square().sum((1, 2)).mean() / 7), rel=0.03)


def test_the_power_penalty_is_the_largest_singular_value(generator):
    eq, _, x = problem(generator)
    sigma = torch.linalg.matrix_norm(certify.jacobians(eq.at(x), x), ord=2)
    found = certify.jacobian_penalty(eq, x, kind="power", samples=100, generator=generator)
    assert float(found.detach()) == pytest.approx(float(sigma.square().mean()), rel=1e-3)
    spared = certify.jacobian_penalty(eq, x, kind="power", samples=100, target=10.0, generator=generator)
    assert float(spared.detach()) == 0.0


@pytest.mark.parametrize("kind", ["hutchinson", "power"])
def test_descending_the_penalty_lowers_the_jacobian(kind, generator):
    eq, W, x = problem(generator)
    before = certify.lipschitz_estimate(eq, x).max()
    for _ in range(40):
        loss = certify.jacobian_penalty(eq, x, kind=kind, samples=8, generator=generator)
        (gradient,) = torch.autograd.grad(loss, W)
        with torch.no_grad():
            W -= 0.3 * gradient
    assert certify.lipschitz_estimate(eq, x).max() < 0.6 * before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "frobenius"}, "kind"), ({"samples": 0}, "samples"), ({"target": -1.0}, "target")],
)
def test_penalties_name_what_is_wrong(options, message, generator):
    eq, _, x = problem(generator)
    with pytest.raises(ValueError, match=message):
        certify.jacobian_penalty(eq, x, **options)


def test_contractive_holds_whatever_the_optimiser_does(generator):
    cell = certify.contractive(TanhCell(6, gain=3.0, generator=generator), 0.8)
    optimizer = torch.optim.SGD(cell.parameters(), 50.0)
    u = torch.randn(5, 6, generator=generator)
    for _ in range(5):
        optimizer.zero_grad()
        (-cell(u, u).square().mean()).backward()
        optimizer.step()
        assert certify.lipschitz_upper(cell) <= 0.8 * (1 + 1e-6)
    assert any(p.grad is not None and bool(p.grad.any()) for p in cell.parameters())


def test_contractive_leaves_small_weights_as_they_are(generator):
    layer = linear(4, 4, generator=generator, dtype=DOUBLE)
    with torch.no_grad():
        layer.weight.mul_(0.1)
    before = layer.weight.detach().clone()
    assert torch.equal(certify.contractive(layer, 0.9).weight, before)  # type: ignore[arg-type]


def test_contractive_takes_convolutions(generator):
    net = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1))
    for p in net.parameters():
        nn.init.normal_(p)
    assert certify.lipschitz_upper(certify.contractive(net, 0.9)) <= 0.81 * (1 + 1e-5)


def test_a_blend_contracts_by_what_it_keeps(generator):
    block = nn.Sequential(linear(5, 5, generator=generator), nn.Tanh())
    nn.init.orthogonal_(block[0].weight)  # type: ignore[arg-type]
    blend = certify.Blend(block, 0.25)
    assert certify.lipschitz_upper(blend, example=(torch.zeros(2, 5), torch.ones(2, 5))) == pytest.approx(0.75, 1e-5)
    assert torch.allclose(blend(torch.ones(2, 5), torch.zeros(2, 5)), 0.75 * block(torch.ones(2, 5)))


def test_shares_and_rates_are_checked():
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), got 0"):
        certify.Blend(nn.Tanh(), 0)
    with pytest.raises(ValueError, match="rate must be a finite number > 0, got 0"):
        certify.contractive(nn.Linear(2, 2), 0)


def test_the_larger_of_two_moves_no_more_than_both(generator):
    """Oracle: differences of values, for a constant and for two parts of the state."""
    x, y = (torch.randn(50, 4, dtype=DOUBLE, generator=generator) for _ in range(2))
    for operator in (lambda z: torch.maximum(z, torch.zeros_like(z)), lambda z: torch.minimum(2 * z, z.flip(1))):
        bound = certify.lipschitz_upper(operator, example=(x,))
        moved = (operator(x) - operator(y)).norm(dim=1) / (x - y).norm(dim=1)
        assert 0.1 < float(moved.max()) <= bound
