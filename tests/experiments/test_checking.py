"""What an examination finds of operators whose course is known, and what it tells where a part has no answer."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cells import DOUBLE, rotation
from torch import Tensor, nn

from settlepoint import FixedPoint, FixedSteps, Picard, Tolerance
from settlepoint import report as reports
from settlepoint.certify import Refused, Subject
from settlepoint.experiments import REGISTRY
from settlepoint.experiments.check_race import CONTENDERS, Grade, loosest
from settlepoint.experiments.check_words import advice, checks, sentence, summary
from settlepoint.experiments.checking import Examination, examine
from settlepoint.experiments.checkup import write_folder
from settlepoint.experiments.digits import DigitsScale
from settlepoint.experiments.experiment import Context, Results
from settlepoint.layers import TanhCell
from settlepoint.runs import Record, plain


def cell(gain: float = 0.6) -> tuple[TanhCell, Tensor, Tensor]:
    """A contraction in float64, its start and its input."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(10, 6, dtype=DOUBLE, generator=generator)
    return TanhCell(6, gain=gain, generator=generator, dtype=DOUBLE), torch.zeros_like(u), u


def settled(**options: object) -> Examination:
    T, x0, u = cell()
    return examine(Subject(T, (x0, u), depth=8, **options))  # pyright: ignore[reportArgumentType]


def spun(scale: float) -> Subject:
    """A rotation by 90 degrees about (1, 1), scaled: the residual changes by `scale` a step."""
    turn = rotation(scale)
    return Subject(lambda x: 1 + turn(x - 1), (torch.zeros(4, 2, dtype=DOUBLE),), depth=10)


def test_a_contraction_is_settling_proved_and_solved():
    found = settled()
    assert found.verdict.overall == "settling"
    assert found.certificate.counts() == {"proved": 10}
    assert all(check.passed for check in checks(found))
    assert found.own.converged == found.recommended.converged == 10
    assert found.told == ()
    words = sentence(found)
    assert words.startswith("SETTLING: 10 of 10 samples go on to contract behind the training depth of 8 (rate 0.")
    assert "10 proved within " in words
    assert "where the model's own Picard() takes " in words


def test_every_solver_is_in_the_table_once():
    names = [entry.name.removeprefix("own: ") for entry in settled().race]
    assert sorted(names) == sorted(CONTENDERS)
    damped = FixedPoint(cell()[0], Picard(0.3), FixedSteps(5), inject="input")
    race = examine(Subject(damped, (cell()[2],))).race
    assert {entry.name for entry in race} == {*CONTENDERS, "own: Picard(damping=0.3)"}


def test_the_race_is_won_by_rows_then_by_evaluations():
    race = examine(spun(1.1)).race  # Picard drifts away, others find the fixed point
    assert [e.converged for e in race] == sorted((e.converged for e in race), reverse=True)
    winners = [e.mean for e in race if e.converged == race[0].converged]
    assert winners == sorted(winners)
    assert race[-1].converged == 0


@pytest.mark.parametrize(("scale", "kind"), [(0.5, "settling"), (1.0, "marginal"), (1.1, "drifting")])
def test_rotations_are_judged_and_all_three_rates_see_them(scale, kind):
    """The Jacobian's eigenvalues are +-i scale: the trace, Arnoldi and the iterates agree on the factor."""
    found = examine(spun(scale))
    assert found.verdict.overall == kind
    assert set(found.rates) == {"from the trace", "spectral radius", "Koopman"}
    for rate in found.rates.values():
        assert rate.tolist() == pytest.approx([scale] * 4, rel=1e-5)
    assert checks(found)[0].passed == (kind == "settling")


def test_what_settles_until_the_depth_and_drifts_behind_it_is_drifting():
    factors = torch.tensor([0.4, 1.2], dtype=DOUBLE)
    start = torch.tensor([[1.0, 1e-5]], dtype=DOUBLE).repeat(5, 1)
    found = examine(Subject(lambda x: x * factors, (start,), depth=12))
    assert found.verdict.residual[12, 0] < found.verdict.residual[0, 0] / 1000
    assert sentence(found).startswith("DRIFTING: 5 of 5 samples drift away behind the training depth of 12 (rate 1.2 ")


def test_every_kind_of_sample_is_told():
    factors = torch.tensor([0.5, 0.5, -1.0, 1.3], dtype=DOUBLE)[:, None]  # -1 turns to and fro
    found = examine(Subject(lambda x, a: a * x, (torch.ones(4, 3, dtype=DOUBLE), factors), depth=8))
    assert sentence(found).startswith(
        "DRIFTING: 1 of 4 samples drift away behind the training depth of 8 (rate 1.3 a step), "
        "2 go on to contract (rate 0.5 a step), 1 neither contract nor drift (rate 1 a step)"
    )


def test_a_shift_has_no_fixed_point_and_none_is_near():
    """x + 1 in the plane moves by sqrt(2); its constant is 1, so that none is nearer than half of that."""
    found = examine(Subject(lambda x: x + 1, (torch.zeros(3, 2, dtype=DOUBLE),), depth=6))
    assert found.drift is not None
    assert found.drift.tolist() == pytest.approx([2**0.5] * 3, rel=1e-6)
    assert found.excluded is not None
    assert found.excluded.tolist() == pytest.approx([2**0.5 / 2] * 3, rel=1e-6)
    assert "moved by about 1.41, and none is nearer than 0.707; no solver converged" in sentence(found)
    assert "no solver converged" in advice(found)


def test_a_score_that_falls_is_told_though_residuals_fall():
    T, x0, u = cell()
    found = examine(Subject(T, (x0, u), depth=1, score=lambda x: 8 - float(x.norm())))
    assert found.verdict.overall == "drifting"
    words = sentence(found)
    assert words.startswith("DRIFTING: the score falls from ")
    assert "at 4 times the training depth of 1, though 10 of 10 samples go on to contract" in words


def test_a_score_that_is_no_number_is_told():
    assert "the score is nan at 4 times" in sentence(settled(score=lambda x: math.nan))


def test_the_recommended_tolerance_is_where_the_score_stays():
    found = settled(score=lambda x: float((x > 0).double().mean()))
    at = [grade.rtol for grade in found.grades]
    assert at == sorted(at, reverse=True)
    finer = found.grades[at.index(found.rtol) :]
    assert {grade.score for grade in finer} == {found.grades[-1].score}
    assert found.iterations >= found.grades[at.index(found.rtol)].p95
    assert f"sp.Tolerance(0, {found.rtol:g}" in advice(found)


def test_the_loosest_tolerance_must_hold_at_all_finer_ones():
    """By luck the first score is that of the last."""
    grades = [Grade(1e-1, 2.0, 97.0, 0.02), Grade(1e-2, 4.0, 90.0, 0.01), Grade(1e-3, 6.5, 97.0, 0.0)]
    assert loosest(grades) == (1e-3, 7)
    assert loosest([replace(grade, score=math.nan) for grade in grades]) == (1e-3, 7)
    assert loosest([Grade(1e-1, math.inf, math.nan, math.inf)]) == (1e-1, 0)


def test_an_operator_in_numpy_gets_all_that_needs_no_derivative():
    W = cell()[0].weight.detach().numpy()
    T = lambda x, u: torch.from_numpy(np.tanh(x.numpy() @ W.T + u.numpy()))  # noqa: E731
    found = examine(Subject(T, cell()[1:], depth=8))
    assert found.verdict.overall == "settling"
    assert found.recommended.converged == 10
    raised = {entry.name for entry in found.race if entry.raised}
    assert raised == {"NewtonKrylov()"}
    assert any(text.startswith("NewtonKrylov() could not be run: RuntimeError") for text in found.told)
    assert any(text.startswith("spectral radius: ") for text in found.told)
    assert "proved" not in found.certificate.counts()


def test_a_derivative_that_is_not_that_of_the_values_gives_no_rate():
    T, x0, u = cell()
    found = examine(Subject(lambda x, u: T(x.detach(), u), (x0, u), depth=8))
    assert "spectral radius" not in found.rates
    assert any("detaches, rounds or branches" in text for text in found.told)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1)), r"Dropout is in training.*call \.eval\(\)"),
        (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), r"BatchNorm mixes the rows.*call \.eval\(\)"),
        (lambda x: x / 2 + torch.rand_like(x), "it is random or has a state"),
        (lambda x: nn.functional.dropout(x / 2, 0.5), "it is random or has a state"),
        (lambda x: x / 2 + x.mean(0), "the rows depend on each other"),
    ],
)
def test_what_has_no_course_of_its_own_is_refused(operator, message):
    with pytest.raises(Refused, match=message):
        examine(Subject(operator, (torch.ones(9, 6),)))


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda x: x.mul_(0.5), "operator must not change its input in place"),
        (lambda x: x[:, :2], r"must have the shape of x, \(9, 6\), got \(9, 2\)"),
        (lambda x: x.double(), "must have the dtype of x"),
        (nn.Linear(3, 3), "the model raised RuntimeError: mat1 and mat2"),
    ],
)
def test_what_is_no_operator_is_refused(operator, message):
    with pytest.raises(ValueError, match=message):
        examine(Subject(operator, (torch.ones(9, 6),)))


def test_what_raises_later_is_told_as_the_models():
    calls: list[int] = []

    def worn(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 15:
            raise OSError("the disk went away")
        return x / 2

    with pytest.raises(ValueError, match=r"the model raised OSError\('the disk went away'\)"):
        examine(Subject(worn, (torch.ones(9, 6),)))


@pytest.mark.parametrize("shape", [(0, 4), (5, 0)])
def test_there_must_be_something_to_examine(shape):
    with pytest.raises(ValueError, match="inputs must hold at least one sample"):
        examine(Subject(lambda x: x / 2, (torch.zeros(shape),)))


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 1.0, math.nan])
def test_a_tolerance_is_relative(tolerance):
    with pytest.raises(ValueError, match=r"tolerance is relative and must lie in \(0, 1\)"):
        examine(spun(0.5), tolerance=tolerance)


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float64, 1e-9), (torch.complex128, 1e-9), (torch.float32, 1e-5), (torch.float16, 1e-2)],
)
def test_the_tolerance_suits_the_dtype(dtype, rtol):
    found = examine(Subject(lambda x: 0.5 * x + 1, (torch.zeros(3, 2, dtype=dtype),), depth=4))
    assert found.tolerance.rtol == rtol
    assert found.recommended.converged == 3


def test_states_of_several_tensors_and_single_rows():
    pair = (torch.zeros(5, 3, dtype=DOUBLE), torch.ones(5, 2, dtype=DOUBLE))
    swap = lambda x: (0.5 * x[0] + 0.1 * x[1].sum(1, keepdim=True), 0.3 * x[1].cos())  # noqa: E731
    assert examine(Subject(swap, (pair,), depth=4)).recommended.converged == 5
    alone = examine(Subject(torch.cos, (torch.ones(3, dtype=DOUBLE),), depth=20))
    assert alone.certificate.counts() == {"proved": 1}


def test_few_rows_are_the_first_ones():
    T, x0, u = cell()
    part, whole = examine(Subject(T, (x0, u), depth=8), rows=3), settled()
    assert len(part.best.status) == 3
    assert part.verdict.rate.tolist() == pytest.approx(whole.verdict.rate[:3].tolist(), rel=1e-6)


def test_a_model_keeps_its_solver_stop_and_report():
    T, _, u = cell()
    layer = FixedPoint(T, Picard(0.2), Tolerance(1e-3), inject="input")
    found = examine(Subject(nn.Sequential(layer, nn.Linear(6, 2, dtype=DOUBLE)), (u,), score=lambda y: float(y.sum())))
    assert repr(found.posed.solver) == "Picard(damping=0.2)"
    assert layer.stop == Tolerance(1e-3)
    assert layer.last is not None
    assert not any(p.grad is not None for p in layer.parameters())


def test_the_run_folder_makes_a_report_that_says_it_first(tmp_path: Path):
    found = settled(score=lambda x: float(x.mean()))
    folder = write_folder(found, tmp_path / "run", 1.0)
    page = reports.write([folder], tmp_path / "page.html").read_text()
    assert sentence(found).replace("'", "&#39;") in page[: page.index("checks passed")]
    assert page.count("<svg") == 5
    lines = [json.loads(line) for line in (folder / "result.jsonl").read_text().splitlines()]
    assert len({line["cell"] for line in lines}) == len(lines)
    assert {entry.name for entry in found.race} < {line["cell"] for line in lines}
    assert all(line["cpu_seconds"] >= 0 for line in lines)
    course = lines[0]["curves"]["residual median"]
    assert len(course["x"]) == 4 * found.verdict.depth + 1
    assert lines[0]["curves"]["training depth"]["x"] == [8.0, 8.0]


def test_reasons_of_refusals_are_in_the_notes(tmp_path: Path):
    """Every point of the plane is a fixed point: there, but not alone, and no Newton step leads to it."""
    start = torch.randn(12, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    found = examine(Subject(lambda x: 1 * x, (start,), depth=5))
    folder = write_folder(found, tmp_path / "run", 1.0)
    lines = {line["cell"]: line for line in map(json.loads, (folder / "result.jsonl").read_text().splitlines())}
    assert lines["refused"]["metrics"]["count"] == 12
    assert any("1 is an eigenvalue of J" in note for note in lines["refused"]["notes"])
    assert not checks(found)[2].passed
    assert "1 is an eigenvalue of J" in checks(found)[2].detail
    assert "12 refused a certificate" in sentence(found)


@pytest.mark.parametrize(
    ("operator", "words"),
    [(lambda x: x * math.nan, "until values overflow"), (lambda x: x + 1, "no fixed point"), (lambda x: 0 * x, "")],
)
def test_a_report_can_be_drawn_where_nothing_converges_or_all_is_exact(operator, words, tmp_path: Path):
    """No solver's bar is finite, or no residual can be shown on a logarithmic axis."""
    found = examine(Subject(operator, (torch.ones(3, 2, dtype=DOUBLE),)))
    assert words in sentence(found)
    reports.write([write_folder(found, tmp_path / "run", 1.0)], tmp_path / "page.html")


def test_the_summary_is_json():
    found = json.loads(json.dumps(plain(summary(settled()))))
    assert found["rows_by_certificate"] == {"proved": 10}
    assert len(found["radius"]) == 10
    assert found["residual_at_the_depth"] > 0
    assert set(found["seconds"]) >= {"certificates", "tolerances"}


def test_progress_tells_every_part():
    said: list[tuple[str, int, int]] = []
    T, x0, u = cell()
    examine(Subject(T, (x0, u)), say=lambda *step: said.append(step))
    assert [done for _, done, _ in said] == list(range(6))
    assert {of for _, _, of in said} == {6}


def test_the_digits_model_is_examined_in_the_demo():
    experiment = REGISTRY.load("check-digits")
    assert ("check-digits", "smoke") in REGISTRY.demo
    scale = DigitsScale(width=12, epochs=1, batch=350)
    found = experiment.run("equilibrium", 0, Context(scale))
    assert {column.key for column in experiment.tables[0].columns} <= set(found["metrics"])
    assert {name for figure in experiment.figures for name in figure.curves} <= set(found["curves"])
    assert found["notes"][0].startswith(("SETTLING: ", "MARGINAL: ", "DRIFTING: "))
    records = [Record("equilibrium", 0, {**found["metrics"], "settling": 397.0, "proved": 397.0})]
    assert len(experiment.checks(Results("smoke", scale, records))) == 5
    assert not any(check.passed for check in experiment.checks(Results("smoke", scale, [])))
