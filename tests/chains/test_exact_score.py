"""The exact score: against autograd of the log density, Gaussians by hand, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from settlepoint.chains import ExactScore

LEVELS = torch.linspace(0.999, 0.01, 20, dtype=torch.float64)


def score(bandwidth: float = 0.0, images: int = 7) -> tuple[ExactScore, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    images_ = torch.rand(images, 1, 2, 3, generator=draw, dtype=torch.float64)
    x = torch.randn(5, 1, 2, 3, generator=draw, dtype=torch.float64)
    return ExactScore(images_, LEVELS, bandwidth), x, torch.tensor([0, 4, 9, 15, 19])


def log_density(model: ExactScore, x: Tensor, t: Tensor) -> Tensor:
    a = model.alphas_cumprod[t][:, None]
    v = 1 - a + a * model.bandwidth**2
    gap = x.flatten(1)[:, None] - a[..., None].sqrt() * model.images.flatten(1)
    return torch.logsumexp(-gap.square().sum(2) / (2 * v), 1)


@given(bandwidth=st.floats(0, 2), images=st.integers(1, 9))
def test_it_is_the_gradient_of_the_log_density(bandwidth: float, images: int) -> None:
    model, x, t = score(bandwidth, images)
    (gradient,) = torch.autograd.grad(log_density(model, x.requires_grad_(), t).sum(), x)
    noise = (1 - LEVELS[t]).sqrt().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(model.epsilon(x.detach(), t), -noise * gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bandwidth", [0.0, 0.3])
def test_noise_and_clean_image_add_up_to_the_sample(bandwidth: float) -> None:
    """x = sqrt(a) E[x_0] + sqrt(1 - a) E[epsilon], whatever the density."""
    model, x, t = score(bandwidth)
    a = LEVELS[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(a.sqrt() * model.denoised(x, t) + (1 - a).sqrt() * model.epsilon(x, t), x)


def test_of_one_image_it_is_linear() -> None:
    model, x, t = score(images=1)
    a = LEVELS[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(model.epsilon(x, t), (x - a.sqrt() * model.images) / (1 - a).sqrt())


def test_without_noise_it_finds_the_nearest_image() -> None:
    model, _, _ = score()
    t = torch.zeros(7, dtype=torch.int64)
    near = model.images * math.sqrt(LEVELS[0])
    torch.testing.assert_close(model.denoised(near, t), model.images, atol=1e-6, rtol=0)  # v = 1e-3: others weigh 1e-7


def test_rows_do_not_talk_and_the_call_is_that_of_diffusers() -> None:
    model, x, t = score()
    torch.testing.assert_close(model.epsilon(x, t)[2:3], model.epsilon(x[2:3], t[2:3]))
    whole = model.epsilon(x, torch.full((5,), 3))
    assert torch.equal(model(x, 3).sample, whole)
    assert torch.equal(model(x, torch.tensor(3), return_dict=False)[0], whole)


def test_it_follows_to_another_dtype() -> None:
    model, x, t = score(0.2)
    single = ExactScore(model.images, LEVELS, 0.2).float()
    torch.testing.assert_close(single.epsilon(x.float(), t), model.epsilon(x, t).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(0, 1, 2, 2), LEVELS), r"images must be \(N, C, H, W\).*got \(0, 1, 2, 2\)"),
        ((torch.zeros(3, 4), LEVELS), r"images must be \(N, C, H, W\).*got \(3, 4\)"),
        ((torch.full((1, 1, 2, 2), math.nan), LEVELS), "images must be finite"),
        ((torch.zeros(1, 1, 2, 2), torch.tensor([1.0])), r"alphas_cumprod must be a vector in \(0, 1\)"),
        ((torch.zeros(1, 1, 2, 2), torch.tensor([[0.5]])), "alphas_cumprod must be a vector"),
        ((torch.zeros(1, 1, 2, 2), LEVELS, -1.0), r"bandwidth must be a finite number >= 0, got -1\.0"),
    ],
)
def test_what_it_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExactScore(*arguments)


def test_it_refuses_states_and_times_that_do_not_fit() -> None:
    model, x, t = score()
    with pytest.raises(ValueError, match=r"x must be \(M, \(1, 2, 3\)\) and t \(M,\), got \(5, 1, 2, 3\) and \(4,\)"):
        model.epsilon(x, t[:4])
    with pytest.raises(ValueError, match="t must hold integer timesteps"):
        model.epsilon(x, t.double())
    for wrong in (-1, len(model.alphas_cumprod)):
        with pytest.raises(ValueError, match=rf"t must lie in \[0, \d+\), got .*{wrong}"):
            model.epsilon(x, torch.full_like(t, wrong))
