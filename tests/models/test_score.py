"""Scores in closed form against autograd of the log density; the network's limits; score matching by hand."""

from __future__ import annotations

import pytest
import torch

from settlepoint.models import GaussianScore, KernelScore, ScoreNet
from settlepoint.training import Recipe, ScoreMatching, fit, matched

KIND = torch.float64


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(20, 4, generator=generator, dtype=KIND)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_the_kernel_score_is_the_gradient_of_the_log_density(images: torch.Tensor, sigma: float) -> None:
    """torch.distributions and autograd are the oracle."""
    x = (images[:5] + 0.1).requires_grad_()
    parts = torch.distributions.Independent(torch.distributions.Normal(images, sigma), 1)
    density = parts.log_prob(x[:, None]).logsumexp(1).sum()
    (wanted,) = torch.autograd.grad(density, x)
    assert torch.allclose(KernelScore(images)(x.detach(), torch.tensor(sigma, dtype=KIND)), wanted, rtol=1e-8)


def test_the_gaussian_score_is_that_of_a_normal_distribution(images: torch.Tensor) -> None:
    sigma = 0.3
    x = (images[:5] + 0.1).requires_grad_()
    wide = images.T.cov() + sigma**2 * torch.eye(4, dtype=KIND)
    density = torch.distributions.MultivariateNormal(images.mean(0), wide).log_prob(x).sum()
    (wanted,) = torch.autograd.grad(density, x)
    assert torch.allclose(GaussianScore(images)(x.detach(), torch.tensor(sigma, dtype=KIND)), wanted, rtol=1e-8)


def test_a_network_of_zero_is_the_score_of_a_round_normal_distribution(images: torch.Tensor) -> None:
    net = ScoreNet(images, 8).to(KIND)
    torch.nn.init.zeros_(net.net[-1].weight)
    torch.nn.init.zeros_(net.net[-1].bias)
    sigma = torch.tensor([0.1, 1.0, 10.0], dtype=KIND)
    c = (images - images.mean(0)).square().mean()
    wanted = (images.mean(0) - images[:3]) / (c + sigma[:, None] ** 2)
    assert torch.allclose(net(images[:3], sigma), wanted)


@pytest.mark.parametrize("make", [KernelScore, GaussianScore, lambda x: ScoreNet(x, 8).to(KIND)])
def test_a_level_a_row_is_a_level_for_all(images: torch.Tensor, make) -> None:
    score, x = make(images), images[:3]
    one = score(x, torch.tensor(0.4, dtype=KIND))
    assert torch.allclose(score(x, torch.full((3,), 0.4, dtype=KIND)), one)
    assert torch.allclose(torch.cat([score(row[None], torch.tensor(0.4, dtype=KIND)) for row in x]), one)
    with pytest.raises(ValueError, match=r"sigma must be one number or one for each of 3 rows, got \(2,\)"):
        score(x, torch.ones(2, dtype=KIND))


@torch.no_grad()
def test_the_exact_score_has_the_least_loss_on_its_own_images(images: torch.Tensor) -> None:
    many, sigma = images.repeat(500, 1), torch.tensor(0.3, dtype=KIND)
    loss = lambda score: float(matched(score, many, sigma, torch.Generator().manual_seed(0)).mean())  # noqa: E731
    exact, gaussian = loss(KernelScore(images)), loss(GaussianScore(images))
    assert exact < gaussian < loss(ScoreNet(images, 8).to(KIND))


def test_the_loss_of_no_score_is_half_the_width(images: torch.Tensor) -> None:
    """E ||n||^2 / 2 = D / 2."""
    none = lambda x, sigma: torch.zeros_like(x)  # noqa: E731
    found = matched(none, images.repeat(500, 1), torch.tensor(1.0, dtype=KIND), torch.Generator().manual_seed(0))
    assert float(found.mean()) == pytest.approx(2.0, abs=0.05)  # 10,000 draws


def test_training_beats_the_round_normal_distribution(generator: torch.Generator) -> None:
    images = (torch.rand(256, 2, generator=generator) > 0.5).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ScoreNet(images, 32)
    objective = ScoreMatching(highest=2.0, lowest=0.05, generator=torch.Generator().manual_seed(0))
    history = fit(net, (images, images), Recipe(epochs=200, batch=256, lr=1e-2), objective=objective)
    assert sum(history.loss[-50:]) < 0.9 * sum(history.loss[:50])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KernelScore(torch.ones(1, 4)), r"images must be at least two finite rows \(N, D\), got \(1, 4\)"),
        (lambda: GaussianScore(torch.full((3, 4), torch.nan)), "images must be at least two finite rows"),
        (lambda: ScoreNet(torch.ones(3, 2, 2)), r"images must be .*got \(3, 2, 2\)"),
        (lambda: ScoreNet(torch.ones(3, 4), 0), "hidden must be at least 1, got 0"),
        (lambda: ScoreMatching(highest=1.0, lowest=2.0), "lowest must be above 0 and below highest"),
        (lambda: ScoreMatching(highest=1.0, lowest=0.0), "lowest must be above 0 and below highest"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
