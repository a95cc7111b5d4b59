"""tune for initial-value families: errors at equal work against loops by hand and SciPy; the objective by numpy."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import R2N2, FixedSteps, Picard, solve
from settlepoint.learn import Budget, LevenbergMarquardt, Relative, fit, tune, tune_steps
from settlepoint.learn.fit import generator
from settlepoint.learn.trial import fresh, trial
from settlepoint.learn.tune_steps import Landing, Pilot
from settlepoint.problems import Chandrasekhar, VanDerPol, from_callable
from settlepoint.solvers.tableaus import HEUN, KUTTA3, RK4

BUDGET = Budget(training=20, validation=3, held_out=8)
STILL, QUICK = LevenbergMarquardt(1, 0), LevenbergMarquardt(1, 2)
KUTTA = R2N2.from_tableau(KUTTA3)


def kutta(f, x, h):
    k1 = f(x)
    k2 = f(x + h * k1 / 2)
    return x + h * (k1 + 4 * k2 + f(x - h * k1 + 2 * h * k2)) / 6


def heun(f, x, h):
    k = f(x)
    return x + h / 2 * (k + f(x + h * k))


def runge_kutta(f, x, h):
    k1 = f(x)
    k2 = f(x + h * k1 / 2)
    k3 = f(x + h * k2 / 2)
    return x + h * (k1 + 2 * k2 + 2 * k3 + f(x + h * k3)) / 6


@pytest.fixture(scope="module")
def tuned():
    """One contest over 12 steps instead of 50."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_steps, "STEPS", 12)
        return tune(VanDerPol(), BUDGET, trainer=QUICK)


def field(x, a):
    return np.stack((x[:, 1], a * (1 - x[:, 0] ** 2) * x[:, 1] - x[:, 0]), 1)


@pytest.fixture(scope="module")
def held_out():
    """Held-out problems of seed 0, and where x is at 12 h by SciPy's DOP853, row by row."""
    batch, exact = VanDerPol().sample(BUDGET.held_out, generator(0, 12)), []
    assert batch.h is not None
    for a, x, h in zip(batch.parameters["a"].numpy(), batch.x0.numpy(), batch.h.numpy(), strict=True):
        found = solve_ivp(
            lambda t, x, a=a: field(x[None], a)[0], (0, 12 * h), x, "DOP853", rtol=1e-12, atol=1e-13
        )  # fmt: skip
        exact.append(found.y[:, -1])
    return batch, np.stack(exact)


@pytest.mark.parametrize(
    ("name", "step", "count"), [("Kutta-3", kutta, 12), ("Heun", heun, 18), ("RK4", runge_kutta, 9)]
)
def test_classical_rows_by_hand(tuned, held_out, name, step, count):
    """The error at time 12 h with at most 36 evaluations, and its geometric mean beside Kutta's."""
    (batch, exact), errors = held_out, []
    f, h = lambda x: field(x, batch.parameters["a"].numpy()), batch.h.numpy()[:, None]
    for method, steps in ((step, count), (kutta, 12)):
        x = batch.x0.numpy()
        for _ in range(steps):
            x = method(f, x, h * 12 / steps)
        errors.append(np.linalg.norm(x - exact, axis=1))
    row = next(r for r in tuned.table if r["name"] == name)
    assert row["gain"] == pytest.approx(np.exp(np.mean(np.log(errors[1] / errors[0]))), rel=1e-3)
    assert row["worst"] == pytest.approx(errors[0].max(), rel=1e-6)
    assert row["better"] == np.mean(errors[0] < errors[1])
    assert row["evaluations"] == 36


def test_scipy_rows_stay_within_the_work(tuned):
    """On single problems; those that no tolerance brings to the end are failures."""
    for name in ("SciPy RK23", "SciPy RK45"):
        row = next(r for r in tuned.table if r["name"] == name)
        assert row["kind"] == "adaptive"
        assert row["evaluations"] <= 36
        assert row["failures"] < row["problems"] == 8


def test_verdict_follows_from_the_table(tuned):
    rows = {r["name"]: r for r in tuned.table}
    classic = max((r for r in tuned.table if r["kind"] == "classical"), key=lambda r: r["gain"])
    assert rows["Kutta-3"]["gain"] == pytest.approx(1)
    assert tuned.worth is (rows[tuned.name]["kind"] == "learned")
    assert tuned.worth or tuned.name == classic["name"]
    assert tuned.verdict.startswith("Worth it" if tuned.worth else "Not worth it")
    order = [(r["failures"], -r["gain"]) for r in tuned.table]
    assert order == sorted(order)
    assert {r["problems"] for r in tuned.table} == {8}
    beside = rows["SciPy RK23"]
    assert f"SciPy RK23 {beside['gain']:.3g}, {beside['p90_beside_scipy']:.2g}" in tuned.verdict
    json.dumps(tuned.evidence)


def test_returned_solver_is_the_named_one(tuned, held_out):
    """Its error after its steps is that of its row."""
    batch, exact = held_out
    assert isinstance(tuned.solver, R2N2)
    steps = 36 // tuned.solver.stages
    stretched = replace(batch, h=batch.h * 12 / steps)
    with torch.no_grad():
        x = solve(VanDerPol().equation(stretched), batch.x0, tuned.solver, FixedSteps(steps)).value
    assert isinstance(x, Tensor)
    row = next(r for r in tuned.table if r["name"] == tuned.name)
    assert row["worst"] == pytest.approx(np.linalg.norm(x.numpy() - exact, axis=1).max(), rel=1e-6)


def test_no_seconds_train_nothing_and_say_so():
    found = tune(VanDerPol(), Budget(seconds=0.0, training=20, validation=2, held_out=2))
    assert found.worth is False
    assert len(found.evidence["left_out"]) == 4
    assert found.verdict.startswith("Nothing was learned")


@pytest.mark.slow
def test_van_der_pol_meets_the_issue():
    """Issue 3: >= 3x smaller error than Kutta-3 after 50 steps at equal evaluations, and better than SciPy's RK23."""
    found = tune(VanDerPol())
    rows = {r["name"]: r for r in found.table}
    assert found.worth
    assert rows[found.name]["gain"] >= 3
    assert rows[found.name]["gain"] > rows["SciPy RK23"]["gain"]


# ---- the objective ------------------------------------------------------------------------------------------------


def test_relative_by_hand():
    """mean_i sum_k |x_ik - x*_ik|^2 / e_ik^2, e the peer's error, at least a third of the power of h through them."""
    family = VanDerPol()
    batch = family.sample(20, torch.Generator().manual_seed(2))
    train, _ = batch.split()
    path, ends, h = family.trajectory(train, 3).numpy(), [], train.h
    assert h is not None
    for solver in (R2N2.from_tableau(HEUN), KUTTA):
        with torch.no_grad():
            at = [solve(family.equation(train), train.x0, solver, FixedSteps(k)).value for k in (1, 3)]
        ends.append([np.linalg.norm(x.numpy() - path[:, k], axis=1) for x, k in zip(at, (0, 2), strict=True)])  # pyright: ignore
    loss, log_h = 0.0, np.log(h.numpy())
    for mine, peer in zip(*ends, strict=True):
        usual = np.exp(np.polyval(np.polyfit(log_h, np.log(peer), 1), log_h))
        loss += float(np.mean((mine / np.maximum(peer, usual / 3)) ** 2))
    found = fit(R2N2.from_tableau(HEUN), family, 3, Relative(KUTTA, (1, 3)), STILL, samples=batch)
    assert found.loss == pytest.approx(loss, rel=1e-4)


def test_relative_where_the_peer_is_exact():
    """x' = 1: every method is exact, some to the last bit; the loss stays a number."""
    family = from_callable(
        lambda x, p: torch.ones_like(x),
        lambda n, g: {"x0": torch.rand(n, 2, dtype=DOUBLE, generator=g), "h": torch.rand(n, dtype=DOUBLE, generator=g)},
        form="rhs",
    )
    found = fit(R2N2.from_tableau(HEUN), family, 2, Relative(KUTTA, (1, 2)), STILL, samples=20)
    assert math.isfinite(found.loss)


@pytest.mark.parametrize("at", [(), (0,), (4,), (1, 9)])
def test_relative_refuses_steps_that_are_not_taken(at):
    with pytest.raises(ValueError, match="at must hold steps from 1 to 3"):
        fit(KUTTA, VanDerPol(), 3, Relative(KUTTA, at), STILL, samples=20)


# ---- trials -------------------------------------------------------------------------------------------------------


def test_trial_of_a_fixed_point_family():
    """As solve says, on problems that tune has not drawn."""
    family = Chandrasekhar(m=5)
    problems = fresh(family, 6, seed=0)
    drawn = [family.sample(6, generator(0, 10 + i)).x0 for i in range(3)]
    assert not any(torch.equal(problems.x0, x) for x in drawn)
    found = trial(R2N2(2), family, problems, 60, 1e-9)
    assert found.status == ["CONVERGED"] * 6
    assert bool((found.residual <= 1e-9).all())
    assert bool(found.good.all())
    assert found.error is None


def test_trial_of_an_initial_value_family():
    """The error after ten steps, against Kutta's method by hand and the family's exact path."""
    family = VanDerPol()
    problems = fresh(family, 4, seed=1)
    found = trial(R2N2.from_tableau(RK4), family, problems, 10)
    x, h = problems.x0, problems.h
    assert h is not None
    for _ in range(10):
        x = runge_kutta(lambda x: family.field(x, problems.parameters), x, h[:, None])
    exact = (x - family.trajectory(problems, 10)[:, -1]).norm(dim=1)
    assert found.error is not None
    assert found.error.tolist() == pytest.approx(exact.tolist(), rel=1e-6)
    assert bool(found.good.all())


def test_beside_scipy_means_the_same_problems():
    """Gain and 90th percentile of the first 40; a failure lies in the tail."""
    errors = torch.cat(
        (torch.full((36,), 0.5), torch.tensor([1.0, 2.0, 3.0, math.nan]), torch.full((60,), 100.0))
    ).double()
    landing = Landing(Pilot("a", Picard()), errors, torch.ones(100, dtype=torch.float64), 150)
    assert landing.first(40).tail == 1.0
    assert landing.first(4).gain == pytest.approx(2.0)
    assert landing.row()["p90_beside_scipy"] == 1.0
    assert replace(landing, errors=torch.full((3,), math.nan)).tail == math.inf
