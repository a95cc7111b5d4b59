"""The experiments on linear R2N2 at a small scale, and the parts that their claims rest on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from settlepoint.experiments import REGISTRY, Experiment
from settlepoint.experiments.courses import course
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_extrapolation import ABOVE, BELOW, REFERENCE, SKEWED, falls, generated, sizes
from settlepoint.experiments.r2n2_iteration_weights import last_operator
from settlepoint.experiments.r2n2_linear import FIG_5, TRAININGS
from settlepoint.experiments.r2n2_parts import (
    MixedLinear,
    gain_ratio,
    gmres_course,
    iteration_operator,
    linear_batch,
    optimal_loss,
)
from settlepoint.learn import minimax
from settlepoint.problems import LinearFamily
from settlepoint.runs import Record, generator_from
from settlepoint.solvers import R2N2

LINEAR, EXTRAPOLATION, WEIGHTS = (
    REGISTRY.load(name) for name in ("r2n2-linear", "r2n2-linear-extrapolation", "r2n2-iteration-weights")
)


TINY = {
    LINEAR.id: {"samples": 20, "tried": 3},
    EXTRAPOLATION.id: {"samples": 20, "iterations": 20},
    WEIGHTS.id: {"samples": 20, "tried": 3, "epochs": 5},
}


def _smoke(experiment: Experiment, cells: tuple[str, ...], **changes: int) -> Results:
    scale = dataclasses.replace(experiment.scales["smoke"], **changes)
    records = [Record(cell, 0, experiment.run(cell, 0, Context(scale))["metrics"]) for cell in cells]
    return Results("smoke", scale, records)


@pytest.mark.parametrize("experiment", [LINEAR, EXTRAPOLATION, WEIGHTS], ids=lambda e: e.id)
def test_every_cell_gives_what_its_tables_and_figures_show(experiment: Experiment) -> None:
    scale = dataclasses.replace(experiment.scales["smoke"], starts=1, **TINY[experiment.id])
    for cell in experiment.cells(scale):
        found = experiment.run(cell, 0, Context(scale))
        keys = {c.key for t in experiment.tables for c in t.columns if cell in t.rows}
        missing = keys - set(found["metrics"]) - {"optimum"}
        assert not missing, f"{cell} lacks {missing}"
        names = {name for f in experiment.figures if cell in f.rows for name in f.curves}
        assert names <= set(found["curves"])


def test_the_iteration_operator_is_what_a_step_does() -> None:
    solver = R2N2(4, theta=torch.linspace(-0.4, 0.7, 10, dtype=torch.float64))
    A = torch.randn(3, 6, 6, generator=generator_from("A"), dtype=torch.float64)
    b = torch.randn(3, 6, generator=generator_from("b"), dtype=torch.float64)
    eq, x = linear_batch(A, b)
    eq = eq.at(x)
    moved, _, _ = solver.step(eq, x, b, solver.init(eq, x, b))
    after = b - (A @ moved[:, :, None])[:, :, 0]
    torch.testing.assert_close((iteration_operator(solver, A) @ b[:, :, None])[:, :, 0], after)


def test_the_optimum_is_that_of_dense_least_squares() -> None:
    family = MixedLinear((LinearFamily("A1"), LinearFamily("A2")))
    batch = family.sample(40, generator_from("optimum"))
    A, b = batch.parameters["A"], batch.parameters["b"]
    powers = torch.stack([(torch.linalg.matrix_power(A, j) @ b[:, :, None])[:, :, 0] for j in range(1, 4)], 2)
    found = np.linalg.lstsq(powers.reshape(-1, 3).numpy(), -b.flatten().numpy(), rcond=None)[1]
    assert optimal_loss(batch, A, 3, (1.0,)) == pytest.approx(float(found[0]) / 40, rel=1e-9)


def test_no_polynomial_falls_below_the_optimum_of_three_iterations() -> None:
    batch = LinearFamily("A1").sample(20, generator_from("below"))
    A = LinearFamily("A1").dense.expand(20, -1, -1)
    best = optimal_loss(batch, A, 4, (4.0, 16.0, 64.0))
    for low in (-0.6, -0.5, -0.4):
        r = course(minimax(4, low, 0.45), *linear_batch(A, batch.parameters["b"]), 3).residual
        assert best <= sum(4.0**k * float(r[:, k].square().mean()) for k in (1, 2, 3))


def test_gmres_is_the_best_of_its_krylov_space() -> None:
    A = LinearFamily("A3").dense.expand(5, -1, -1)
    b = LinearFamily("A3").sample(5, generator_from("gmres")).parameters["b"]
    found = gmres_course(A, b, 3, 2)
    for a, v, path in zip(A.numpy(), b.numpy(), found.residual.numpy(), strict=True):
        K = np.stack([np.linalg.matrix_power(a, j) @ v for j in range(1, 4)], 1)
        left = v - K @ np.linalg.lstsq(K, v, rcond=None)[0]
        np.testing.assert_allclose(path[:2], [np.linalg.norm(v), np.linalg.norm(left)], rtol=1e-8)
    assert found.residual.dtype == torch.float64  # a ratio that must not exceed 1 by 1e-9 is made of these
    assert bool((gain_ratio(found, found, 1) == 1).all())


def test_a_family_of_several_matrices_solves_each_row_with_its_own() -> None:
    family = MixedLinear((LinearFamily("A1"), LinearFamily("A7")))
    batch = family.sample(5, generator_from("mixed"))
    x = family.reference(batch)
    A, b = batch.parameters["A"], batch.parameters["b"]
    torch.testing.assert_close((A @ x[:, :, None])[:, :, 0], b, rtol=1e-9, atol=1e-9)
    assert torch.equal(A[3], LinearFamily("A7").dense)


def test_training_reaches_the_optimum_and_gmres_is_never_beaten() -> None:
    results = _smoke(LINEAR, tuple(TRAININGS), starts=2, samples=40)
    assert all(check.passed for check in LINEAR.checks(results))


@pytest.mark.parametrize("metric", ["loss ratio", "embedding", "ratio A2 max"])
def test_linear_checks_can_fail(metric: str) -> None:
    good = {"loss ratio": 1.0, "embedding": 1e-15, **{f"ratio A{i} max": 0.99 for i in (1, 2, 3)}}
    bad = {"loss ratio": 1.0011, "embedding": 1e-8, "ratio A2 max": 1 + 2e-9}

    def verdicts(changes: dict[str, float]) -> list[bool]:
        records = [Record(cell, 0, {**good, **changes}) for cell in TRAININGS]
        return [check.passed for check in LINEAR.checks(Results("smoke", LINEAR.scales["smoke"], records))]

    assert all(verdicts({}))
    assert not all(verdicts({metric: bad[metric]}))
    assert not all(verdicts({metric: math.nan}))


def test_published_checks_are_made_at_the_larger_scales() -> None:
    checks = LINEAR.checks(Results("cpu", LINEAR.scales["cpu"], []))
    assert len([check for check in checks if check.name.startswith("Fig 5")]) >= len(FIG_5)
    assert not any(check.passed for check in checks)


@pytest.mark.parametrize("kind", [BELOW, ABOVE, SKEWED])
def test_generated_matrices_lie_on_the_side_that_is_asked_for(kind: str) -> None:
    solver = minimax(4, -0.6, 0.4)
    generator = generator_from("edge", kind)
    A = torch.stack([generated(kind, solver, generator) for _ in range(6)])
    radius, norm = sizes(iteration_operator(solver, A))
    low, high = (1.0, 1.05) if kind == ABOVE else (0.95, 1.0)
    assert bool(((low < radius) & (radius < high)).all())
    assert bool((norm >= radius - 1e-12).all())
    b = torch.ones(6, 5, dtype=torch.float64)
    assert falls(solver, A, b, 1000).tolist() == [kind != ABOVE] * 6


def test_what_runs_away_to_nan_does_not_fall() -> None:
    b = torch.ones(2, 5, dtype=torch.float64)
    A = torch.eye(5, dtype=torch.float64) * torch.tensor([0.5, 50.0])[:, None, None]
    assert falls(minimax(2, 0.2, 0.8), A, b, 400).tolist() == [True, False]


def test_extrapolation_checks_can_fail() -> None:
    scale = EXTRAPOLATION.scales["cpu"]
    middle = {name: sum(ends) / 2 for name, ends in REFERENCE.items()}
    norms = lambda name: {  # noqa: E731
        "agree": 100.0, "norm on A1": 9.0, "norm on A1 to A3": middle.get(name, 1.0), "norm minimax": 0.15,
    }  # fmt: skip
    cells = EXTRAPOLATION.cells(scale)
    good = [Record(cell, 0, norms(cell)) for cell in cells]
    assert all(check.passed for check in EXTRAPOLATION.checks(Results("cpu", scale, good)))
    wrong = [*good[:-1], Record(cells[-1], 0, {**norms(cells[-1]), "agree": 99.0})]
    assert not all(check.passed for check in EXTRAPOLATION.checks(Results("cpu", scale, wrong)))
    assert not all(check.passed for check in EXTRAPOLATION.checks(Results("cpu", scale, good[:-1])))


def test_weights_per_iteration_solve_a1_in_three() -> None:
    results = _smoke(WEIGHTS, ("T = 2", "T = 3", "T = 4", "T = 5"), starts=3)
    assert all(check.passed for check in WEIGHTS.checks(results))
    assert results.mean("T = 3", "residual 3") <= 1e-12


def test_the_last_operator_is_what_the_last_weights_do() -> None:
    solver = R2N2(2, per_iteration=2, theta=[0.3, 1.0, 1.0, 0.4, -0.7])
    single = R2N2(2, theta=[0.3, 0.4, -0.7])
    A = LinearFamily("A2").dense
    torch.testing.assert_close(last_operator(solver, A), iteration_operator(single, A))
