"""The experiment on recycles: a cell of each kind, curves, and checks that fail where nothing was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.random_esmfold import random_esmfold, sequences, watched
from settlepoint.experiments.recycling import EXPERIMENT, SOLVERS, TRIVIAL, RecyclingScale

SCALE = replace(EXPERIMENT.scales["smoke"], targets=3, residues=16, recycles=5)


@pytest.mark.parametrize("cell", [*SOLVERS, *TRIVIAL])
def test_cells_on_targets(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(scale=SCALE))
    metrics, curves = found["metrics"], found["curves"]
    assert all(math.isfinite(value) for value in metrics.values())
    if cell in TRIVIAL:
        assert not curves
        return
    assert sum(metrics[kind] for kind in ("settled", "settling", "marginal", "cycling", "drifting")) == pytest.approx(
        100
    )
    assert 1 <= metrics["evals"] <= SCALE.recycles + 1
    assert [len(curves[name]["x"]) for name in ("average gdt", "gdt", "step")] == [6, 6, 5]
    assert ("gdt 2" in curves) == (cell == "plain")


def test_solvers_start_where_zero_recycles_end() -> None:
    first = [EXPERIMENT.run(cell, 1, Context(scale=SCALE))["metrics"]["gdt first"] for cell in SOLVERS]
    zero = EXPERIMENT.run("zero recycles", 1, Context(scale=SCALE))["metrics"]["gdt last"]
    assert first == [zero] * 3


def test_esmfold_is_traced_and_not_changed() -> None:
    metrics, cycles = watched(random_esmfold(0), sequences(1, 8, 0), 3, 1)
    assert metrics["equal"] == 1
    assert metrics["cycles"] == len(cycles) == 4
    assert metrics["overhead"] > -100


def test_random_models_and_sequences_depend_on_their_seed_alone() -> None:
    first = random_esmfold(3, single=16, pair=16, depth=1, blocks=1)
    torch.randn(5)
    again = random_esmfold(3, single=16, pair=16, depth=1, blocks=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(sequences(1, 50, 0), sequences(1, 50, 1))


def test_checks_of_nothing_fail() -> None:
    found = EXPERIMENT.checks(Results("cpu", RecyclingScale(), ()))
    assert not any(check.passed for check in found)


def test_it_is_known_to_the_program() -> None:
    assert REGISTRY.load("recycling").id == "recycling"
