"""What every certificate promises, whoever made it: true radii, honest refusals, and nothing changed by the look."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE, affine, factors
from tests.certify.equations import away, module_cell, newton, tanh_cells, value_of
from tests.certify.nets import Draw, chain
from tests.certify.nets_vector import STEPS
from torch import nn

from settlepoint import Anderson, Equation, Tolerance, certify, solve
from settlepoint.certify import Certificate
from settlepoint.certify.certificate import claimed, stacked, strongest

METHODS = (*certify.METHODS, "auto")
PROOFS = ("banach", "graph", "perron", "ball", "kantorovich")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("far", [0.0, 1e-9, 1e-3, 1.0])
def test_radii_cover_the_error(method, far, generator):
    eq, x = tanh_cells(generator, gain=0.3)
    fixed = newton(eq, x)
    at = away(fixed, far, generator)
    found = certify.certificate(eq, at, method)
    error = (at - fixed).norm(dim=1)
    assert bool((error <= found.radius)[~found.estimated].all())
    if method in PROOFS and far < 0.1:
        assert found.counts() == {"proved": 5}


@pytest.mark.parametrize("far", [1e-10, 1e-5, 0.1])
def test_planted_fixed_points_are_inside(far, seed):
    """Random networks (tests/certify/nets_vector.py) with a fixed point that is put there through f: whoever says that
    there is one fixed point in a ball that holds it must have it within the radius. 8 of 10 rows get a proof."""
    proved = 0
    for number in range(12):
        draw = Draw(seed + number)
        width = draw.integer(1, 5)
        _, net, out = chain(draw, STEPS, width, draw.integer(1, 3))
        W, fixed = draw.pick((0.05, 0.5, 2.0)) * draw.normal(out, width), draw.normal(2, width)
        eq = Equation(lambda x, W=W, net=net: net(x) @ W, fixed - net(fixed) @ W)
        x = away(fixed, far, draw.generator)
        error = (x - fixed).norm(dim=1)
        found = [certify.certificate(eq, x, method) for method in PROOFS]
        for c in found:
            holds_it = c.proved & (error < c.unique_in)
            assert bool((error <= c.radius * (1 + 1e-9) + 1e-13)[holds_it].all()), (number, c.method[0])
        proved += int(torch.stack([c.proved for c in found]).any(0).sum())
    assert proved >= (19 if far < 0.01 else 8)


@pytest.mark.parametrize("method", METHODS)
def test_fields_have_one_entry_a_row(method, generator):
    eq, x, _ = module_cell(generator)
    found = certify.certificate(eq, x, method)
    for name in ("radius", "rate", "unique_in"):
        values = getattr(found, name)
        assert values.shape == (4,)
        assert values.dtype == DOUBLE
    assert len(found.kind) == len(found.reason) == len(found.method) == 4
    assert all(found.reason)
    assert int(found.proved.sum() + found.estimated.sum() + found.refused.sum()) == 4


def test_auto_takes_the_smallest_proof(generator):
    eq, x, _ = module_cell(generator)
    single = [certify.certificate(eq, x, m) for m in ("graph", "perron")]
    best = certify.certificate(eq, x)
    assert torch.equal(best.radius, torch.stack([c.radius for c in single]).amin(0))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rate=st.floats(0.05, 0.999), far=st.floats(-13, 1))
def test_adversaries_get_no_false_proof(seed, rate, far):
    """Nonnormal, slow, in float32 as well; every claim against the solution of a linear system in float64."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(5, 5, dtype=DOUBLE, generator=generator).triu(1) * 5
    W = W + torch.diag(rate * torch.randn(5, dtype=DOUBLE, generator=generator).sign())
    f = torch.randn(4, 5, dtype=DOUBLE, generator=generator)
    for dtype in (DOUBLE, torch.float32):
        A, b = W.to(dtype), f.to(dtype)
        fixed = torch.linalg.solve(torch.eye(5, dtype=DOUBLE) - A.double(), b.double().T).T
        x = away(fixed, 10.0**far, generator).to(dtype)
        found = certify.certificate(Equation(lambda x: x @ A.T, b), x)  # noqa: B023
        assert bool(((x.double() - fixed).norm(dim=1) <= found.radius).all())


# ---- the value itself ----------------------------------------------------------------------------------------------


def certificate(kinds: str, radius: list[float], method: str) -> Certificate:
    """p, e, r for every row."""
    names = {"p": "proved", "e": "estimated", "r": "refused"}
    values = torch.tensor(radius, dtype=DOUBLE)
    kind = tuple(names[k] for k in kinds)
    return Certificate(kind, values, 0 * values, values, tuple(f"why {method}" for _ in kinds), (method,) * len(kinds))


def test_the_strongest_is_chosen_row_by_row():
    a = certificate("pprrp", [1.0, 2.0, math.inf, math.inf, math.inf], "a")
    b = certificate("perep", [2.0, 1e-9, math.inf, 0.5, 7.0], "b")
    best = strongest([a, b])
    assert best.kind == ("proved", "proved", "refused", "estimated", "proved")
    assert best.method == ("a", "a", "a", "b", "b")
    assert best.radius.tolist() == [1.0, 2.0, math.inf, 0.5, 7.0]
    assert best.reason[3] == "b: why b; a: why a"


def test_an_estimate_stays_one():
    found = certificate("per", [1.0, 2.0, math.inf], "a").as_estimate("the weights were sampled")
    assert found.kind == ("estimated", "estimated", "refused")
    assert found.reason == ("why a; the weights were sampled", "why a", "why a")


def test_masks_and_counts():
    found = stacked([certificate("pe", [1.0, 2.0], "a"), certificate("r", [math.inf], "b")])
    assert (found.proved.tolist(), found.estimated.tolist()) == ([True, False, False], [False, True, False])
    assert found.refused.tolist() == [False, False, True]
    assert found.counts() == {"proved": 1, "estimated": 1, "refused": 1}
    none = claimed(torch.tensor([False]), torch.ones(1), torch.ones(1), torch.ones(1), ("yes", "no"), "m")
    assert (none.kind, none.reason) == (("refused",), ("no",))
    assert math.isinf(float(none.radius))
    assert float(none.unique_in) == 0


def test_fields_must_be_as_long_as_each_other():
    with pytest.raises(AssertionError, match="one entry a row in every field"):
        Certificate(("proved",), torch.ones(2), torch.ones(1), torch.ones(1), ("",), ("",))


@pytest.mark.parametrize("rate", [0.5, 0.99])
def test_a_solution_is_certified_as_it_is_returned(rate, generator):
    """The value of a Solution, not the last iterate of something else; and rows in their order."""
    eq, answer = factors([rate, 0.1, 0.3])
    sol = solve(eq, torch.zeros(3, 3, dtype=DOUBLE), stop=Tolerance(1e-6, max_steps=5000))
    found = certify.certificate(eq, sol)
    error = (value_of(sol) - answer).norm(dim=1)
    assert bool((error <= found.radius).all())
    assert bool((found.radius <= 10 * error + 1e-13).all())


def test_wide_modules_are_spared_their_norm(generator):
    """Matrices of more than 1,024 rows: no SVD unless it is asked for; an estimate at least."""
    layer = nn.Linear(1100, 1100, dtype=DOUBLE).requires_grad_(False)
    with torch.no_grad():
        layer.weight.copy_(0.3 * torch.eye(1100))
    eq = Equation(layer)
    x = torch.zeros(1, 1100, dtype=DOUBLE)
    for _ in range(60):
        x = eq.image(x)
    found = certify.certificate(eq, x)
    assert found.counts() == {"estimated": 1}
    assert "ask for method='graph'" in found.reason[0]


def test_symmetric_affine_rows_are_all_certified(generator):
    problem = affine(generator, rows=40, width=8, low=-0.99, high=0.99)
    with torch.no_grad():
        sol = solve(problem.equation, torch.zeros(40, 8, dtype=DOUBLE), Anderson(), Tolerance(1e-8))
    found = certify.certificate(problem.equation, sol)
    assert found.counts() == {"proved": 40}
    assert bool((problem.error(value_of(sol)) <= found.radius).all())
