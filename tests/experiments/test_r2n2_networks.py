"""Networks in the place of R2N2: what each is told, its loss by hand, its parameters counted as in the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_networks import (
    EXPERIMENT,
    LEARNED,
    LINEAR,
    NETWORKS,
    NONLINEAR,
    SUBJECTS,
    Network,
    network_course,
    network_loss,
)
from settlepoint.problems import LinearFamily
from settlepoint.runs import Record

TINY = replace(EXPERIMENT.scales["smoke"], samples=20, epochs=20, nonlinear_epochs=20, starts=1)


@pytest.mark.parametrize("cell", [*LINEAR, *NONLINEAR])
def test_a_cell_gives_what_its_tables_and_figures_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    table = EXPERIMENT.tables[0 if cell in LINEAR else 1]
    trained = {"loss", "test loss", "training seconds"} if "Picard" in cell or "Anderson" in cell else set()
    assert {c.key for c in table.columns} - set(found["metrics"]) == trained
    assert {n for f in EXPERIMENT.figures if cell in f.rows for n in f.curves} <= set(found["curves"])


def test_training_lowers_the_loss() -> None:
    few, more = (
        EXPERIMENT.run("H: RNN(2)", 0, Context(replace(TINY, nonlinear_epochs=n)))["metrics"]["loss"] for n in (0, 60)
    )
    assert more < few


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_course_is_the_recurrence(name: str, generator: torch.Generator) -> None:
    subject = SUBJECTS[name]
    batch = subject.family.sample(4, generator)
    m = batch.x0.shape[1]
    network = Network(m + (m * m if name == "linear" else m), m, 7, generator)
    f = network_course(network, subject, subject.family, batch, 3)
    x = batch.x0
    for k in range(4):  # by hand: f(x) = A x - b, and x - 1/(1 - A_c x)
        if isinstance(subject.family, LinearFamily):
            value = x @ subject.family.dense.T - batch.parameters["b"]
            known = subject.family.dense.flatten().expand(4, -1)
        else:
            value, known = x - subject.family.equation(batch).image(x), x  # type: ignore[operator]
        torch.testing.assert_close(f[k], value, rtol=1e-12, atol=1e-12)
        x = x + network(known, value)


def test_the_loss_is_that_of_the_paper() -> None:
    f = [torch.full((2, 3), float(v), dtype=torch.float64) for v in (9, 1, 2)]
    assert float(network_loss(f[:2])) == 3  # |f(x_1)|^2 alone
    assert float(network_loss(f)) == 4 * 3 + 16 * 12


def _results(**changes: float) -> Results:
    keys = ("residual test", "residual first", "residual second")
    good = {**dict.fromkeys(keys, 0.1), "trivial": 1.0, "parameters": 1145.0}
    ours = {**dict.fromkeys(keys, 0.01), "trivial": 1.0, "parameters": 10.0, **changes}
    cells = {**dict.fromkeys(NETWORKS, good), **dict.fromkeys(LEARNED.values(), ours)}
    return Results("cpu", EXPERIMENT.scales["cpu"], [Record(cell, 0, m) for cell, m in cells.items()])


@pytest.mark.parametrize(
    ("metric", "bad"), [("residual test", 0.2), ("residual first", 0.2), ("residual second", 0.2), ("parameters", 20.0)]
)
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**{metric: bad})))


def test_it_is_registered() -> None:
    assert REGISTRY.load("r2n2-networks") is EXPERIMENT
