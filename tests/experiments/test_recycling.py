"""The experiment on recycles: a cell of each kind, curves, and checks that fail where nothing was measured."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from settlepoint.chains import RecycleTracer
from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.random_esmfold import Clocked, clocked_tracer, random_esmfold, sequences, watched
from settlepoint.experiments.recycling import ESMFOLD, EXPERIMENT, SOLVERS, TRIVIAL, RecyclingScale
from settlepoint.runs import Record

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
    gdt = torch.tensor([curves[f"gdt {k}"]["y"] for k in range(SCALE.targets)] if cell == "plain" else [])
    if cell == "plain":
        assert metrics["better"] == pytest.approx(100 * float((gdt[:, -1] > gdt[:, 0] + 1).double().mean()))
        assert metrics["worse"] == pytest.approx(100 * float((gdt[:, -1] < gdt[:, 0] - 1).double().mean()))
    assert metrics["rmsd rises"] == (100 if metrics["rmsd change"] > 0 else 0)


def test_solvers_start_where_zero_recycles_end() -> None:
    first = [EXPERIMENT.run(cell, 1, Context(scale=SCALE))["metrics"]["gdt first"] for cell in SOLVERS]
    zero = EXPERIMENT.run("zero recycles", 1, Context(scale=SCALE))["metrics"]["gdt last"]
    assert first == [zero] * 3


def test_esmfold_is_traced_and_not_changed() -> None:
    metrics, cycles = watched(random_esmfold(0), sequences(1, 8, 0), 3, 1)
    assert metrics["equal"] == 1
    assert metrics["cycles"] == len(cycles) == 4
    assert metrics["overhead"] > -100
    assert 0 < metrics["own"] < 100


def test_a_clocked_tracer_records_the_same_and_notes_every_hook() -> None:
    model, ids, spent = random_esmfold(0), sequences(1, 8, 0), []
    with clocked_tracer(model, spent) as tracer, RecycleTracer(model) as plain, torch.no_grad():
        model(ids, num_recycles=3)
    assert len(spent) == 1 + 2 * 4  # one for the call, two for each of four cycles
    assert all(torch.equal(a.pair, b.pair) for a, b in zip(tracer.cycles, plain.cycles, strict=True))
    assert not model._forward_pre_hooks


def test_a_clock_counts_the_cpu_time_of_its_hook_and_gives_what_it_gives() -> None:
    def slow(module: nn.Module, given: tuple, made: torch.Tensor) -> torch.Tensor:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        return made + 1

    module, spent = nn.Identity(), []
    Clocked(module, spent).register_forward_hook(slow)
    assert module(torch.zeros(2)).tolist() == [1.0, 1.0]
    assert len(spent) == 1
    assert spent[0] >= 0.02


def test_random_models_and_sequences_depend_on_their_seed_alone() -> None:
    first = random_esmfold(3, single=16, pair=16, depth=1, blocks=1)
    torch.randn(5)
    again = random_esmfold(3, single=16, pair=16, depth=1, blocks=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(sequences(1, 50, 0), sequences(1, 50, 1))


def test_checks_of_nothing_fail() -> None:
    found = EXPERIMENT.checks(Results("cpu", RecyclingScale(), ()))
    assert not any(check.passed for check in found)


def seeds(cell: str, metric: str, *values: float) -> list[Record]:
    return [Record(cell, k, {metric: value}) for k, value in enumerate(values)]


def test_checks_hold_the_hooks_of_every_seed_and_not_the_noise() -> None:
    records = [*seeds(ESMFOLD[0], "own", 0.1, 3.0), *seeds(ESMFOLD[1], "own", 0.1, 0.2)]
    records += seeds(ESMFOLD[1], "overhead", 9.0, 9.0)
    found = {c.name.split(": inside")[0]: c for c in EXPERIMENT.checks(Results("cpu", RecyclingScale(), records))}
    assert not found[ESMFOLD[0]].passed
    assert found[ESMFOLD[0]].measured == 3.0
    assert found[ESMFOLD[1]].passed


@pytest.mark.parametrize(("share", "passed"), [(49.0, False), (50.0, True)])
def test_half_of_the_targets_must_rise(share: float, passed: bool) -> None:
    results = Results("cpu", RecyclingScale(), seeds("plain", "better", share))
    check = next(c for c in EXPERIMENT.checks(results) if c.name == "plain: targets whose GDT_TS rises, %")
    assert check.passed == passed


def test_the_words_agree_with_the_numbers() -> None:
    """In a run of three seeds plain recycling gained 3.8 points by stopping early, and no target drifted."""
    assert "halves the recycles at the cost of" not in EXPERIMENT.claim
    caption = EXPERIMENT.tables[0].caption
    assert "how many drift" not in caption
    assert "alternating between two structures counts as cycling" in caption


def test_it_is_known_to_the_program() -> None:
    assert REGISTRY.load("recycling").id == "recycling"
