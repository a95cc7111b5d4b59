"""The equilibrium classifier: a fixed point inside, an exact gradient, one report a pass."""

from __future__ import annotations

import pytest
import torch

from settlepoint import FixedPoint, Implicit, Picard, Tolerance
from settlepoint.layers import TanhCell, linear
from settlepoint.models import EquilibriumClassifier

TIGHT = Tolerance(atol=1e-12, max_steps=500)


def model(generator: torch.Generator, bound: float = 0.8) -> EquilibriumClassifier:
    cell = TanhCell(6, gain=1.0, generator=generator, dtype=torch.float64)
    cell.project_(bound)
    settle = FixedPoint(cell, Picard(), TIGHT, Implicit(), inject="input")
    encoder = linear(4, 6, generator=generator, dtype=torch.float64)
    return EquilibriumClassifier(encoder, settle, linear(6, 3, generator=generator, dtype=torch.float64))


def test_scores_are_those_of_a_plain_loop(generator: torch.Generator) -> None:
    net, x = model(generator), torch.randn(5, 4, generator=generator, dtype=torch.float64)
    z = torch.zeros(5, 6, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(300):  # rate .8: below rounding
            z = net.operator(z, net.encode(x))
        torch.testing.assert_close(net(x), net.decode(z), atol=1e-10, rtol=0)
    assert net.settle.last is not None
    assert net.settle.last.counts() == {"CONVERGED": 5}


def test_the_gradient_is_that_of_unrolling(generator: torch.Generator) -> None:
    net, x = model(generator), torch.randn(3, 4, generator=generator, dtype=torch.float64)
    net(x).square().sum().backward()
    implicit = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    u, z = net.encode(x), torch.zeros(3, 6, dtype=torch.float64)
    for _ in range(300):
        z = net.operator(z, u)
    net.decode(z).square().sum().backward()
    for a, b in zip(implicit, [p.grad for p in net.parameters()], strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)  # forward and backward tolerance times 1 / (1 - .8)


def test_samples_do_not_talk(generator: torch.Generator) -> None:
    net, x = model(generator), torch.randn(7, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=1e-11, rtol=0)


def test_a_cell_that_does_not_see_its_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"inject='input'.*got 'f'"):
        EquilibriumClassifier(linear(2, 2), FixedPoint(TanhCell(2)), linear(2, 2))
