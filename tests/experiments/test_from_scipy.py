"""The comparison with SciPy's own calls: its counts are SciPy's, and its claims can fail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.linalg import gmres

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.from_scipy import EXPERIMENT, RESTART, RTOL, ScipyScale, _measured, _System, matrix
from settlepoint.runs import Record

SMOKE = EXPERIMENT.scales["smoke"]
CELLS = EXPERIMENT.cells(SMOKE)


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_gives_what_its_table_shows(cell: str) -> None:
    metrics = EXPERIMENT.run(cell, 0, Context(SMOKE))["metrics"]
    table = next(t for t in EXPERIMENT.tables if cell in t.rows)
    learned = set() if cell in ("A1", "H-equation") else {"learned", "learned ms"}
    assert {c.key for c in table.columns} - set(metrics) == learned
    assert metrics["miss"] <= 1


def test_products_are_counted_as_scipy_makes_them() -> None:
    """gmres counts its iterations in callbacks; the products beyond them are one a restart, and one at the start."""
    A = matrix("Poisson", SMOKE)
    b = np.random.default_rng(0).normal(size=A.shape[0])
    steps: list[float] = []
    gmres(A, b, rtol=RTOL, restart=RESTART, callback=steps.append, callback_type="pr_norm")
    system = _System(lambda x: A @ x, lambda x: float(np.linalg.norm(b - A @ x)))
    from scipy.sparse.linalg import LinearOperator

    call = lambda f: gmres(LinearOperator(A.shape, matvec=f, dtype=b.dtype), b, rtol=RTOL, restart=RESTART)[0]  # noqa: E731
    count, seconds, residual = _measured(system, call, 1)
    assert len(steps) <= count <= len(steps) + 2 + len(steps) // RESTART
    assert seconds >= 0
    assert residual <= RTOL * np.linalg.norm(b)


def test_the_matrices() -> None:
    """Five points: 1 on the diagonal, -1/4 beside it; the shift is complex."""
    A = matrix("Poisson", SMOKE).toarray()
    assert A[0, 0] == 1
    assert A[0, 1] == A[1, 0] == A[0, SMOKE.side] == -0.25
    wind = matrix("wind", SMOKE).toarray()
    assert wind[0, 1] != wind[1, 0]
    assert matrix("Helmholtz .5i - 1", SMOKE).diagonal()[0] == 0.5j


def _results(**changes: float) -> Results:
    good = {"scipy": 20.0, "ours": 18.0, "learned": 12.0, "anderson": 8.0, "miss": 0.9}
    return Results("cpu", ScipyScale(), [Record(cell, 0, {**good, **changes}) for cell in CELLS])


@pytest.mark.parametrize(("metric", "bad"), [("miss", 1.1), ("ours", 21.0), ("learned", 41.0), ("anderson", 13.0)])
def test_each_claim_can_fail(metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**{metric: bad})))


def test_it_is_registered() -> None:
    assert REGISTRY.load("from-scipy") is EXPERIMENT
