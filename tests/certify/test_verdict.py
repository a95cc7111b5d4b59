"""Verdicts on systems whose course is known, and the rate from the iterates."""

from __future__ import annotations

import math

import pytest
import torch
from tests.cells import DOUBLE, affine, factors, rotation

from settlepoint import Anderson, Equation, certify
from settlepoint.certify.verdict import slope


def spun(scale: float) -> Equation:
    """A rotation by 90 degrees about (1, 1), scaled: the residual changes by `scale` a step, and has no sign."""
    turn = rotation(scale)
    return Equation(lambda x: 1 + turn(x - 1))


@pytest.mark.parametrize(
    ("scale", "kind"), [(0.5, "settling"), (0.9, "settling"), (1.0, "marginal"), (1.05, "drifting"), (2.0, "drifting")]
)
def test_rotations_are_judged_by_their_scale(scale, kind):
    found = certify.verdict(spun(scale), torch.zeros(3, 2, dtype=DOUBLE), 10)
    assert found.overall == kind
    assert found.kind == (kind,) * 3
    assert found.rate.tolist() == pytest.approx([scale] * 3, rel=1e-6)


def test_rows_are_judged_one_by_one():
    eq, _ = factors([0.5, 1.0, 1.2])
    found = certify.verdict(eq, torch.zeros(3, 3, dtype=DOUBLE), 8)
    assert found.kind == ("settling", "marginal", "drifting")
    assert found.counts() == {"settling": 1, "marginal": 1, "drifting": 1}
    assert found.overall == "drifting"


def test_few_bad_rows_leave_the_model_settling():
    """One row of 30 is less than 5 %."""
    eq, _ = factors([0.5] * 29 + [1.0])
    assert certify.verdict(eq, torch.zeros(30, 3, dtype=DOUBLE), 8).overall == "settling"


def test_a_row_that_has_arrived_settles_though_rounding_wanders():
    found = certify.verdict(spun(0.1), torch.zeros(2, 2, dtype=torch.float32), 20)
    assert found.overall == "settling"
    assert found.rate.tolist() == pytest.approx([0.1, 0.1], rel=0.2)


def test_what_leaves_the_numbers_drifts():
    found = certify.verdict(Equation(lambda x: x * x + 1), torch.full((1, 2), 3.0), 10)
    assert found.overall == "drifting"
    assert math.isinf(found.rate[0])


def test_a_transient_that_only_looks_settled_is_caught():
    """Falls by .5 a step in one direction and grows by 1.1 in another, small at first: fine at depth 10, lost at 40."""
    W = torch.diag(torch.tensor([0.5, 1.1], dtype=DOUBLE))
    start = torch.tensor([[1.0, 1e-4]], dtype=DOUBLE)
    found = certify.verdict(Equation(lambda x: x @ W), start, 10)
    assert found.residual[10] < found.residual[0] / 100
    assert found.overall == "drifting"


def test_a_falling_score_is_drifting_though_residuals_fall():
    eq, _ = factors([0.5, 0.6])
    found = certify.verdict(eq, torch.zeros(2, 3, dtype=DOUBLE), 4, score=lambda steps: 100.0 - steps)
    assert found.overall == "drifting"
    assert found.scores == (96.0, 94.0, 92.0, 88.0, 84.0)
    assert found.pays_until == 1.0


def test_where_iterations_stop_paying():
    eq, _ = factors([0.5])
    found = certify.verdict(eq, torch.zeros(1, 3, dtype=DOUBLE), 4, score=lambda steps: min(steps, 8) * 10.0)
    assert found.pays_until == 2.0


def test_the_course_is_that_of_the_solver():
    problem = affine(torch.Generator().manual_seed(0))
    found = certify.verdict(problem.equation, torch.zeros_like(problem.f), 5, Anderson(5))
    assert len(found.residual) == 21
    plain = certify.verdict(problem.equation, torch.zeros_like(problem.f), 5)
    assert (found.residual[-1] < 0.1 * plain.residual[-1]).all()


@pytest.mark.parametrize(
    ("depth", "multiples", "message"),
    [
        (0, (1, 2), "depth"),
        (True, (1, 2), "depth"),
        (4, (2, 3), "multiples"),
        (4, (1,), "multiples"),
        (4, (1, 1), "mul"),
    ],
)
def test_wrong_depths_are_named(depth, multiples, message):
    eq, _ = factors([0.5])
    with pytest.raises(ValueError, match=message):
        certify.verdict(eq, torch.zeros(1, 3, dtype=DOUBLE), depth, multiples=multiples)


def test_a_slope_does_not_follow_one_wild_point():
    residual = 0.8 ** torch.arange(30.0)[:, None]
    residual[7] = 1e6
    assert math.exp(slope(residual)) == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("scale", [0.3, 0.9, 1.1])
def test_koopman_sees_a_rotation(scale):
    """The eigenvalues are +-i scale, which no Rayleigh quotient sees."""
    found = certify.koopman_rate(spun(scale), torch.zeros(4, 2, dtype=DOUBLE))
    assert found.tolist() == pytest.approx([scale] * 4, rel=1e-6)


def test_koopman_near_a_fixed_point_is_the_spectral_radius(generator):
    W = torch.randn(6, 6, dtype=DOUBLE, generator=generator) / 4
    u = torch.randn(5, 6, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x, u: torch.tanh(x @ W + u), context=(u,))
    x = torch.zeros_like(u)
    for _ in range(12):
        x = eq.image(x)
    rates, radius = certify.koopman_rate(eq, x, steps=12), certify.spectral_radius(eq, x, steps=6)
    assert rates.tolist() == pytest.approx(radius.tolist(), rel=0.05)


def test_koopman_has_nothing_to_say_of_what_stands_still():
    eq, answer = factors([0.5, 0.25])
    assert torch.isnan(certify.koopman_rate(eq, answer.clone())).all()


def test_koopman_needs_three_steps():
    with pytest.raises(ValueError, match="steps must be an integer >= 3, got 2"):
        certify.koopman_rate(spun(0.5), torch.zeros(1, 2), steps=2)
