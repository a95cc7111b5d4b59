"""The diffusion study, small: losses by hand, floors and ceilings, every kind of cell, fits that go on, checks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from settlepoint.chains import linear_schedule
from settlepoint.experiments import REGISTRY
from settlepoint.experiments.ddpm import EXPERIMENT as DDPM
from settlepoint.experiments.ddpm_schedule import EXPERIMENT as SCHEDULE
from settlepoint.experiments.diffusion_task import cell_names, loss_curve, losses, parsed, sampled, scheduled, task
from settlepoint.experiments.experiment import Context, Experiment, Results
from settlepoint.experiments.fixed_point_diffusion import EXPERIMENT as FIXED_POINT
from settlepoint.runs import Record

CONTEXT = Context(scale=None)


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_guessing_zero_costs_one_at_every_step() -> None:
    data = task(CONTEXT)
    found = losses(lambda x, t: torch.zeros_like(x), linear_schedule(8), data.drawn(), drawn(), each=200)
    assert found.shape == (8,)
    assert torch.allclose(found, torch.ones(8), atol=0.06)  # 12,800 squares of normal numbers a step: 1.3 %


def test_the_exact_score_of_one_image_finds_all_noise() -> None:
    """Of images that are all one, x_t tells the noise; with a kernel of width s the loss is abar s^2 / v at each t."""
    data = task(CONTEXT)
    one = replace(data, train=data.train[:1])
    course = linear_schedule(6, "rescaled")
    found = losses(one.exact(course, 0.0).epsilon, course, one.drawn(), drawn(), each=20)
    assert float(found.max()) < 1e-5
    wide = losses(one.exact(course, 0.5).epsilon, course, one.drawn(0.5), drawn(), each=400)
    signal = course.alphas_cumprod * 0.25
    wanted = signal / (signal + 1 - course.alphas_cumprod)
    assert torch.allclose(wide.double(), wanted, rtol=0.05, atol=1e-4)


def test_floor_and_ceiling_and_the_density_between() -> None:
    data = task(CONTEXT)
    draws = data.drawn(0.1)(256, drawn())
    assert data.fd(data.test) == pytest.approx(0.0, abs=1e-6)
    assert data.floor(256) < 1 < 5 < data.ceiling(256, drawn())
    assert data.fd(draws) < 1


def test_the_exact_sampler_reaches_the_floor() -> None:
    data, course = task(CONTEXT), linear_schedule(20, "rescaled")
    said: list[str] = []
    x = data.noise(256, drawn())
    found = sampled(data.exact(course, 0.1).epsilon, course, x, drawn(), batch=128, say=said.append)
    assert found.shape == x.shape
    assert data.fd(found) < 1.0
    assert said == ["sampling, step 20 of 20"] * 2


def test_names_of_cells_and_their_schedules() -> None:
    names = cell_names(("fixed", "rescaled exact"), (5, 10))
    assert names == ["fixed, T = 5", "fixed, T = 10", "rescaled exact, T = 5", "rescaled exact, T = 10"]
    assert [parsed(name) for name in names][2] == ("rescaled exact", 5)
    assert torch.equal(scheduled("rescaled exact", 50).betas, linear_schedule(50, "rescaled").betas)


@pytest.mark.parametrize("length", [3, 40, 100])
def test_stretches_of_a_loss_curve(length: int) -> None:
    x, y = loss_curve([2.0 * k for k in range(length)], 40)
    assert len(x) == min(length, 40)
    assert x == sorted(x)
    assert y == pytest.approx([2 * (length - 1) * at for at in x])


def test_images_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="images must be one of digits, cifar10, got 'faces'"):
        task(CONTEXT, "faces")


@pytest.mark.parametrize("experiment", [SCHEDULE, DDPM, FIXED_POINT], ids=lambda e: e.id)
def test_every_kind_of_cell_at_smoke_scale(experiment: Experiment) -> None:
    scale = experiment.scales["smoke"]
    context, kinds = Context(scale=scale), {}
    for cell in experiment.cells(scale):
        kinds[cell.partition(", T")[0]] = cell  # the largest T of each arm
    records = [Record(cell, 0, **experiment.run(cell, 0, context)) for cell in kinds.values()]
    assert all(math.isfinite(value) for record in records for value in record.metrics.values())
    assert all(record.metrics["evals"] >= 0 for record in records)
    known = {name for figure in experiment.figures for name in figure.curves}
    measured = {name for record in records for name in record.curves}
    assert measured <= known
    assert {figure.kind for figure in experiment.figures} >= {"lines", "images"}
    assert REGISTRY.load(experiment.id) is experiment


def test_a_cell_does_not_depend_on_what_ran_before() -> None:
    context = Context(scale=DDPM.scales["smoke"])
    first = DDPM.run("fixed, T = 4", 0, context)["metrics"]
    torch.randn(5)
    again = DDPM.run("fixed, T = 4", 0, context)["metrics"]
    assert {k: v for k, v in first.items() if "seconds" not in k} == {
        k: v for k, v in again.items() if "seconds" not in k
    }


def test_a_fit_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from settlepoint.experiments import ddpm

    scale = replace(DDPM.scales["smoke"], checkpoints=str(tmp_path))
    context, cell = Context(scale=scale), "rescaled, T = 4"
    whole = DDPM.run(cell, 0, Context(scale=DDPM.scales["smoke"]))["metrics"]
    calls: list[int] = []

    def killed(*given: object) -> float:
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(ddpm, "_samples", killed)
    with pytest.raises(KeyboardInterrupt):
        DDPM.run(cell, 0, context)  # ends behind the first look, which has written a checkpoint
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["ddpm rescaled, T = 4 seed 0.safetensors"]
    found = DDPM.run(cell, 0, context)["metrics"]
    assert {k: v for k, v in found.items() if "seconds" not in k} == {
        k: v for k, v in whole.items() if "seconds" not in k
    }
    other = Context(scale=replace(scale, lr=1.0))
    with pytest.raises(ValueError, match=r"belongs to another run: lr: 0\.004 there, 1\.0 here"):
        DDPM.run(cell, 0, other)


def test_checks_of_schedules_tell_a_fall_from_none() -> None:
    scale = SCHEDULE.scales["cpu"]

    def results(loss: dict[str, list[float]], fd: dict[str, list[float]]) -> Results:
        rows = [
            Record(f"{arm}, T = {t}", 0, {"loss": loss[arm][k], "fd": fd[arm][k]})
            for arm in loss
            for k, t in enumerate(scale.steps)
        ]
        return Results("cpu", scale, rows)

    falling, flat = [0.27, 0.21, 0.17, 0.13, 0.1, 0.06], [0.06] * 6
    good = results({"fixed": falling, "rescaled": flat}, {"fixed": [1.1, 0.9, 0.6, 0.4, 0.3, 0.25], "rescaled": flat})
    assert all(check.passed for check in SCHEDULE.checks(good))
    bad = results({"fixed": flat, "rescaled": falling}, {"fixed": [0.9, 0.8, 0.7, 0.6, 0.5, 0.1], "rescaled": falling})
    failed = [check.name for check in SCHEDULE.checks(bad) if not check.passed]
    assert len(failed) == 5
    missing = Results("cpu", scale, [])
    assert not any(check.passed for check in SCHEDULE.checks(missing))
