"""The digits experiment end to end at a tiny scale, and the parts that its claims rest on."""

from __future__ import annotations

import json
import math

import pytest
import torch

from settlepoint import Equation, Picard, Tolerance, solve
from settlepoint.experiments import REGISTRY, settling
from settlepoint.experiments.digits import CONTROL_RATES, EXPERIMENT, MODEL, SETTLED, DigitsScale, build
from settlepoint.experiments.digits_peer import peer_solve
from settlepoint.experiments.experiment import Context, Results
from settlepoint.layers import TanhCell
from settlepoint.runs import Record, generator_from

TINY = DigitsScale(width=12, epochs=1, repeats=1, batch=350)


@pytest.mark.parametrize("cell", EXPERIMENT.cells(TINY))
def test_every_cell_gives_what_its_tables_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    metrics = found["metrics"]
    assert metrics["accuracy"] > metrics["majority"] / 2  # one epoch: no claim, only that it is an accuracy
    assert 5 < metrics["majority"] < 15
    keys = {c.key for table in EXPERIMENT.tables for c in table.columns if not table.rows or cell in table.rows}
    if cell in SETTLED:
        assert keys <= set(metrics)
        assert metrics["false claims"] == 0
        assert metrics["work torchdeq"] == metrics["work batch"]  # the same iterations, stopped at the same one
        assert metrics["residual torchdeq"] <= 1e-6
    names = {name for figure in EXPERIMENT.figures if cell in (figure.rows or SETTLED) for name in figure.curves}
    if cell == MODEL:
        assert names - {"accuracy"} <= set(found["curves"])


def test_all_cells_of_a_seed_start_from_the_same_weights() -> None:
    first = [build(cell, TINY, generator_from("w", 0)) for cell in SETTLED]
    for model in first[1:]:
        for a, b in zip(first[0].parameters(), model.parameters(), strict=True):
            assert torch.equal(a, b)


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match=r"linear, mlp.*got 'gru'"):
        build("gru", TINY, torch.Generator())


def _records(**changes: float) -> Results:
    good = {"accuracy": 97.0, "work ratio": 3.0, "time ratio": 2.5, "false claims": 0, "unsettled": 0, "majority": 10.0}
    return Results("cpu", DigitsScale(), [Record(MODEL, 0, {**good, **changes})])


@pytest.mark.parametrize(
    ("metric", "bad"),
    [("accuracy", 95.9), ("work ratio", 1.9), ("time ratio", 1.9), ("false claims", 1), ("unsettled", 1),
     ("accuracy", math.nan), ("majority", 98.0)],
)  # fmt: skip
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_records()))
    assert not all(check.passed for check in EXPERIMENT.checks(_records(**{metric: bad})))


def test_missing_cells_fail() -> None:
    assert not any(check.passed for check in EXPERIMENT.checks(Results("cpu", DigitsScale(), [])))


def test_it_is_registered_and_its_spec_is_json() -> None:
    assert REGISTRY.load("digits") is EXPERIMENT
    assert set(EXPERIMENT.scales) == {"smoke", "cpu", "paper"}
    assert set(CONTROL_RATES) <= set(EXPERIMENT.cells(TINY))
    json.dumps([figure.curves for figure in EXPERIMENT.figures])


def contraction(generator: torch.Generator) -> tuple[Equation, torch.Tensor, torch.Tensor]:
    cell = TanhCell(5, gain=2.0, generator=generator, dtype=torch.float64)
    cell.project_(0.9)
    u = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return Equation(cell, context=(u,)), torch.zeros_like(u), u


def test_recheck_sees_a_false_claim(generator: torch.Generator) -> None:
    eq, x0, _ = contraction(generator)
    loose = Tolerance(atol=1e-3)
    with torch.no_grad():
        solution = solve(eq, x0, Picard(), loose)
    honest = settling.recheck(eq, solution, loose)
    assert honest["false claims"] == 0
    assert honest["largest residual"] == pytest.approx(float(solution.residual.max()), abs=1e-12)
    assert settling.recheck(eq, solution, Tolerance(atol=1e-9))["false claims"] == 8


def test_curves_end_where_the_solve_ended(generator: torch.Generator) -> None:
    eq, x0, _ = contraction(generator)
    stop = Tolerance(atol=1e-8, max_steps=300)
    with torch.no_grad():
        solution = solve(eq, x0, Picard(), stop)
    share = settling.settled_share(solution)
    assert share["y"][-1] == 100.0
    assert share["x"][-1] == float(solution.evals.max())
    falling = settling.residual_curve(eq, x0, Picard(), stop, "Picard")
    assert falling["y"][-1] <= 1e-8 < falling["y"][-2]
    sweep = settling.depth_sweep(eq, x0, 10, (0.5, 1, 2), lambda z: float(z.norm()))
    assert sweep["depth residual"]["y"][0] > sweep["depth residual"]["y"][-1]


def test_torchdeq_ends_at_our_tolerance(generator: torch.Generator) -> None:
    eq, _, u = contraction(generator)
    with torch.no_grad():
        z, calls = peer_solve(eq.operator, u, Tolerance(atol=1e-8, max_steps=300))
        assert (eq.operator(z, u) - z).norm(dim=1).max() <= 1e-8
    assert 10 < calls < 300
