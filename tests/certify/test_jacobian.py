"""Jacobians row by row, spectral radii of what is not symmetric, norms from below and radii from above."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cells import DOUBLE, rotation
from torch import Tensor

from settlepoint import Equation, Segments, certify
from settlepoint.certify import Refused
from settlepoint.certify.jacobian import differentiable


def turn(degrees: float, scale: float) -> Tensor:
    t = math.radians(degrees)
    return scale * torch.tensor([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]], dtype=DOUBLE)


def linear(*matrices: Tensor) -> tuple[Equation, Tensor]:
    """One matrix a row, through context."""
    stack = torch.stack(matrices)
    eq = Equation(lambda x, A: (A @ x[:, :, None])[:, :, 0], context=(stack,))
    return eq, torch.ones(len(stack), stack.shape[1], dtype=DOUBLE)


@pytest.mark.parametrize(("degrees", "scale"), [(90, 1.1), (60, 1.2), (180, 0.5), (0, 2.0), (17, 1e-3), (45, 0.0)])
def test_the_spectral_radius_of_a_rotation_is_its_scale(degrees, scale):
    eq, x = linear(turn(degrees, scale))
    assert float(certify.spectral_radius(eq, x)) == pytest.approx(scale, rel=0.01, abs=1e-12)


def test_a_rayleigh_quotient_of_a_rotation_is_0():
    """v . J v = 0 for every v, at any scale: no size of a Jacobian that is not symmetric."""
    J = turn(90, 1.1)
    v = torch.randn(2, 20, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    assert float(((v * (J @ v)).sum(0) / v.square().sum(0)).abs().max()) < 1e-15
    assert float(certify.spectral_radius(Equation(rotation(1.1)), torch.ones(1, 2))) == pytest.approx(1.1, rel=1e-5)


def test_rows_have_radii_of_their_own(generator):
    big = torch.block_diag(turn(60, 1.2), turn(90, 0.3), torch.tensor([[0.5]], dtype=DOUBLE))
    jordan = 0.9 * torch.eye(5, dtype=DOUBLE) + 50 * torch.diag(torch.ones(4, dtype=DOUBLE), 1)
    random = torch.randn(5, 5, dtype=DOUBLE, generator=generator)
    eq, x = linear(big, torch.zeros(5, 5, dtype=DOUBLE), random, -torch.eye(5, dtype=DOUBLE))
    true = torch.tensor([1.2, 0.0, float(torch.linalg.eigvals(random).abs().max()), 1.0], dtype=DOUBLE)
    assert torch.allclose(certify.spectral_radius(eq, x), true, rtol=0.01, atol=1e-12)
    # of a Jordan block of size 5 and condition 50^4 an eigenvalue is known to eps^{1/5} at best
    eq, x = linear(jordan)
    assert float(certify.spectral_radius(eq, x)) == pytest.approx(0.9, abs=0.2)
    assert float(torch.linalg.matrix_norm(jordan, 2)) > 50


def test_steep_but_contracting_matrices_are_told_apart():
    """||J|| = 100, rho = .5: not normal."""
    J = torch.tensor([[0.5, 100.0], [0.0, 0.4]], dtype=DOUBLE)
    eq, x = linear(J)
    assert float(certify.spectral_radius(eq, x)) == pytest.approx(0.5, rel=0.01)
    assert float(certify.lipschitz_estimate(eq, x)) == pytest.approx(float(torch.linalg.matrix_norm(J, 2)), rel=1e-6)


def test_tuples_and_segments_have_rows_too():
    swap = Equation(lambda s: (0.5 * s[1], -0.5 * s[0]))
    pair = (torch.ones(3, 2, dtype=DOUBLE), torch.ones(3, 2, dtype=DOUBLE))
    assert torch.allclose(certify.spectral_radius(swap, pair), torch.full((3,), 0.5, dtype=DOUBLE))
    assert torch.allclose(certify.lipschitz_estimate(swap, pair), torch.full((3,), 0.5, dtype=DOUBLE))
    index = torch.tensor([0, 0, 0, 1])
    scale = torch.tensor([0.3, 0.6, 0.1, 0.2], dtype=DOUBLE)[:, None]
    eq = Equation(lambda x: scale * x, space=Segments(index, 2))
    found = certify.spectral_radius(eq, torch.ones(4, 1, dtype=DOUBLE))
    assert torch.allclose(found, torch.tensor([0.6, 0.2], dtype=DOUBLE))


def test_one_row_without_a_batch_dimension():
    J = turn(60, 1.2)
    assert float(certify.spectral_radius(Equation(lambda x: J @ x), torch.ones(2, dtype=DOUBLE))) == pytest.approx(1.2)
    assert float(certify.spectral_radius(Equation(torch.sin), torch.zeros((), dtype=DOUBLE))) == pytest.approx(1)


def test_the_starts_are_the_callers(generator):
    eq, x = linear(torch.diag(torch.linspace(0.1, 1, 50, dtype=DOUBLE)))
    a, b = (certify.spectral_radius(eq, x, 3, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    assert float(a) != float(b)
    assert float(certify.spectral_radius(eq, x, 50)) == pytest.approx(1, rel=1e-6)


@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), scale=st.sampled_from([1e-100, 1e-3, 1.0, 1e100]))
def test_the_power_bound_is_above_the_radius_and_close(seed, size, scale):
    """||J^256||_F^{1/256}: within (n cond)^{1/256} of the radius. Nothing over- or underflows on the way."""
    J = scale * torch.randn(2, size, size, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    values, vectors = torch.linalg.eig(J)
    true, found = values.abs().amax(1), certify.power_bound(J)
    assert bool((found >= true * (1 - 1e-9)).all())
    close = (size * torch.linalg.cond(vectors)).clamp(max=1e30) ** (1 / 256)
    assert bool((found <= true * close * (1 + 1e-9)).all())


def test_the_power_bound_by_hand():
    J = torch.stack([turn(90, 1.1), torch.zeros(2, 2, dtype=DOUBLE), torch.tensor([[0.0, 5], [0, 0]], dtype=DOUBLE)])
    assert torch.allclose(certify.power_bound(J), torch.tensor([1.1 * 2 ** (1 / 512), 0, 0], dtype=DOUBLE))
    assert torch.equal(certify.power_bound(J[:, :0, :0]), torch.zeros(3, dtype=DOUBLE))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 7), steps=st.integers(1, 40))
def test_the_estimate_of_the_norm_is_never_above_it(seed, width, steps):
    """From below to rounding, whatever the steps; and nearly the norm after many."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(width, width, dtype=DOUBLE, generator=generator)
    x = torch.randn(2, width, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: torch.tanh(x @ W))
    true = torch.linalg.matrix_norm(certify.jacobians(eq.at(x), x), ord=2)
    assert bool((certify.lipschitz_estimate(eq, x, steps) <= true * (1 + 1e-12)).all())
    assert bool((certify.lipschitz_estimate(eq, x, 100) >= 0.95 * true).all())


@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3), (5,), ()])
def test_jacobians_are_those_of_torch(shape, generator):
    x = torch.randn(shape, dtype=DOUBLE, generator=generator)

    def operator(x: Tensor) -> Tensor:
        rows = x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(1, -1)
        return (rows.sin() * rows.sum(1, keepdim=True)).reshape(x.shape)

    eq = Equation(operator).at(x)
    assert eq.layout is not None
    z = eq.layout.flatten(x)
    dense = torch.func.jacrev(eq.flat)(z)
    rows = range(len(z))
    assert torch.allclose(certify.jacobians(eq, z), torch.stack([dense[r, :, r] for r in rows]))


def test_operators_that_vmap_cannot_take_are_pushed_one_by_one(generator):
    """A branch on a value: no vmap, but a derivative."""
    x = torch.randn(2, 3, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: x.sin() if bool(x.detach().isfinite().all()) else x).at(x)
    assert torch.allclose(certify.jacobians(eq, x), torch.diag_embed(x.cos()))


def test_what_cannot_be_differentiated_is_refused():
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 0.5 * x

    x = torch.ones(2, 3, dtype=DOUBLE)
    with pytest.raises(Refused, match="the operator has no derivative along its state"):
        certify.jacobians(Equation(Forward.apply).at(x), x)


def test_no_entries_no_jacobian():
    x = torch.zeros(3, 0, dtype=DOUBLE)
    assert certify.jacobians(Equation(lambda x: x).at(x), x).shape == (3, 0, 0)
    assert torch.equal(certify.spectral_radius(Equation(lambda x: x), x), torch.zeros(3, dtype=DOUBLE))


LIARS = {
    "detach": lambda x: 0.5 * x.detach() + 0.1 * x,
    "straight through": lambda x: 0.1 * x + (torch.round(4 * x) - 4 * x).detach() + 4 * x,
    "rounded finely": lambda x: 0.1 * x + torch.round(1e9 * x) / 1e9,
    "argmax in disguise": lambda x: 0.1 * x + 1e-9 * (1e9 * x).long().to(x.dtype),
    "a small share": lambda x: 0.5 * x + 1e-4 * x.detach(),
}


@pytest.mark.parametrize("name", LIARS)
def test_derivatives_that_are_not_those_of_the_values_are_seen(name, generator):
    x = torch.randn(6, 3, dtype=DOUBLE, generator=generator)
    eq = Equation(LIARS[name]).at(x)
    assert not differentiable(eq, x, eq.flat(x), 2.2e-16).any()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_derivatives_that_are_right_are_believed(size, dtype, generator):
    """Even where x is large or small, in float32 too."""
    x = size * torch.randn(20, 5, dtype=dtype, generator=generator)
    W = torch.randn(5, 5, dtype=dtype, generator=generator)
    for operator in (
        lambda x: torch.tanh(x @ W / max(1, size)),
        lambda x: x.square() / size,
        lambda x: x @ W,
        torch.atan,
    ):
        eq = Equation(operator).at(x)
        assert bool(differentiable(eq, x, eq.flat(x), torch.finfo(dtype).eps).all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda eq, x: certify.spectral_radius(eq, x, 0), "steps must be an integer >= 1, got 0"),
        (lambda eq, x: certify.lipschitz_estimate(eq, x, -1), "steps must be an integer >= 1, got -1"),
        (lambda eq, x: certify.newton_krylov(eq, x, 0), "steps must be an integer >= 1, got 0"),
        (lambda eq, x: certify.koopman_rate(eq, x, 2), "steps must be an integer >= 3, got 2"),
    ],
)
def test_steps_are_counted(call, message):
    with pytest.raises(ValueError, match=message):
        call(*linear(turn(90, 0.5)))
