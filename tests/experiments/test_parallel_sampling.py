"""parallel-sampling, small: the task, a cell of every kind, and checks that can fail."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.parallel_sampling import EXPERIMENT, FORMS, NETWORK_FORMS
from settlepoint.experiments.sampling_chains import SamplingScale, pictures, relative_error, task, trained
from settlepoint.runs import Record

SCALE = SamplingScale(samples=2, images=40, chains=("DDIM 10", "DDPM 10"), updates=2)
CONTEXT = Context(scale=SCALE)


def test_pictures_are_digits_between_minus_one_and_one() -> None:
    x = pictures(SCALE)
    assert x.shape == (40, 1, 8, 8)
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)


@pytest.mark.parametrize("kind", ["DDIM 10", "DDPM 10"])
def test_the_chain_is_the_loop_of_diffusers(kind: str) -> None:
    job = task(kind, 0, CONTEXT)
    course = job.chain.sequential(job.start)
    assert float(relative_error(course[:, -1], job.wanted).max()) < 1e-6  # tables in the scheduler's float32
    again = task(kind, 0, CONTEXT)
    assert torch.equal(job.start, again.start)
    assert torch.equal(job.wanted, again.wanted)
    assert not torch.equal(job.start, task(kind, 1, CONTEXT).start)


def test_the_network_is_trained_once_a_seed_and_the_same_again() -> None:
    first, second = trained(SCALE, 0, CONTEXT), trained(SCALE, 0, CONTEXT)
    assert first is second
    assert not first.training
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    other = trained(replace(SCALE, updates=3), 0, CONTEXT)
    assert not torch.equal(first(x, 5).sample, other(x, 5).sample)


@pytest.mark.parametrize("form", ["sum", "jacobi", "implicit, Anderson(2)", "sum, window 10"])
def test_a_cell_measures_what_it_says(form: str) -> None:
    found = EXPERIMENT.run(f"DDIM 10, {form}", 0, CONTEXT)["metrics"]
    assert found["error"] <= 1e-4
    assert found["calls"] >= found["sample calls"] >= 1
    assert found["fewer, batch"] == 10 / found["calls"]
    assert found["evals"] >= 10
    assert found["error at 1e-4"] >= 0


def test_the_cells_are_every_form_of_every_chain_and_the_network() -> None:
    cells = EXPERIMENT.cells(EXPERIMENT.scales["cpu"])
    assert len(cells) == len(set(cells)) == 4 * len(FORMS) + 2 * len(NETWORK_FORMS)
    assert not [c for c in EXPERIMENT.cells(EXPERIMENT.scales["smoke"]) if "UNet" in c]
    assert REGISTRY.load("parallel-sampling") is EXPERIMENT


def test_checks_fail_on_what_is_missing_or_too_slow() -> None:
    scale = EXPERIMENT.scales["cpu"]
    assert not any(c.passed for c in EXPERIMENT.checks(Results("cpu", scale, ())))
    good = {"error": 1e-5, "fewer, sample": 8.0, "fewer, batch": 8.0}
    records = [Record(cell, 0, good) for cell in EXPERIMENT.cells(scale)]
    assert all(c.passed for c in EXPERIMENT.checks(Results("cpu", scale, records)))
    slow = [replace(r, metrics=good | {"fewer, batch": 3.0}) for r in records]
    assert sum(not c.passed for c in EXPERIMENT.checks(Results("cpu", scale, slow))) == 3
    wrong = [*records[:3], replace(records[3], metrics=good | {"error": math.nan}), *records[4:]]
    assert not all(c.passed for c in EXPERIMENT.checks(Results("cpu", scale, wrong)))
