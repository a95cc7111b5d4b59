"""Adaptive learned steps: what each cell shows, the control that must repeat SciPy, gains by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_adaptive import (
    CELLS,
    END,
    EXPERIMENT,
    FAMILY,
    LONG,
    RK23,
    SAME,
    TOLERANCES,
    _gains,
    _problems,
    _solved,
    consistent,
)
from settlepoint.runs import Record
from settlepoint.solvers import R2N2, tableaus

TINY = replace(EXPERIMENT.scales["smoke"], samples=20, iterations=2, steps=8, tried=2)


@pytest.mark.parametrize("cell", [RK23, SAME, "one step, sum b = 1", "one step, sum b = 1, default estimate"])
def test_a_cell_gives_what_its_tables_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    tables = EXPERIMENT.tables if cell != RK23 else EXPERIMENT.tables[:1]
    assert {c.key for t in tables for c in t.columns} <= set(found["metrics"])
    assert len(found["curves"]["work"]["x"]) == len(TOLERANCES)


def test_bogacki_shampine_repeats_scipy() -> None:
    ours, scipy = (EXPERIMENT.run(cell, 0, Context(TINY))["metrics"] for cell in (SAME, RK23))
    for t in TOLERANCES:
        assert ours[f"calls {t:g}"] == scipy[f"calls {t:g}"]
        assert ours[f"error {t:g}"] == pytest.approx(scipy[f"error {t:g}"], rel=1e-9)
    assert scipy["gain"] == pytest.approx(1.0)
    assert scipy["least gain"] == pytest.approx(1.0)


def test_a_gain_of_half_the_error_is_two(generator: torch.Generator) -> None:
    """At RK23's own evaluations, half its errors."""
    batch = FAMILY.sample(3, generator)
    problems = _problems(batch)
    exact = np.array([_solved(p, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1] for p in problems])
    calls, errors = [], []
    for t in TOLERANCES:
        found = [_solved(p, method="RK23", rtol=t, atol=t) for p in problems]
        assert all(f.t[-1] == END for f in found)
        calls.append(float(np.median([f.nfev for f in found])))
        errors.append(float(np.median([np.linalg.norm(f.y[:, -1] - e) for f, e in zip(found, exact, strict=True)])) / 2)
    if len(set(calls)) == len(calls):  # interpolation passes through every point
        assert _gains(calls, errors, batch, exact) == {"gain": pytest.approx(2), "least gain": pytest.approx(2)}


def test_the_penalty_is_what_is_missed() -> None:
    solver = R2N2.from_tableau(tableaus.KUTTA3)
    assert abs(float(consistent(solver).detach())) < 1e-12
    theta = solver.theta
    theta[-1] += 0.01
    assert float(consistent(solver.assign(theta)).detach()) == pytest.approx(10.0)


def _results(**changes: float) -> Results:
    base = {f"{key} {t:g}": v for t in TOLERANCES for key, v in (("calls", 20.0), ("error", 0.1 * t**0.9))}
    good = {**base, "error 0.1": 1e-2, "error 1e-05": 1e-6, "least gain": 1.2, "estimate p50": 1.1}
    peer = {**base, "error 0.1": 0.1}
    rows = {cell: dict(good) for cell in CELLS} | {RK23: peer, SAME: dict(peer)}
    rows[LONG] |= changes
    return Results("cpu", EXPERIMENT.scales["cpu"], [Record(cell, 0, m) for cell, m in rows.items()])


@pytest.mark.parametrize(
    ("metric", "bad"),
    [("error 0.1", 0.05), ("error 1e-05", 1e-2), ("calls 0.1", 40.0), ("least gain", 0.99), ("estimate p50", 9.0)],
)
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**{metric: bad})))


def test_it_is_registered() -> None:
    assert REGISTRY.load("r2n2-adaptive") is EXPERIMENT
