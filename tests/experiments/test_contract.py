"""The contract of experiments: typed overrides, checks that fail on nan, results per cell, the registry."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.toy import Toy, ToyScale

from settlepoint.experiments import Registry, UsageError
from settlepoint.experiments.bench import EXPERIMENT as BENCH
from settlepoint.experiments.experiment import Check, Results, Scale, above_trivial, curve
from settlepoint.experiments.launch import Request, launch, resolve
from settlepoint.runs import Record


def test_overrides_are_typed() -> None:
    scale = ToyScale().override({"steps": "3", "noise": "1e-2", "rates": "0.5, 0.25", "raises": "rate 1"})
    assert scale == ToyScale(steps=3, noise=0.01, rates=(0.5, 0.25), raises="rate 1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"stepz": "3"}, "no field 'stepz'.*interrupts, noise, raises, rates, seeds, steps"),
        ({"steps": "3.5"}, r"steps must be int, got '3\.5'"),
        ({"noise": "much"}, "noise must be float, got 'much'"),
        ({"rates": "0.1,x"}, "rates must be tuple.*got '0.1,x'"),
        ({"seeds": "0"}, "seeds must be at least 1, got 0"),
    ],
)
def test_wrong_overrides_are_errors(setting: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToyScale().override(setting)


def test_every_field_is_documented() -> None:
    assert all(ToyScale.help().values())
    assert all(Request.help().values())


@pytest.mark.parametrize("check", [Check.at_least, Check.at_most])
def test_nan_fails_a_check(check: object) -> None:
    assert callable(check)
    assert not check("x", math.nan, 1.0).passed
    assert not Check.within("x", math.nan, 0.0, 1.0).passed


def test_checks_hold_at_their_bounds() -> None:
    assert Check.at_least("x", 1.0, 1.0).passed
    assert Check.at_most("x", 1.0, 1.0).passed
    assert Check.within("x", 1.0, 1.0, 2.0).passed
    assert not Check.at_most("x", 1.1, 1.0).passed


def results(*records: Record) -> Results:
    return Results("smoke", Scale(), records)


def test_failed_seeds_enter_no_mean() -> None:
    found = results(Record("a", 0, {"m": 1.0}), Record("a", 1, error="boom"), Record("b", 0, error="boom"))
    assert found.cells == ["a"]
    assert found.mean("a", "m") == 1.0
    assert math.isnan(found.mean("b", "m"))
    assert found.total("m") == 1.0


def test_a_cell_below_its_trivial_predictor_fails() -> None:
    found = results(Record("good", 0, {"acc": 80.0, "base": 30.0}), Record("bad", 0, {"acc": 30.0, "base": 30.0}))
    fixed = above_trivial(found, "acc", 30.0, predictor="majority class")
    named = above_trivial(found, "acc", "base", predictor="majority class")
    error = above_trivial(found, "acc", 50.0, predictor="mean", lower=True)
    assert [c.passed for c in fixed] == [c.passed for c in named] == [True, False]
    assert [c.passed for c in error] == [False, True]


def test_a_curve_has_as_many_x_as_y() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        curve([1, 2], [1])


def test_names_with_commas_are_quoted() -> None:
    scale = BENCH.scales["smoke"].override({"rows": '"certificate, 100 unknowns, ms a row", import beyond torch'})
    assert scale.rows == ("certificate, 100 unknowns, ms a row", "import beyond torch")


def test_unknown_experiments_and_scales_name_the_valid_ones() -> None:
    with pytest.raises(UsageError, match="no experiment 'nope'; the experiments are toy"):
        Registry({"toy": "tests.toy"}).load("nope")
    with pytest.raises(UsageError, match="no scale 'huge'; its scales are smoke, cpu"):
        resolve(Toy(), Request(scale="huge"))
    assert Registry({"toy": "tests.toy"}).load("toy").title == "A toy"


def test_launch_judges_by_the_checks(tmp_path) -> None:
    good = launch(Toy(), Request(scale="smoke", out=tmp_path / "good"))
    off = launch(Toy(), Request(scale="smoke", out=tmp_path / "off", settings={"target": "200"}))
    raised = launch(Toy(), Request(scale="smoke", out=tmp_path / "raised", settings={"raises": "rate 0.6"}))
    assert [run.exit_code for run in (good, off, raised)] == [0, 1, 3]
    assert [failure["cell"] for failure in raised.summary()["failed"]] == ["rate 0.6"] * 2
    assert len(raised.ran.records) == 6


def test_a_check_that_raises_is_a_failed_check(tmp_path) -> None:
    class Clumsy(Toy):
        def checks(self, results: Results) -> list[Check]:
            raise KeyError("no such cell")

    run = launch(Clumsy(), Request(scale="smoke", out=tmp_path / "run"))
    assert run.exit_code == 1
    assert "KeyError" in str(run.checks[0].measured)


def test_threads_must_be_positive(tmp_path) -> None:
    with pytest.raises(ValueError, match="threads and jobs must be at least 1"):
        launch(Toy(), Request(scale="smoke", out=tmp_path, threads=0))


def test_what_is_missing_is_told_once_and_leaves_no_folder(tmp_path: Path) -> None:
    """Data and packages are looked for before the first cell."""

    def absent(context: object) -> None:
        raise ImportError('toys need wood: pip install "settlepoint[wood]"')

    class Needy(Toy):
        needs = (absent,)

    with pytest.raises(UsageError, match="toy cannot start: toys need wood"):
        launch(Needy(), Request(scale="smoke", out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
