"""The experiment `tune`: its cells at a tiny scale, its measures on hand-made contests, its checks."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from settlepoint import learn, report
from settlepoint.experiments import REGISTRY
from settlepoint.experiments.contest import checks, guard, solved, write_folder
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.tuning import EXPERIMENT, FAMILIES, STRESS, TuningScale
from settlepoint.learn.structures import structures
from settlepoint.runs import Record
from settlepoint.solvers import Anderson, Picard

TINY = TuningScale(
    families=("linear",), training=20, held_out=20, starts=2, iterations=2, stress=10, flights=20, flight_iterations=1
)


@pytest.fixture
def _two_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contests with what is trained in milliseconds."""
    monkeypatch.setattr(sys.modules["settlepoint.learn.tune"], "structures", lambda: structures()[:2])


@pytest.mark.usefixtures("_two_structures")
def test_a_cell_gives_what_its_tables_show() -> None:
    found = EXPERIMENT.run("chandrasekhar", 0, Context(TINY))
    metrics = found["metrics"]
    for table in EXPERIMENT.tables[:3]:
        if "chandrasekhar" in table.rows:
            assert {c.key for c in table.columns} - {"mean Chebyshev"} <= set(metrics)
    assert metrics["mean Picard"] > metrics["runner-up mean"] >= metrics["mean"]
    assert all(0 <= metrics[f"{name} within"] <= 1 for name in STRESS)
    assert set(found["curves"]) == {"winner", "best classical", "Picard", "Newton-Krylov"}
    assert found["notes"][0].startswith(("Worth it", "Not worth it"))


@pytest.mark.slow
def test_the_cell_of_integrators() -> None:
    found = EXPERIMENT.run("vdp", 0, Context(TINY))
    metrics = found["metrics"]
    assert {c.key for c in EXPERIMENT.tables[3].columns} <= set(metrics)
    assert metrics["gain Kutta-3"] == pytest.approx(1.0)
    assert math.isfinite(metrics["gain"])


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chandrasekhar, linear, small, vdp, got 'nope'"):
        EXPERIMENT.run("nope", 0, Context(TINY))


GOOD = {"mean": 7.0, "runner-up mean": 8.0, "median": 7.0, "runner-up median": 8.0, "within": 1.0, "close": 0.99,
        **{f"{name} {key}": 1.0 for name in STRESS for key in ("within", "close")}}  # fmt: skip
FAST = {"gain": 9.0, "gain_beside_scipy": 9.0, "gain SciPy RK23": 2.0}


def results(changes: dict[str, float] | None = None, fast: dict[str, float] | None = None) -> Results:
    metrics = {**GOOD, **(changes or {})}
    records = [Record("chandrasekhar", 0, GOOD), Record("chandrasekhar", 1, metrics)]
    return Results("cpu", TuningScale(), [*records, Record("vdp", 0, {**FAST, **(fast or {})})])


def test_the_checks_pass_where_all_is_well() -> None:
    assert all(check.passed for check in EXPERIMENT.checks(results()))


@pytest.mark.parametrize(
    ("metric", "bad"),
    [("median", 8.0), ("mean", 10.0), ("within", 0.999), ("close", 0.94), ("x0'' within", 0.99), ("c = .99 close", 0.9),
     ("within", math.nan)],
)  # fmt: skip
def test_one_bad_seed_fails_a_check(metric: str, bad: float) -> None:
    assert not all(check.passed for check in EXPERIMENT.checks(results({metric: bad})))


@pytest.mark.parametrize(("metric", "bad"), [("gain", 2.9), ("gain SciPy RK23", 9.1)])
def test_an_integrator_that_gains_too_little_fails_a_check(metric: str, bad: float) -> None:
    assert not all(check.passed for check in EXPERIMENT.checks(results(fast={metric: bad})))


def row(name: str, kind: str, counts: list[list[float]], failures: int = 0) -> dict[str, object]:
    values = {"mean": 5.0, "median": 5.0, "p90": counts[-1][0], "worst": counts[-1][0], "failures": failures}
    return {"name": name, "kind": kind, **values, "problems": 4, "seconds": 0.5, "training_seconds": 1.5,
            "cumulative": counts, "note": "slept" if failures else ""}  # fmt: skip


def contest(unsolved: int = 0) -> learn.Tuned:
    table = [
        row("guarded x", "learned", [[4.0, 0.5], [6.0, 1.0]], unsolved),
        row("Anderson(2)", "classical", [[7.0, 1.0]]),
        row("Picard", "classical", [[9.0, 0.25], [17.0, 0.75], [40.0, 1.0]]),
    ]
    evidence = {
        "family": {"name": "mine"}, "tolerance": 1e-8, "budget": {"training": 20}, "seed": 0, "by": "evaluations",
        "runner_up": "Anderson(2)", "left_out": ["R2N2(4): tired"], "torch": torch.__version__,
        "guard_on_held_out": {"within": 1.0, "close": 0.9, "excess": 0.0},
    }  # fmt: skip
    return learn.Tuned(Anderson(2), "guarded x", True, "Worth it: yes.", table, evidence)


def test_the_share_solved_is_a_staircase_that_ends_where_slow_contenders_would_squeeze_it() -> None:
    curves = solved(contest())
    assert curves["guarded x"]["x"] == [4, 4, 4, 6, 6, 18]  # three times 6, the smallest 90th percentile
    assert curves["guarded x"]["y"] == [0, 0, 0.5, 0.5, 1, 1]
    assert curves["Picard"]["x"][-2:] == [17, 18]
    assert curves["Picard"]["y"][-1] == 0.75


def test_a_contest_becomes_a_run_folder_and_a_page(tmp_path: Path) -> None:
    folder = write_folder(contest(), tmp_path / "run", 3.0)
    files = report.read(folder)
    assert files.spec["cells"] == ["guarded x", "Anderson(2)", "Picard"]
    assert files.values("Picard", "p90") == [40.0]
    page = report.write([folder], tmp_path / "page.html").read_text()
    assert "Worth it: yes." in page
    assert "left out: R2N2(4): tired" in page
    assert "share of the held-out problems solved" in page
    (folder / "mine.txt").write_text("kept")
    write_folder(contest(), folder, 3.0)
    assert (folder / "mine.txt").read_text() == "kept"
    assert len(report.read(folder).lines) == 3


def test_the_checks_of_a_contest() -> None:
    assert [c.passed for c in checks(contest())] == [True, True, False]  # close is .9
    assert not checks(contest(unsolved=1))[0].passed
    classic = learn.Tuned(Picard(), "Picard", False, "", contest().table, contest().evidence)
    assert guard(classic) is None
    assert len(checks(classic)) == 1


def test_it_is_registered() -> None:
    assert REGISTRY.load("tune") is EXPERIMENT
    assert set(EXPERIMENT.cells(EXPERIMENT.scales["cpu"])) == set(FAMILIES)
    assert ("tune", "smoke") in REGISTRY.demo
