"""Langevin dynamics against the library's own Picard, and against what is known of a Gaussian; the reverse SDE."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import settlepoint as sp
from settlepoint import certify
from settlepoint.chains import Denoised, langevin, noise_ladder, printed_drift, reverse_drift, reversed_sde
from settlepoint.models import GaussianScore, KernelScore

KIND = torch.float64


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(12, 5, generator=generator, dtype=KIND)


def normal(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The score of N(0, 4) under noise."""
    return -x / (4 + sigma**2)


@given(rate=st.floats(0.05, 1.0), steps=st.integers(1, 6))
def test_without_noise_it_is_damped_picard_level_by_level(rate: float, steps: int) -> None:
    draw = torch.Generator().manual_seed(0)
    score = KernelScore(torch.rand(12, 5, generator=draw, dtype=KIND))
    start, levels = torch.rand(3, 5, generator=draw, dtype=KIND), (0.9, 0.4, 0.2)
    x = start
    for sigma in levels:
        x = sp.solve(
            sp.Equation(Denoised(score, sigma)), x, sp.Picard(1 - rate if rate < 1 else 0.0), sp.FixedSteps(steps)
        ).value
    found = langevin(score, start, levels, steps, rate=rate, temperature=0.0)
    assert torch.allclose(found.value, x, atol=1e-12)  # 18 steps in float64
    assert found.evals == 3 * steps


def test_residuals_are_those_of_the_last_score_of_each_level(images: torch.Tensor) -> None:
    score, start = KernelScore(images), images[:3] + 0.3
    found = langevin(score, start, (0.5, 0.2), 1, temperature=0.0)
    assert found.residual.shape == (2, 3)
    assert torch.allclose(found.residual[0], (Denoised(score, 0.5)(start) - start).norm(dim=1))


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_variance_that_a_finite_step_keeps(rate: float, generator: torch.Generator) -> None:
    """s^2 / (1 - rate sigma^2 / 2 s^2), s^2 = 4 + sigma^2, as the docstring has it."""
    start, sigma = torch.randn(20_000, 1, generator=generator, dtype=KIND), 2.0
    found = langevin(normal, start, (sigma,), 60, rate=rate, generator=generator).value
    wanted = 8 / (1 - rate * sigma**2 / 16)
    assert float(found.var()) == pytest.approx(wanted, rel=0.05)  # 20,000 draws: 1 %, five of them


def test_the_mode_of_a_gaussian_is_its_mean(images: torch.Tensor) -> None:
    score = GaussianScore(images)
    eq = sp.Equation(Denoised(score, 0.3))
    sol = sp.solve(eq, images + 1, stop=sp.Tolerance(1e-12, max_steps=500)).require()
    assert torch.allclose(sol.value, images.mean(0).expand_as(images), atol=1e-10)  # rate .7 at most
    largest = float(torch.linalg.eigvalsh(images.T.cov()).max())
    assert float(certify.spectral_radius(eq, images[:1])) == pytest.approx(largest / (largest + 0.09), rel=1e-9)


def test_mean_shift_climbs_the_density_and_settles_at_an_image(images: torch.Tensor) -> None:
    score, sigma = KernelScore(images), 0.02
    density = lambda x: (-torch.cdist(x, images).square() / (2 * sigma**2)).logsumexp(1)  # noqa: E731
    step, x = Denoised(score, sigma), images + 0.1
    for _ in range(5):
        y = step(x)
        assert bool((density(y) >= density(x) - 1e-9).all())
        x = y
    sol = sp.solve(sp.Equation(step), images, stop=sp.Tolerance(1e-10)).require()
    assert float((sol.value - images).norm(dim=1).max()) < 1e-3  # images are many levels apart


def test_the_same_generator_gives_the_same_samples(images: torch.Tensor) -> None:
    draws = [langevin(KernelScore(images), images, (1.0, 0.5), 3, generator=_seeded()).value for _ in range(2)]
    assert torch.equal(*draws)
    assert draws[0].dtype == KIND


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": (0.5, 0.5)}, r"levels must fall, and be at least one, got \[0\.5, 0\.5\]"),
        ({"levels": (0.1, 0.5)}, "levels must fall"),
        ({"levels": ()}, r"levels must fall, and be at least one, got \[\]"),
        ({"levels": (0.5, 0.0)}, r"levels must be finite and above 0, got 0\.0"),
        ({"levels": (math.nan,)}, "levels must be finite and above 0, got nan"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"steps": 1.5}, r"steps must be an integer >= 1, got 1\.5"),
        ({"rate": 2.0}, r"rate must lie in \(0, 2\), got 2\.0"),
        ({"temperature": -1.0}, r"temperature must be a finite number >= 0, got -1\.0"),
        ({"x": torch.tensor([[1.0], [math.nan], [math.inf]])}, "x must be finite, got 2 of 3 rows that are not"),
        ({"x": torch.ones(3)}, r"x must be rows \(B, \.\.\.\), got \(3,\)"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    given = {"x": torch.ones(3, 1), "levels": (0.5, 0.2), "steps": 2, **change}
    rest = {name: given[name] for name in ("rate", "temperature") if name in given}
    with pytest.raises(ValueError, match=message):
        langevin(normal, given["x"], given["levels"], given["steps"], **rest)


def test_a_ladder_falls_by_one_factor() -> None:
    levels = noise_ladder(5.0, 0.05, 10)
    assert len(levels) == 10
    assert (levels[0], levels[-1]) == pytest.approx((5.0, 0.05))
    assert len({round(b / a, 12) for a, b in pairwise(levels)}) == 1
    with pytest.raises(ValueError, match="count must be at least 2, got 1"):
        noise_ladder(1.0, 0.5, 1)
    with pytest.raises(ValueError, match=r"lowest must be above 0 and below highest, got 2\.0 and 1\.0"):
        noise_ladder(1.0, 2.0, 3)
    with pytest.raises(ValueError, match="sigma must be finite and above 0, got -1"):
        Denoised(normal, -1)


def moments(drift, steps: int = 4000) -> tuple[float, float]:
    """Mean and variance of x after a time 10 of the reverse SDE at beta = 1 from N(0, 1), s = -x: exact, no sampling.

    drift(x, -x, 1) = c + k x gives  m' = -(c + k m),  v' = -2 k v + 1, by steps of dt.
    """
    at = lambda value: float(drift(torch.tensor(value), -torch.tensor(value), 1.0))  # noqa: E731
    c, k = at(0.0), at(1.0) - at(0.0)
    mean, variance, dt = 0.0, 1.0, 10 / steps
    for _ in range(steps):
        mean, variance = mean - dt * (c + k * mean), variance + dt * (1 - 2 * k * variance)
    return mean, variance


def test_erratum_the_drift_needs_its_x() -> None:
    """With x a Gaussian of variance 1 is stationary; without, it ends at mean 1/2 and variance 1/2."""
    assert moments(reverse_drift) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert moments(printed_drift) == pytest.approx((0.5, 0.5), abs=1e-3)  # exp(-10) is left


@pytest.mark.parametrize(("drift", "mean", "variance"), [(reverse_drift, 0.0, 1.0), (printed_drift, 0.5, 0.5)])
def test_the_same_by_sampling(drift, mean: float, variance: float, generator: torch.Generator) -> None:
    """Data N(0, 1): x_t is N(0, 1) at all times, s(y, sigma) = -y / (1 + sigma^2)."""
    start = torch.randn(20_000, 1, generator=generator, dtype=KIND)
    score = lambda y, sigma: -y / (1 + sigma**2)  # noqa: E731
    x = reversed_sde(score, start, 400, beta=(20.0, 20.0), drift=drift, generator=generator)
    assert float(x.mean()) == pytest.approx(mean, abs=0.04)
    assert float(x.var()) == pytest.approx(variance, abs=0.05)


def test_the_reverse_sde_gives_back_the_data(generator: torch.Generator) -> None:
    score = KernelScore(torch.tensor([[-2.0], [1.0]], dtype=KIND))
    start = torch.randn(2000, 1, generator=generator, dtype=KIND)
    x = reversed_sde(score, start, 300, generator=generator)
    near = torch.minimum((x + 2).abs(), (x - 1).abs())
    assert float(near.median()) < 0.1  # the last step leaves noise of sqrt(.1 / 300) = .02
    assert float((x < -0.5).double().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("steps", "beta", "message"),
    [
        (0, (1.0, 2.0), "steps must be an integer >= 1, got 0"),
        (2, (0.0, 1.0), "beta must be above 0 at both ends"),
        (2, (0.1, float("nan")), "beta must be above 0"),
        (2, (0.1, 3000.0), "leave a signal, at most 1400"),
    ],
)
def test_refusals_of_the_reverse_sde(steps: int, beta: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reversed_sde(normal, torch.ones(2, 1), steps, beta=beta)
