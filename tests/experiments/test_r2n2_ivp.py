"""The van der Pol experiment at a tiny scale, its objective, and its budgets."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_ivp import (
    BEST,
    EIGHT,
    EXPERIMENT,
    FAMILY,
    HORIZON,
    KUTTA,
    KUTTA3,
    LEARNED,
    ONE,
    RK4,
    RK23,
    IvpScale,
)
from settlepoint.experiments.relative_errors import RelativeErrors
from settlepoint.learn.objective import rollout
from settlepoint.runs import Record
from settlepoint.solvers import R2N2, tableaus

TINY = replace(EXPERIMENT.scales["smoke"], samples=12, starts=1, near=1, iterations=2, tried=6, adaptive=1)


@pytest.mark.parametrize("cell", [KUTTA, RK4, RK23, ONE, pytest.param(BEST, marks=pytest.mark.slow)])
def test_a_cell_gives_what_its_tables_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    assert found["metrics"]["evals"] <= 3 * HORIZON
    assert math.isfinite(found["metrics"][f"gain {HORIZON}"])
    if cell in LEARNED:
        keys = {c.key for table in EXPERIMENT.tables for c in table.columns}
        assert keys <= set(found["metrics"])
        assert {name for figure in EXPERIMENT.figures for name in figure.curves} <= set(found["curves"])
    if cell == KUTTA:
        assert {v for k, v in found["metrics"].items() if k.startswith("gain")} == {1.0}


def test_relative_errors_of_the_classical_method_itself(generator: torch.Generator) -> None:
    objective = RelativeErrors(KUTTA3, (1, 3), floor=1e-2)
    task = objective.prepare(FAMILY, FAMILY.sample(5, generator), 3)
    errors = objective.errors(KUTTA3, task, 3).detach()
    assert len(errors) == 10  # 5 problems at 2 steps, each log10(sqrt(1 + 1/floor^2))
    assert float(errors.square().sum()) == pytest.approx(math.log10(math.sqrt(1 + 1e4)) ** 2, rel=1e-12)


def test_relative_errors_know_a_better_method(generator: torch.Generator) -> None:
    objective = RelativeErrors(KUTTA3, (3,))
    task = objective.prepare(FAMILY, FAMILY.sample(20, generator), 3)
    euler = R2N2(3, theta=(0.0, 0.0, 0.0, 1.0, 0.0, 0.0))
    loss = [float(objective.errors(s, task, 3).detach().square().sum()) for s in (KUTTA3, euler)]
    assert loss[0] < loss[1]


def test_the_untrained_methods_are_kutta(generator: torch.Generator) -> None:
    from settlepoint.experiments.r2n2_ivp import _untrained

    batch = FAMILY.sample(4, generator)
    eq = FAMILY.equation(batch).at(batch.x0)
    last = [rollout(s, eq, batch.x0, 4).iterates[-1] for s in (KUTTA3, _untrained(1, 2), _untrained(3))]
    assert torch.allclose(last[0], last[1], atol=1e-14)
    assert torch.allclose(last[0], last[2], atol=1e-14)
    assert torch.equal(KUTTA3.theta, R2N2.from_tableau(tableaus.KUTTA3).theta)


def _results(**changes: float) -> Results:
    good = {"loss": 0.01, "better 1": 95.0, "gain 50": 9.0, "training seconds": 8.0}
    cells = [(cell, {**good, **changes}) for cell in (ONE, EIGHT, BEST)]
    return Results("cpu", IvpScale(), [Record(c, 0, m) for c, m in [*cells, (RK23, {"gain 50": 1.1})]])


@pytest.mark.parametrize(
    ("metric", "bad"),
    [("loss", 0.08), ("better 1", 84.0), ("gain 50", 2.9), ("gain 50", 1.0), ("training seconds", 21.0),
     ("loss", math.nan)],
)  # fmt: skip
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**{metric: bad})))


def test_it_is_registered() -> None:
    assert REGISTRY.load("r2n2-ivp") is EXPERIMENT
    assert set(EXPERIMENT.cells(TINY)) >= set(LEARNED)
