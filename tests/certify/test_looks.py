"""Certificates change nothing: solutions, weights, buffers, gradients, modes, random numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.cells import DOUBLE
from tests.certify.equations import module_cell, newton, value_of
from torch import Tensor, nn

from settlepoint import Equation, Picard, Tolerance, certify, solve

METHODS = (*certify.METHODS, "auto")
PROOFS = ("banach", "graph", "perron", "ball", "kantorovich")


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_changed_by_the_look(method, generator):
    """Neither the solution nor weights, buffers, gradients, modes, hooks, threads, grad mode or random numbers."""
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()).double().eval()
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    module[2].train()
    before = copy.deepcopy(module.state_dict())
    eq = Equation(lambda x: 0.3 * module(x), torch.ones(3, 4, dtype=DOUBLE))
    with torch.no_grad():
        sol = solve(eq, torch.zeros(3, 4, dtype=DOUBLE), stop=Tolerance(1e-8))
    value, state = value_of(sol), torch.get_rng_state()
    kept = value.clone()
    certify.certificate(eq, sol, method)
    certify.certificate(Equation(module), value, method)
    assert sol.value is value
    assert torch.equal(value, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in module.parameters())
    assert [m.training for m in module] == [False, False, True]
    assert all(type(p) is nn.Parameter and p.requires_grad for p in module.parameters())


def test_modules_that_keep_what_they_see_keep_plain_tensors(generator):
    """A module that stores an activation must not be left with one that carries bounds."""

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3, dtype=DOUBLE)
            self.last: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.last = torch.tanh(0.3 * self.linear(x))
            return self.last

    module = Keeps()
    certify.certificate(Equation(module), torch.zeros(2, 3, dtype=DOUBLE))
    certify.lipschitz_upper(module)
    assert type(module.last) is Tensor


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_mode_of_the_caller_does_not_matter(mode, generator):
    eq, x, _ = module_cell(generator)
    usual = certify.certificate(eq, x)
    with mode():
        there = certify.certificate(eq, x.clone())
        assert there.counts() == {"proved": 4}
        assert torch.equal(there.radius, usual.radius)
        assert certify.kantorovich(eq, x.clone()).counts() == {"proved": 4}
    assert not there.radius.requires_grad


def test_values_with_a_graph_are_taken_as_numbers(generator):
    eq, x, module = module_cell(generator)
    sol = solve(eq, torch.zeros_like(x), stop=Tolerance(1e-8))
    assert value_of(sol).requires_grad
    assert certify.certificate(eq, sol).counts() == {"proved": 4}
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.9])
def test_damping_does_not_change_the_meaning(damping, generator):
    eq, _, _ = module_cell(generator)
    with torch.no_grad():
        sol = solve(eq, torch.zeros(4, 6, dtype=DOUBLE), Picard(damping), Tolerance(1e-4, max_steps=2000))
    fixed = newton(eq, value_of(sol))
    for method in PROOFS:
        found = certify.certificate(eq, sol, method)
        assert bool(((value_of(sol) - fixed).norm(dim=1) <= found.radius).all())
        assert torch.equal(found.radius, certify.certificate(eq, sol.value, method).radius)
