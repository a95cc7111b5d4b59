"""The sampler against diffusers' scheduler with the same noise, and against the moments of a normal distribution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from settlepoint.chains import ancestral, linear_schedule


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_chain_of_diffusers_with_the_same_noise(clip: float | None) -> None:
    from diffusers import DDPMScheduler

    steps = 20
    theirs = DDPMScheduler(steps, clip_sample=clip is not None, variance_type="fixed_small")
    epsilon = lambda x, t: torch.tanh(x) * (1 + t.view(-1, 1, 1, 1) / steps)  # noqa: E731
    x = drawn(3, 1, 4, 4)
    found = ancestral(epsilon, linear_schedule(steps), x, torch.Generator().manual_seed(1), clip=clip)
    draw = torch.Generator().manual_seed(1)
    for t in range(steps - 1, -1, -1):
        x = theirs.step(epsilon(x, torch.full((3,), t)), t, x, generator=draw).prev_sample
    assert torch.allclose(found, x, atol=1e-3)  # theirs takes 1 - abar in float32, three digits at the first step


@pytest.mark.parametrize("steps", [50, 200])
def test_the_deviation_of_a_normal_distribution(steps: int) -> None:
    """Of N(0, s^2) epsilon = sqrt(1 - abar) x / (abar s^2 + 1 - abar), and the chain of variances follows by hand."""
    size, course = 0.5, linear_schedule(200, "rescaled")
    abar = course.alphas_cumprod

    def epsilon(x: Tensor, t: Tensor) -> Tensor:
        a = abar.to(x)[t].view(-1, 1)
        return (1 - a).sqrt() * x / (a * size**2 + 1 - a)

    found = ancestral(epsilon, course, drawn(20_000, 1), torch.Generator().manual_seed(2), steps=steps)
    variance, places = 1.0, course.respaced(steps)[0].tolist()
    for place, next_place in zip(places[::-1], [*places[-2::-1], None], strict=True):
        a, b = abar[place].item(), 1.0 if next_place is None else abar[next_place].item()
        beta = 1 - a / b
        factor = (1 - beta / (a * size**2 + 1 - a)) / (1 - beta) ** 0.5  # Eq. 11 of Ho, Jain and Abbeel
        variance = factor**2 * variance + beta * (1 - b) / (1 - a)
    assert found.std().item() == pytest.approx(variance**0.5, rel=0.02)  # 20,000 samples: .5 %


def test_signal_that_is_left_is_missing_from_the_samples() -> None:
    """With fixed betas of few steps, a constant comes back as what is not left of it, since N(0, I) lacks the rest."""
    course = linear_schedule(100)
    a = course.alphas_cumprod.float()
    epsilon = lambda x, t: (1 - a[t].view(-1, 1)).sqrt() * (x - a[t].view(-1, 1).sqrt() * 3.0)  # noqa: E731
    found = ancestral(epsilon, course, drawn(4000, 1), torch.Generator().manual_seed(3))
    assert found.mean().item() == pytest.approx(3.0 * (1 - course.left), rel=0.03)  # of N(3, 1): exact by hand


def test_progress_counts_to_the_end() -> None:
    seen = []
    ancestral(
        lambda x, t: x, linear_schedule(9), drawn(1, 1), steps=3, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_model_sees_the_places_in_its_own_schedule() -> None:
    seen = []
    ancestral(lambda x, t: seen.append(t.tolist()) or x, linear_schedule(100), drawn(2, 1), steps=3)
    assert seen == [[99, 99], [50, 50], [0, 0]]


def test_more_steps_than_the_schedule_has() -> None:
    with pytest.raises(ValueError, match=r"steps must lie in \[2, 10\], got 20"):
        ancestral(lambda x, t: x, linear_schedule(10), drawn(1, 1), steps=20)
