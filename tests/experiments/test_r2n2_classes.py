"""The experiment on further classes at a tiny scale, and its plain peers against references."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_classes import (
    EXPERIMENT,
    GRIDS,
    INVERSE,
    LEARNED,
    LOOP,
    NEWTON,
    SCIPY,
    SQUARES,
    WEIGHTS,
    ClassesScale,
    _ours,
)
from settlepoint.experiments.small_race import SMALL, learned_inverse, newton, plain_loop
from settlepoint.problems import Batch, Bratu
from settlepoint.runs import Record
from settlepoint.solvers import Anderson, Picard

TINY = replace(EXPERIMENT.scales["smoke"], samples=8, starts=1, iterations=3, tried=3, large=12, scipy=1, rows=20)


@pytest.mark.parametrize("cell", [SQUARES, INVERSE, "Anderson(3)", SCIPY, LOOP, NEWTON])
def test_a_cell_gives_what_its_tables_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))["metrics"]
    if cell not in (INVERSE, LOOP, NEWTON):
        assert {f"evals {name} p50" for name in GRIDS} <= set(found)
    if cell != SCIPY:
        assert found["ms 1e-08"] > 0
        assert found["evals small 0.0001"] <= found["evals small 1e-08"]
    assert ("training seconds" in found) == (cell in LEARNED)


def test_unsolved_problems_count_as_infinite(generator: torch.Generator) -> None:
    # lam = 6.79 lies beside the fold, where Picard contracts at a rate near 1: 300 evaluations are not enough
    hard = Bratu(6, lam=(6.5, 6.5))
    batch = hard.sample(2, generator)
    picard, anderson = (_ours(s, hard, batch) for s in (Picard(0.9), Anderson(3)))
    assert bool(picard.isinf().all())
    assert bool((anderson < 30).all())


def test_the_plain_loop_counts_as_the_library_does(generator: torch.Generator) -> None:
    from settlepoint import Tolerance, solve

    batch = SMALL.sample(10, generator)
    eq = SMALL.equation(batch)
    with torch.no_grad():
        ours = solve(eq, batch.x0, Picard(), Tolerance(1e-6, max_steps=500), compact=False)
    assert plain_loop(eq, batch, 1e-6) == int(ours.evals.max())


def test_the_learned_inverse_is_least_squares(generator: torch.Generator) -> None:
    """For a linear class it is the inverse itself: g so small that s(x) = x to first order leaves I - g K."""
    batch = SMALL.sample(40, generator)
    mild = Batch(
        1e-3 * batch.x0, {"g": torch.full_like(batch.parameters["g"], 0.85), "b": 1e-3 * batch.parameters["b"]}
    )
    exact = torch.linalg.inv(torch.eye(20, dtype=torch.float64) - 0.85 * SMALL.kernel)
    found = learned_inverse(mild)(torch.eye(20, dtype=torch.float64))
    assert float((found - exact).norm() / exact.norm()) < 1e-3


def test_newton_takes_few_evaluations(generator: torch.Generator) -> None:
    batch = SMALL.sample(10, generator)
    assert newton(SMALL.equation(batch), batch, 1e-8) <= 7  # quadratic convergence from b


def _results(**changes: float) -> Results:
    good = {"failed": 0.0, "evals Bratu 256^2 p100": 18.0, "gain 1e-08": 1.3}
    return Results("cpu", ClassesScale(), [Record(cell, 0, {**good, **changes}) for cell in LEARNED])


@pytest.mark.parametrize(
    ("metric", "bad"),
    [("failed", 1.0), ("evals Bratu 256^2 p100", 20.0), ("gain 1e-08", 0.9), ("gain 1e-08", math.nan)],
)
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**{metric: bad})))


def test_it_is_registered() -> None:
    assert REGISTRY.load("r2n2-classes") is EXPERIMENT
    assert WEIGHTS in EXPERIMENT.cells(TINY)
