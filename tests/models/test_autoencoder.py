"""The VAE as an operator, and the bound it is trained by, against torch.distributions and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import settlepoint as sp
from settlepoint import certify
from settlepoint.models import VAE
from settlepoint.training import Elbo, Recipe, fit

KIND = torch.float64


@pytest.fixture
def model(generator: torch.Generator) -> VAE:
    model = VAE(6, 10, 3).to(KIND)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=KIND))
    return model


@pytest.fixture
def x(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(7, 6, generator=generator, dtype=KIND)


def test_the_operator_is_decode_of_the_mean(model: VAE, x: torch.Tensor) -> None:
    mean, log_variance = model.encode(x)
    assert mean.shape == log_variance.shape == (7, 3)
    assert torch.equal(model.operator(x), model.decode(mean))
    assert bool(((model(1e3 * x) >= 0) & (model(1e3 * x) <= 1)).all())


@torch.no_grad()
def test_its_bound_is_that_of_its_matrices(model: VAE) -> None:
    """By hand: the norms of four matrices, tanh by 1, the sigmoid by 1/4; log_variance has no part in T."""
    maps = (model.body[0], model.mean, model.decoder[0], model.decoder[2])
    wanted = 0.25 * torch.stack([torch.linalg.matrix_norm(m.weight, 2) for m in maps]).prod()
    assert certify.lipschitz_upper(model.operator) == pytest.approx(float(wanted), rel=1e-6)


def test_a_contracting_one_has_one_fixed_point_and_a_proof(model: VAE, x: torch.Tensor) -> None:
    certify.project_(model, (4 * 0.9) ** 0.25)
    eq = sp.Equation(model.operator)
    sol = sp.solve(eq, x, sp.Anderson(3), sp.Tolerance(1e-10)).require()
    assert float((sol.value - sol.value[0]).detach().abs().max()) < 1e-8
    found = certify.certificate(eq, sol)
    assert found.counts() == {"proved": 7}
    assert float(found.radius.detach().max()) < 1e-8


def test_the_bound_against_torch_distributions(model: VAE, x: torch.Tensor) -> None:
    beta, s = 0.7, 0.3
    found = Elbo(beta=beta, deviation=s, generator=torch.Generator().manual_seed(1))(model, x, x)
    mean, log_variance = model.encode(x)
    n = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=KIND)
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    p = torch.distributions.Normal(model.decode(mean + q.stddev * n), s)
    zero = torch.distributions.Normal(x, s)  # what the constant takes away
    likelihood = (zero.log_prob(x) - p.log_prob(x)).sum(1)
    apart = torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros_like(mean), 1.0)).sum(1)
    assert float(found.detach()) == pytest.approx(float((likelihood + beta * apart).mean().detach()), rel=1e-9)


def test_without_beta_it_is_a_plain_autoencoder(model: VAE, x: torch.Tensor) -> None:
    found = Elbo(beta=0.0, deviation=1.0)(model, x, x)
    assert float(found.detach()) == pytest.approx(float((model(x) - x).square().sum(1).mean().detach() / 2), rel=1e-12)


def test_noise_is_seen_and_not_asked_for(model: VAE, x: torch.Tensor) -> None:
    seen = []
    hook = model.body[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    Elbo(beta=0.0, noise=0.5, generator=torch.Generator().manual_seed(2))(model, x, x)
    hook.remove()
    n = torch.randn(7, 6, generator=torch.Generator().manual_seed(2), dtype=KIND)
    assert torch.allclose(seen[0], x + 0.5 * n)


def test_training_lowers_it(model: VAE, x: torch.Tensor) -> None:
    history = fit(model, (x, x), Recipe(epochs=60, batch=7, lr=1e-2), objective=Elbo())
    assert history.loss[-1] < 0.7 * history.loss[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: VAE(latent=0), "latent must be at least 1, got 0"),
        (lambda m: VAE(pixels=0), "pixels must be at least 1, got 0"),
        (lambda m: m(torch.zeros(2, 5)), r"x must be flat images \(B, 6\), got \(2, 5\)"),
        (lambda m: m.encode(torch.zeros(2, 2, 3)), r"x must be flat images \(B, 6\), got \(2, 2, 3\)"),
        (lambda m: Elbo()(m, torch.zeros(2, 6), torch.full((2, 6), 16.0)), r"y must be pixels in \[0, 1\], got 16\.0"),
        (lambda m: Elbo()(m, torch.zeros(2, 6), torch.full((2, 6), torch.nan)), r"y must be pixels in \[0, 1\]"),
        (lambda m: Elbo(beta=-1), "beta and noise must be at least 0, got -1"),
        (lambda m: Elbo(deviation=0), "deviation must be above 0, got 0"),
    ],
)
def test_refusals(model: VAE, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model.to(torch.float32))


def test_a_wrong_shape_is_told_by_the_solve(model: VAE) -> None:
    with pytest.raises((ValueError, sp.SolveError), match=r"x must be flat images \(B, 6\), got \(2, 5\)"):
        sp.solve(sp.Equation(model.operator), torch.zeros(2, 5, dtype=KIND))


def test_a_start_that_is_not_finite_becomes_a_status(model: VAE, x: torch.Tensor) -> None:
    start = x.clone()
    start[2, 0] = torch.nan
    sol = sp.solve(sp.Equation(model.operator), start, stop=sp.Tolerance(1e-6, max_steps=500))
    assert sol.status[2] == int(sp.Status.NONFINITE)
    assert isinstance(model, nn.Module)
