"""The learned rows of the target table: the peer trains on the same losses, the step by hand is the same step."""

from __future__ import annotations

import pytest
import torch

from settlepoint.experiments import learned_bench
from settlepoint.experiments.learned_bench import LEARNED, LESSONS, hand_written, samples, step_memory, training_ratio
from settlepoint.experiments.plain_losses import Trained, adam
from settlepoint.experiments.targets import ROWS
from settlepoint.learn import LevenbergMarquardt, Residuals, Trajectories, fit
from settlepoint.problems import SmallSystems
from settlepoint.solvers import R2N2


@pytest.mark.parametrize("name", LESSONS)
def test_the_plain_loss_is_the_objective(name: str, generator: torch.Generator) -> None:
    lesson = LESSONS[name]
    theta = 0.3 * torch.randn(len(R2N2(lesson.stages).theta), generator=generator, dtype=torch.float64)
    objective = Trajectories(lesson.stages) if name == "van der Pol" else Residuals(lambda k: 4.0**k)
    batch = samples(name).rows(slice(20))
    still = LevenbergMarquardt(1, iterations=0)
    found = fit(R2N2(lesson.stages, theta=theta), lesson.family, lesson.iterations, objective, still, samples=batch)
    assert float(lesson.loss(batch.split()[0])(theta)) == pytest.approx(found.loss, rel=1e-10)


def test_adam_descends_a_parabola() -> None:
    found = adam(lambda t: (t - 1).square().sum(), torch.zeros(2, dtype=torch.float64), 500, rate=0.05)
    assert found.loss < 1e-6


def test_the_step_by_hand_is_the_step(generator: torch.Generator) -> None:
    batch = SmallSystems().sample(5, generator)
    eq = SmallSystems().equation(batch).at(batch.x0)
    solver, x = R2N2(3, theta=(0.9, 0.5, 0.4, 0.6, 0.5, 0.4)), batch.x0
    with torch.no_grad():
        r = eq.flat(x) - x
        ours = solver.step(eq, x, r, solver.init(eq, x, r))[0]
        assert torch.allclose(hand_written(eq.operator, eq.context, solver.theta)(x), ours, atol=1e-14)  # type: ignore[arg-type]


def test_a_step_keeps_few_vectors() -> None:
    ours, by_hand = step_memory(1)
    assert 6 <= ours <= 7  # x, x_next or the stage, four v, and what the operator makes
    assert 6 <= by_hand <= 7


def test_a_ratio_counts_only_at_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned_bench, "ours", lambda name, few: Trained(1.0, 0.5))
    monkeypatch.setattr(learned_bench, "peer", lambda name: Trained(50.0, 0.6))
    assert training_ratio("linear")(1) == (50.0, 1.0)
    monkeypatch.setattr(learned_bench, "peer", lambda name: Trained(50.0, 0.4))
    assert training_ratio("linear")(1) == (0.0, 1.0)


def test_the_rows_are_in_the_table() -> None:
    assert set(LEARNED) <= set(ROWS)
    assert all(ROWS[name].better in ("low", "high") for name in LEARNED)
