"""vae and smld at a tiny scale: every cell fills its tables, each claim can fail, and the parts by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.chains import langevin, noise_ladder
from settlepoint.experiments import REGISTRY, autoencoders, digit_scores
from settlepoint.experiments.autoencoders import DEPTHS, Arm, control, course, diagnosed, fitted, recalled
from settlepoint.experiments.digit_images import Projection, digit_images, distinct, starts
from settlepoint.experiments.experiment import Context, Experiment, Results
from settlepoint.experiments.smld import EXPERIMENT as SMLD
from settlepoint.experiments.smld import WAYS, Way, spent
from settlepoint.experiments.vae import ARMS, CONTROLS
from settlepoint.experiments.vae import EXPERIMENT as VAE_EXPERIMENT
from settlepoint.runs import Record

VAE = replace(VAE_EXPERIMENT.scales["smoke"], test=8, hidden=8, epochs=1, max_steps=20, depth=2, certified=1)
TINY = replace(
    SMLD.scales["smoke"], samples=12, levels=2, steps=2, hidden=8, epochs=1, settled=3, measured=1, max_steps=10
)


@pytest.mark.parametrize("cell", ["latent 2", "latent 8, contracting", "memory", "PCA 8", "mean image"])
def test_cells_of_vae(cell: str) -> None:
    found = VAE_EXPERIMENT.run(cell, 0, Context(VAE))
    shown = {column.key for table in VAE_EXPERIMENT.tables for column in table.columns}
    left = shown - set(found["metrics"]) - {"kept", "recalled"}
    assert left == set()
    assert set(found["curves"]) == {"noisy", "dropped"}
    assert found["metrics"]["false claims"] == 0


@pytest.mark.parametrize("cell", ["trained", "exact, rate x 5", "gaussian", "reverse SDE, as printed", "noise"])
def test_cells_of_smld(cell: str) -> None:
    metrics = SMLD.run(cell, 0, Context(TINY))["metrics"]
    assert {"fd", "nearest", "copies", "evals"} <= set(metrics)
    if cell in WAYS:
        shown = {column.key for table in SMLD.tables for column in table.columns}
        assert shown <= set(metrics)


@pytest.mark.parametrize("name", ["vae", "smld"])
def test_they_are_known_to_the_program(name: str) -> None:
    experiment = REGISTRY.load(name)
    assert experiment.id == name
    assert set(experiment.scales) == {"smoke", "cpu", "paper"}


@pytest.mark.parametrize(("experiment", "scale"), [(VAE_EXPERIMENT, VAE), (SMLD, TINY)], ids=["vae", "smld"])
def test_checks_of_nothing_fail(experiment: Experiment, scale: object) -> None:
    strict = replace(scale, thresholds=True)  # type: ignore[type-var]
    loose = experiment.checks(Results("smoke", scale, []))
    assert not any(check.passed for check in loose)
    names = [c.name for c in experiment.checks(Results("cpu", strict, [])) if c.passed]
    assert all(name == "false claims of convergence" for name in names)  # the sum over nothing


def test_a_false_claim_fails() -> None:
    record = Record("exact", 0, {"false claims": 1.0})
    checks = SMLD.checks(Results("cpu", SMLD.scales["cpu"], [record]))
    assert not next(c for c in checks if c.name.startswith("false")).passed


def test_the_projection_is_settled_after_one_step() -> None:
    data = digit_images(8)
    T = Projection(data.train, 5)
    once = T(data.test)
    assert torch.allclose(T(once), once, atol=1e-12)
    u, s, v = torch.linalg.svd(data.train - data.train.mean(0), full_matrices=False)
    best = data.train.mean(0) + (u[:, :5] * s[:5]) @ v[:5]  # Eckart and Young
    assert torch.allclose(T(data.train), best, atol=1e-9)
    assert torch.equal(Projection(data.train, 0)(data.test), data.train.mean(0).expand(8, -1))


def test_controls_say_what_is_known_of_them() -> None:
    metrics, courses = diagnosed(control(CONTROLS["PCA 2"], Context(VAE)), Context(VAE))
    assert metrics["evals max"] == 2
    assert metrics["spectral radius"] == pytest.approx(1.0)
    assert metrics["stable, Anderson"] == 0
    assert metrics["moved"] == pytest.approx(metrics["reconstruction"])
    assert max(courses["noisy"][1:]) == pytest.approx(min(courses["noisy"][1:]))
    constant, _ = diagnosed(control(0, Context(VAE)), Context(VAE))
    assert constant["reconstruction"] == pytest.approx(constant["mean image"])
    assert (constant["distinct, digits"], constant["distinct, noise"]) == (1, 1)


def test_a_course_counts_iterations() -> None:
    """T halves: after k iterations the error to 0 has fallen by 4^k."""
    found = course(torch.nn.Sequential(_Half()), torch.ones(2, 3), torch.zeros(2, 3))
    assert found == pytest.approx([4.0**-k for k in DEPTHS])


class _Half(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def test_groups_of_points() -> None:
    line = torch.tensor([[0.0], [0.9], [1.8], [5.0], [5.0]])
    assert [distinct(line, apart) for apart in (0.5, 1.0, 10.0)] == [4, 2, 1]
    assert distinct(line[:0], 1.0) == 0


def test_starts_are_the_digits_made_worse() -> None:
    data = digit_images(50)
    found = starts(data, 0.3, 0.5)
    assert float((found["noisy"] - data.test).std()) == pytest.approx(0.3, rel=0.05)
    kept = found["dropped"] == data.test
    assert bool((found["dropped"][~kept] == 0).all())
    assert float(kept[data.test > 0].double().mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(starts(data, 0.3, 0.5)["noise"], found["noise"])
    with pytest.raises(ValueError, match=r"test must lie in \[2, 397\], the test images that there are, got 400"):
        digit_images(400)


def test_nearest_images_of_training_images() -> None:
    data = digit_images(8)
    assert data.agreement(data.train[:20], data.train_y[:20]) == 100.0
    assert float(torch.cdist(data.train[:20], data.train).amin(1).max()) < 1e-6


def test_a_contracting_arm_keeps_its_bound() -> None:
    from settlepoint import certify

    model, _ = fitted(replace(ARMS["latent 8, contracting"], contracting=0.5), 0, Context(VAE))
    assert certify.lipschitz_upper(model) <= 0.5 * (1 + 1e-4)


def test_arms_of_one_width_start_from_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoders, "fit", lambda model, *rest, **more: autoencoders.History([0.0], 0.0))
    first, second = (fitted(arm, 3, Context(VAE))[0] for arm in (Arm(8), Arm(8, beta=4.0, decay=1.0)))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_what_remembers_everything_is_recalled() -> None:
    same = torch.nn.Identity()
    found = recalled(same, Context(replace(VAE, noise=0.01)))
    assert (found["kept"], found["recalled"], found["memory error"]) == (100.0, 100.0, 0.0)


def test_the_same_evaluations_are_spent_otherwise() -> None:
    scale = SMLD.scales["cpu"]
    for way in WAYS.values():
        found = spent(way, scale)
        assert found.levels * found.steps == scale.levels * scale.steps
    assert spent(Way("exact", rate=5.0), scale).rate == 0.5


def test_levels_one_by_one_are_the_annealing() -> None:
    context = Context(TINY)
    score, _ = digit_scores.score_of("gaussian", 0, context)
    x, metrics, courses = digit_scores.sampled(score, 0, context)
    start, draw = digit_scores.beginning(0, context)
    levels = noise_ladder(TINY.highest, TINY.lowest, TINY.levels)
    whole = langevin(score, start, levels, TINY.steps, rate=TINY.rate, generator=draw)
    assert torch.equal(x, whole.value)
    assert metrics["evals"] == whole.evals
    assert courses["residual"][-1] == pytest.approx(float(whole.residual[-1].median()) / TINY.lowest)


def test_samples_that_are_lost_are_judged_so() -> None:
    lost = digit_scores.judged(torch.full((4, 64), math.nan, dtype=torch.float64), Context(TINY))
    assert lost == {"fd": math.inf, "nearest": math.inf, "copies": 0.0}


def test_one_network_a_seed_whatever_samples_from_it() -> None:
    first = digit_scores.score_of("trained", 0, Context(TINY))[0]
    assert digit_scores.score_of("trained", 0, Context(spent(Way("trained", rate=5.0), TINY)))[0] is first
    assert digit_scores.score_of("trained", 1, Context(TINY))[0] is not first
