"""The H-equation experiment at a tiny scale, and its own Newton-GMRES against dense Newton."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.courses import Course, course, newton_gmres, quartiles, scipy_course
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_nonlinear import EXPERIMENT, LEARNED, SCIPY, SETS, NonlinearScale, _elsewhere
from settlepoint.problems import Chandrasekhar
from settlepoint.runs import Record
from settlepoint.solvers import Picard

TINY = replace(EXPERIMENT.scales["smoke"], samples=24, starts=1, iterations=3, tried=4, scipy=1, patience=20)


@pytest.mark.parametrize("cell", [LEARNED, "Newton-GMRES(3)", SCIPY, "Anderson(2)"])
def test_every_cell_gives_what_its_tables_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    assert found["metrics"]["residual 2"] < found["metrics"]["residual 1"]
    assert {f"evals {name} {q}" for name in SETS for q in ("p25", "p50", "p75")} <= set(found["metrics"])
    assert {name for figure in EXPERIMENT.figures for name in figure.curves} <= set(found["curves"])


def test_newton_gmres_with_a_full_krylov_space_is_newton(generator: torch.Generator) -> None:
    batch = Chandrasekhar(m=4).sample(3, generator)
    eq = Chandrasekhar(m=4).equation(batch)
    found = newton_gmres(eq, batch.x0, 1, inner=4).residual[:, 1]
    for i in range(3):  # one step of Newton's method with the dense Jacobian, by torch.linalg
        one = Chandrasekhar(m=4).equation(batch.rows(slice(i, i + 1)))
        f = lambda x, one=one: one.residual(x[None])[0]  # type: ignore[index]  # noqa: E731
        x = batch.x0[i] - torch.linalg.solve(torch.func.jacrev(f)(batch.x0[i]), f(batch.x0[i]))
        assert float(found[i]) == pytest.approx(float(f(x).norm()), rel=1e-6, abs=1e-13)


def test_a_course_counts_what_was_spent(generator: torch.Generator) -> None:
    batch = Chandrasekhar(m=5).sample(4, generator)
    eq = Chandrasekhar(m=5).equation(batch)
    found = course(Picard(), eq, batch.x0, 3)
    x = batch.x0
    for k in range(4):
        assert torch.allclose(found.residual[:, k], torch.linalg.vector_norm(eq.residual(x), dim=1), rtol=1e-12)  # type: ignore[arg-type]
        x = eq.image(x)
    assert found.evals[0].tolist() == [0, 1, 2, 3]


def test_scipy_ends_where_it_says(generator: torch.Generator) -> None:
    found = scipy_course(Chandrasekhar(m=5), Chandrasekhar(m=5).sample(2, generator), 30)
    assert float(found.residual[:, -1].max()) < 1e-8
    assert bool((found.evals[:, -1] > found.evals[:, 1]).all())


def test_the_end_of_a_course_and_whether_it_is_the_root_of_physics(generator: torch.Generator) -> None:
    family = Chandrasekhar(m=5)
    batch = family.sample(3, generator)
    physical = family.reference(batch)
    eq = family.equation(batch)
    scipy = scipy_course(family, batch, 30)
    for found in (course(Picard(), eq, batch.x0, 60), newton_gmres(eq, batch.x0, 12, inner=5), scipy):
        assert found.end is not None
        last = torch.linalg.vector_norm(eq.residual(found.end), dim=1)  # type: ignore[arg-type]
        assert torch.allclose(last, found.residual[:, -1], atol=1e-14)
        assert _elsewhere(found, physical) == 0
    assert _elsewhere(scipy, physical + torch.tensor([[0.0], [0.1], [0.1]])) == pytest.approx(200 / 3)
    lost = replace(scipy, residual=torch.ones_like(scipy.residual))
    assert _elsewhere(lost, physical + 1) == 0  # solves nothing, so is at no other root


def test_evaluations_include_the_one_that_shows_it() -> None:
    found = Course(torch.tensor([[0.0, 3, 6], [0, 3, 6]]), torch.tensor([[1.0, 1e-9, 1e-12], [1.0, 1.0, math.nan]]))
    assert found.within(1e-8).tolist() == [4, math.inf]
    assert found.share(1e-8, 2) == 50
    assert quartiles("evals", found.within(1e-8), (0.0, 1.0)) == {"evals p0": 4, "evals p100": math.inf}


def _results(**changes: float) -> Results:
    good = {"residual 1": 0.012, "residual 2": 3e-4, "residual 3": 1e-9, "residual 7": 1e-11, "solved x0''": 100.0}
    good |= {"ratio 1": 1.07, "evals": 13.0}
    squares = {**good, "residual 2": 4e-6}
    names = [(LEARNED, {**good, **changes}), ("R2N2(3, least squares)", squares), (SCIPY, {"evals": 20.0})]
    names.append(("Newton-GMRES(3)", {"solved x0''": 90.0}))
    return Results("cpu", NonlinearScale(), [Record(cell, 0, metrics) for cell, metrics in names])


@pytest.mark.parametrize(
    ("metric", "bad"),
    [("residual 1", 0.016), ("residual 2", 6e-4), ("residual 7", 2e-9), ("solved x0''", 97.0), ("ratio 1", 0.9),
     ("evals", 21.0), ("residual 1", math.nan)],
)  # fmt: skip
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**{metric: bad})))


def test_it_is_registered() -> None:
    assert REGISTRY.load("r2n2-nonlinear") is EXPERIMENT
