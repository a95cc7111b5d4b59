"""Proofs at a point: existence, uniqueness nearby and a radius, and their refusal where they would be false."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE, rotation
from tests.certify.equations import away, iterated, newton, tanh_cells, two_roots
from torch import Tensor, nn

from settlepoint import Equation, Segments, certify


@pytest.mark.parametrize("gain", [0.5, 1.2, 2.0])
def test_a_proof_where_no_norm_is_below_1(gain, generator):
    """tanh(x W + u) with ||W||_2 about 2 gain. Oracle: Newton's method to 1e-14."""
    eq, x = tanh_cells(generator, rows=12, width=20, gain=gain)
    fixed = newton(eq, x) if gain < 1.5 else newton(eq, 0 * x + eq.context[0].sign())
    for size in (0.0, 1e-12, 1e-8, 1e-5):
        at = away(fixed, size, generator)
        found = certify.kantorovich(eq, at)
        assert found.counts() == {"proved": 12}
        error = (at - fixed).norm(dim=1)
        assert bool((error <= found.radius).all())
        assert bool((found.radius <= 10 * error + 1e-11).all())
        assert bool((found.radius < found.unique_in).all())
    if gain > 1:
        assert certify.banach(eq, at).counts() == {"refused": 12}


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), size=st.floats(-14, 0.5), gain=st.floats(0.1, 3.0))
def test_existence_is_real(seed, size, gain):
    """Where a proof is given, far or near, Newton finds the fixed point inside, and no other one inside unique_in."""
    generator = torch.Generator().manual_seed(seed)
    eq, x = tanh_cells(generator, rows=3, width=3, gain=gain)
    at = away(x, 10.0**size, generator)
    found = certify.kantorovich(eq, at)
    proved = found.proved
    if not bool(proved.any()):
        return
    restricted = eq.at(at).rows(proved.nonzero()[:, 0])
    restricted = Equation(restricted.operator, context=restricted.context)
    inside = newton(restricted, at[proved])
    assert bool(((inside - at[proved]).norm(dim=1) <= found.radius[proved] * (1 + 1e-9)).all())


@settings(max_examples=60)
@given(gap=st.floats(1e-9, 0.9), offset=st.floats(-0.4, 0.4), upper=st.booleans())
def test_uniqueness_never_reaches_the_second_fixed_point(gap, offset, upper):
    """x = x^2 + c with roots `gap` apart: J = 1 -+ gap there, so that all of it is in the curvature."""
    eq, low, high = two_roots([gap])
    near, far = (high, low) if upper else (low, high)
    x = near + offset * gap
    found = certify.kantorovich(eq, x)
    assert float(found.unique_in) < float((far - x).abs())
    if found.counts() == {"proved": 1}:
        assert float((near - x).abs()) <= float(found.radius) * (1 + 1e-9)


def test_close_fixed_points_are_told_apart_where_they_can_be():
    """>= 90 % of what Kantorovich's theorem covers, h = Y ||B|| K <= 1/2, by hand for x^2 + c: here h = .28."""
    gaps = torch.logspace(-5, -0.1, 200, dtype=DOUBLE)
    eq, low, _ = two_roots(gaps.tolist())
    x = low + 0.1 * gaps[:, None]
    found = certify.kantorovich(eq, x)
    # Newton from x: A = 1 - 2 x, Y = |r| / A, K = 2: h = 2 |r| / A^2
    A, r = 1 - 2 * x, (x.square() + eq.context[0] - x).abs()
    covered = (2 * r / A.square() < 0.5)[:, 0]
    assert int(covered.sum()) == 200
    assert int(found.proved.sum()) >= 180


def test_no_proof_where_fixed_points_touch():
    """gap 0, and a line of fixed points, and none at all."""
    eq, low, _ = two_roots([0.0])
    assert certify.kantorovich(eq, low).counts() == {"refused": 1}
    assert certify.kantorovich(Equation(lambda x: x.clone()), torch.ones(2, 3, dtype=DOUBLE)).counts() == {"refused": 2}
    found = certify.kantorovich(Equation(lambda x: x + 1e-12), torch.ones(2, 3, dtype=DOUBLE))
    assert found.counts() == {"refused": 2}
    assert "1 is an eigenvalue of J to rounding" in found.reason[0]
    lifted = Equation(lambda x: x.square() + 0.25 + 1e-9)  # the roots left the real line
    assert certify.kantorovich(lifted, torch.full((1, 1), 0.5, dtype=DOUBLE)).counts() == {"refused": 1}


def bisected(operator: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """The fixed point of an operator of every entry by itself, within 1 of u, to the last digit."""
    low, high = u - 1, u + 1
    for _ in range(100):
        middle = (low + high) / 2
        above = operator(middle) > middle
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


@pytest.mark.parametrize("rate", [0.9, 0.99, 0.999, 0.99999])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_slow_rates(rate, dtype, generator):
    """x = rate sin(x) + u with fixed points where J comes near 1, in float32 against the float64 fixed point of the
    same numbers. All of them are certified, as long as 1 - J stays above 1e-3."""
    u = torch.cat([size * torch.ones(5, 3, dtype=dtype) for size in (1e-4, 1e-2, 1.0)])
    eq = Equation(lambda x, u: rate * torch.sin(x) + u, context=(u,))
    fixed = bisected(lambda x: rate * torch.sin(x) + u.double(), u.double())
    for size in (0.0, 1e-12, 1e-9):
        x = away(fixed, size, generator).to(dtype)
        found = certify.kantorovich(eq, x)
        assert bool(((x.double() - fixed).norm(dim=1) <= found.radius).all())
        steep = (1 - rate * fixed.cos()).amin(1) > 1e-3
        assert bool(found.proved[steep].all())
    assert int(steep.sum()) >= 10


def test_float32_modules_are_certified_as_they_are(generator):
    """The fixed point of the float32 weights, not of a float64 model: error about 1e-7, radius not far above."""
    cell = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)).requires_grad_(False)
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    x = iterated(Equation(cell), torch.zeros(3, 6), 200)
    found = certify.kantorovich(Equation(cell), x)
    assert found.counts() == {"proved": 3}
    exact = copy.deepcopy(cell).double()
    fixed = newton(Equation(exact), x.double())
    error = (x.double() - fixed).norm(dim=1)
    assert bool((error <= found.radius).all())
    assert bool((found.radius <= 1e-4).all())
    assert all(p.dtype == torch.float32 for p in cell.parameters())


def test_operators_in_float32_inside_are_as_coarse_as_float32(generator):
    """Casts on the way, as RMSNorm of language models makes them, under a float64 state: 300 steps to the end."""
    W = torch.randn(6, 6, dtype=DOUBLE, generator=generator)
    W = 0.9 * W / torch.linalg.matrix_norm(W, 2)
    f = torch.randn(50, 6, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: (x.float() @ W.float()).double(), f)
    x = iterated(eq, torch.zeros_like(f), 300)
    fixed = torch.linalg.solve(torch.eye(6, dtype=DOUBLE) - W.float().double().T, f.T).T
    for method in ("banach", "graph", "perron", "ball", "kantorovich"):
        found = certify.certificate(eq, x, method)
        assert bool(((x - fixed).norm(dim=1) <= found.radius).all()), method


@pytest.mark.parametrize("share", [1e-2, 1e-3, 1e-5, 1e-6, 1e-8])
def test_a_detached_share_proves_nothing(share):
    """P(x) = (1 - share) x + share x.detach() + share is x + share: no fixed point, though autograd says J < 1."""
    eq = Equation(lambda x: (1 - share) * x + share * x.detach(), torch.full((2, 1), share, dtype=DOUBLE))
    for method in ("kantorovich", "ball", "banach", "auto"):
        assert "proved" not in certify.certificate(eq, torch.zeros(2, 1, dtype=DOUBLE), method).counts(), method


@pytest.mark.parametrize("share", [0.1, 1e-3, 1e-6])
def test_functions_with_a_false_derivative_prove_nothing(share):
    """The same with a derivative that is 1 - share by hand: the structure of bounds sees x itself."""

    class Lies(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return 1.0 * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, *grad_outputs):
            return (1 - share) * grad_outputs[0]

        @staticmethod
        def jvp(ctx, *grad_inputs):
            return (1 - share) * grad_inputs[0]

    eq = Equation(Lies.apply, torch.full((2, 1), share, dtype=DOUBLE))
    assert "proved" not in certify.certificate(eq, torch.zeros(2, 1, dtype=DOUBLE), "kantorovich").counts()


@pytest.mark.parametrize("share", [0.1, 1e-3])
def test_operators_that_are_others_with_autograd_prove_nothing(share):
    """x + share without autograd, a contraction with it: fused kernels for inference that do not agree."""
    eq = Equation(lambda x: (1 - share) * x if torch.is_grad_enabled() else 1.0 * x, torch.full((2, 1), share).double())
    with torch.no_grad():
        found = certify.kantorovich(eq, torch.zeros(2, 1, dtype=DOUBLE))
    assert found.counts() == {"refused": 2}


@pytest.mark.parametrize("share", [1e-2, 1e-6])
def test_a_share_without_gradient_proves_nothing(share):
    def operator(x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = share * x
        return (1 - share) * x + hidden

    eq = Equation(operator, torch.full((2, 1), share, dtype=DOUBLE))
    assert "proved" not in certify.certificate(eq, torch.zeros(2, 1, dtype=DOUBLE)).counts()


def test_detached_values_that_do_not_lie_are_allowed(generator):
    """x - x.detach() + tanh: a derivative that is larger than the true one; refused or true, never false."""
    eq = Equation(lambda x: 0.5 * torch.tanh(x) + 0.3 * (x - x.detach()), torch.ones(3, 2, dtype=DOUBLE))
    x = torch.ones(3, 2, dtype=DOUBLE)
    for _ in range(100):
        x = 0.5 * torch.tanh(x) + 1
    x = x + 1e-3
    found = certify.certificate(eq, x)
    assert bool(((x - (x - 1e-3)).norm(dim=1) <= found.radius).all())


def test_kinks_stop_a_proof_only_where_they_are():
    """x = relu(.5 x + c): smooth away from 0, no derivative in the ball at 0."""
    c = torch.tensor([[1.0], [-1.0], [0.0]], dtype=DOUBLE)
    eq = Equation(lambda x, c: torch.relu(0.5 * x + c), context=(c,))
    x = torch.tensor([[2.0], [0.0], [0.0]], dtype=DOUBLE)
    assert certify.kantorovich(eq, x).kind == ("proved", "proved", "refused")


def test_large_steps_are_taken_towards_the_fixed_point(generator):
    """Rows too far from it for a proof are seen again some Newton steps on, and the way is added."""
    eq, x = tanh_cells(generator, gain=1.0)
    fixed = newton(eq, x)
    at = away(fixed, 0.05, generator)
    found = certify.kantorovich(eq, at)
    error = (at - fixed).norm(dim=1)
    assert bool(found.proved.any())
    assert bool((error <= found.radius).all())


def test_the_rate_is_a_bound_of_the_spectral_radius(generator):
    eq, x = tanh_cells(generator, gain=1.3)
    found = certify.kantorovich(eq, x)
    true = torch.linalg.eigvals(certify.jacobians(eq.at(x), x)).abs().amax(1)
    assert bool((true <= found.rate).all())
    assert bool((found.rate <= 1.05 * true + 1e-12).all())
    turned = certify.kantorovich(Equation(rotation(1.1)), torch.zeros(1, 2, dtype=DOUBLE))
    assert turned.counts() == {"proved": 1}  # a fixed point that Picard's iteration never finds
    assert float(turned.rate) == pytest.approx(1.1, rel=0.01)
    assert math.isinf(float(turned.unique_in))


def test_curvature_may_be_given():
    """|x^2''| = 2, taken as proved, with the same claim as worked out; a larger one claims less."""
    eq, low, high = two_roots([0.4])
    x = low + 1e-3
    worked_out, told, more = (certify.kantorovich(eq, x, curvature=k) for k in (None, 2.0, 20.0))
    assert float(told.radius) == pytest.approx(float(worked_out.radius), rel=1e-6)
    assert float(told.unique_in) == pytest.approx(float(worked_out.unique_in), rel=1e-6)
    assert float(more.unique_in) < float(told.unique_in) < float(high - x)
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="curvature must be a finite number >= 0, got"):
            certify.kantorovich(eq, x, curvature=bad)


def test_transformers_are_proved_at_their_fixed_points(generator):
    """An encoder layer, damped, with attention, norms and gelu: nothing here has a constant on the whole space."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True, dtype=DOUBLE).eval()
    layer.requires_grad_(False)
    u = torch.randn(2, 3, 4, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x, u: 0.3 * (layer(x) - x) + u, context=(u,))
    x = iterated(eq, u, 300)
    found = certify.certificate(eq, x)
    assert found.counts() == {"proved": 2}
    assert bool((found.radius < 1e-9).all())


def test_states_of_several_parts_and_segments(generator):
    pair = Equation(lambda s: (torch.cos(s[1]), 0.8 * torch.sin(s[0])))
    x = (torch.zeros(2, 3, dtype=DOUBLE), torch.zeros(2, 3, dtype=DOUBLE))
    x = iterated(pair, x, 300)
    assert certify.kantorovich(pair, x).counts() == {"proved": 2}
    uneven = Equation(lambda s: (0.5 * torch.tanh(s[1].sum(1)), 0.3 * torch.sin(s[0])[:, None].expand(-1, 2) + 1))
    y = (torch.zeros(3, dtype=DOUBLE), torch.zeros(3, 2, dtype=DOUBLE))
    y = iterated(uneven, y, 200)
    assert certify.kantorovich(uneven, y).counts() == {"proved": 3}
    space = Segments(torch.tensor([0, 1, 1, 2, 2, 2]), 3)
    eq = Equation(lambda x: torch.cos(x), space=space)
    z = torch.full((6, 2), 0.739085133215, dtype=DOUBLE)
    found = certify.kantorovich(eq, z)
    assert found.counts() == {"proved": 3}
    assert bool((found.radius < 1e-10).all())


def test_more_than_500_unknowns_are_too_many():
    found = certify.kantorovich(Equation(lambda x: 0.5 * x), torch.zeros(1, 501, dtype=DOUBLE))
    assert found.counts() == {"refused": 1}
    assert "501 unknowns a row" in found.reason[0]


def test_old_functions_of_autograd_are_refused_not_raised():
    """Without setup_context they have no forward mode."""

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 0.5 * x

        @staticmethod
        def backward(ctx, *grad_outputs):
            return 0.5 * grad_outputs[0]

    found = certify.certificate(Equation(Half.apply), torch.ones(2, 2, dtype=DOUBLE))
    assert sum(found.counts().values()) == 2


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_blocks_of_rows_do_not_matter(rows, generator, monkeypatch):
    """Jacobians are held a block at a time."""
    module = importlib.import_module("settlepoint.certify.kantorovich")
    eq, x = tanh_cells(generator, rows=rows)
    whole = certify.kantorovich(eq, x)
    monkeypatch.setattr(module, "_BLOCK", 2 * 64)
    parts = certify.kantorovich(eq, x)
    assert parts.kind == whole.kind
    assert torch.allclose(parts.radius, whole.radius, rtol=1e-6)
