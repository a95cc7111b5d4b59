"""Schedules against the table of the paper's signal left, and against diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch

from settlepoint.chains import Schedule, linear_schedule

LEFT = {100: 0.364, 200: 0.132, 300: 0.048, 400: 0.0175, 500: 0.0064, 700: 8e-4, 1000: 4e-5}
"""abar_T with betas that are not rescaled."""


@pytest.mark.parametrize(("steps", "left"), LEFT.items())
def test_the_signal_that_fixed_betas_leave(steps: int, left: float) -> None:
    unit = 10.0 ** -{0.364: 3, 0.132: 3, 0.048: 3, 0.0175: 4, 0.0064: 4, 8e-4: 4, 4e-5: 5}[left]
    assert abs(linear_schedule(steps).left - left) <= unit / 2  # as many digits as the table prints


@pytest.mark.parametrize("steps", LEFT)
def test_rescaled_betas_leave_hardly_any(steps: int) -> None:
    assert linear_schedule(steps, "rescaled").left < 5e-5


def test_both_kinds_are_one_at_a_thousand_steps() -> None:
    assert torch.equal(linear_schedule(1000).betas, linear_schedule(1000, "rescaled").betas)


def test_betas_are_those_of_diffusers() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(100, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    ours = linear_schedule(100)
    assert torch.allclose(ours.betas.float(), theirs.betas, rtol=1e-6)
    assert torch.allclose(ours.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=1e-5)
    x, noise = torch.randn(2, 5, 1, 2, 2, generator=torch.Generator().manual_seed(0)).unbind(0)
    t = torch.tensor([0, 1, 50, 98, 99])
    assert torch.allclose(ours.noised(x, t, noise), theirs.add_noise(x, noise, t), atol=1e-6)


def test_a_rescaled_beta_never_reaches_one() -> None:
    betas = linear_schedule(10, "rescaled").betas
    assert betas.max() == 0.999
    assert betas[0] == pytest.approx(1e-2)


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_fewer_steps_pass_through_the_same_noise(steps: int) -> None:
    whole = linear_schedule(50, "rescaled")
    times, course = whole.respaced(steps)
    assert times[0] == 0
    assert times[-1] == 49
    assert torch.allclose(course.alphas_cumprod, whole.alphas_cumprod[times], rtol=1e-12)
    assert course.left == pytest.approx(whole.left, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: linear_schedule(100, "cosine"), "kind must be one of fixed, rescaled, got 'cosine'"),
        (lambda: linear_schedule(1), "steps must be at least 2, got 1"),
        (lambda: linear_schedule(10, last=1.0), r"betas must lie in \(0, 1\), got 0.0001 to 1"),
        (lambda: linear_schedule(10, first=0.0), r"betas must lie in \(0, 1\), got 0 to 0.02"),
        (lambda: linear_schedule(10, last=float("nan")), r"betas must lie in \(0, 1\), got nan"),
        (lambda: Schedule(torch.tensor([0.1])), r"betas must be \(T,\) with T at least 2, got \(1,\)"),
        (lambda: linear_schedule(10).respaced(11), r"steps must lie in \[2, 10\], got 11"),
        (lambda: linear_schedule(10).respaced(1), r"steps must lie in \[2, 10\], got 1"),
    ],
)
def test_what_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
