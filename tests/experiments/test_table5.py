"""Table 5 on a small made-up graph: every row, the selection, the thresholds, seeds together and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data
from typer.testing import CliRunner

from settlepoint.cli import app
from settlepoint.experiments import REGISTRY, citations
from settlepoint.experiments.citations import Citations
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.launch import Request, launch
from settlepoint.experiments.pign_iterations import EXPERIMENT as ITERATIONS
from settlepoint.experiments.pign_iterations import IterationsScale
from settlepoint.experiments.scale import UsageError
from settlepoint.experiments.table5 import AT_LEAST, EXPERIMENT, FLOOR, WITHIN, Table5Scale
from settlepoint.experiments.table5_models import ROWS, TRAINED
from settlepoint.experiments.table5_noise import EXPERIMENT as NOISE
from settlepoint.experiments.table5_noise import NoiseScale
from settlepoint.experiments.table5_select import CHOOSE, SELECTION, SelectScale, selected
from settlepoint.runs import Record

TINY = Table5Scale(seeds=2, hidden=4, epochs=3, thresholds=False)


def made_up(folder: Path | None, name: str) -> Data:
    """60 nodes of 6 or 7 classes that mostly link to their own, with words; half of the links cross."""
    count = {"Cora": 7, "CiteSeer": 6}[name]
    gen = torch.Generator().manual_seed(0)
    y = torch.arange(60) % count
    x = (torch.rand(60, 21, generator=gen) + (y[:, None] == torch.arange(21) % count) > 0.8).float()
    pairs = torch.randint(60, (2, 300), generator=gen)
    pairs = pairs[:, (y[pairs[0]] == y[pairs[1]]) | (torch.rand(300, generator=gen) < 0.1)]
    pairs = pairs[:, pairs[0] != pairs[1]]
    edges = torch.cat((pairs, pairs.flip(0)), 1).unique(dim=1)
    part = torch.arange(60) // count % 5
    return Data(x=x, y=y, edge_index=edges, train_mask=part < 2, val_mask=part == 2, test_mask=part > 2)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(citations, "planetoid", made_up)
    citations._task.cache_clear()
    yield
    citations._task.cache_clear()


def context(scale: object) -> Context:
    return Context(scale)


@pytest.mark.parametrize("cell", EXPERIMENT.cells(TINY))
def test_every_row_fills_its_columns(cell: str) -> None:
    found = EXPERIMENT.run_together(cell, [0, 1], context(TINY))
    assert len(found) == 2
    keys = {"cora", "cora-50", "citeseer", "citeseer-50"}
    for one in found:
        assert keys <= set(one["metrics"])
        assert all(0 <= one["metrics"][key] <= 100 for key in keys)
        assert cell == FLOOR or {f"{key} validation" for key in keys} <= set(one["metrics"])


def test_a_seed_is_the_same_whoever_trains_beside_it() -> None:
    together = EXPERIMENT.run_together("gcn", [0, 1, 2], context(TINY))
    alone = EXPERIMENT.run("gcn", 1, context(TINY))
    assert together[1]["metrics"] == pytest.approx(alone["metrics"], abs=1e-6)


def test_every_row_that_chooses_has_as_many_candidates() -> None:
    assert {len(ROWS[name].candidates) for name in CHOOSE} == {2 * len(TRAINED)}
    for name in CHOOSE:
        settings = [json.dumps(candidate, sort_keys=True) for candidate in ROWS[name].candidates]
        assert len(set(settings)) == len(settings)


def test_the_recorded_choices_are_candidates_and_the_best_of_them() -> None:
    recorded = selected()
    assert recorded["command"].startswith("settle run table5 --select")
    for column in TINY.datasets:
        for name in CHOOSE:
            choice = recorded["choices"][column][name]
            assert [candidate["settings"] for candidate in choice["candidates"]] == ROWS[name].candidates
            best = max(choice["candidates"], key=lambda candidate: (candidate["validation"], -candidate["loss"]))
            assert choice["settings"] == best["settings"]
            assert choice["validation"] == best["validation"]


def test_a_selection_is_run_recorded_and_used(tmp_path: Path) -> None:
    out, chosen = tmp_path / "select", tmp_path / "select" / "choices.json"
    scale = ["--set", "models=sgc", "--set", "datasets=cora", "--set", "epochs=3", "--set", "hidden=4"]
    ran = CliRunner().invoke(app, ["run", "table5", "--select", "--scale", "smoke", "--out", str(out), *scale])
    assert ran.exit_code == 0, ran.output
    found = json.loads(chosen.read_text())["choices"]["cora"]["sgc"]
    assert len(found["candidates"]) == 2 * len(TRAINED)
    used = ["--set", "models=sgc", "--set", "datasets=cora", "--set", f"choices={chosen}"]
    table = ["run", "table5", "--scale", "smoke", "--out", str(tmp_path / "table"), *used]
    CliRunner().invoke(app, table)
    spec = json.loads((tmp_path / "table" / "spec.json").read_text())
    assert spec["recorded"]["choices"]["cora"]["sgc"] == found
    assert "settle run table5 --scale smoke" in (tmp_path / "table" / "report.html").read_text()


def test_what_was_not_chosen_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "choices.json"
    empty.write_text('{"command": "", "choices": {}}')
    with pytest.raises(ValueError, match="no settings were chosen for 'sgc' on 'cora'; make them with: settle run"):
        EXPERIMENT.run("sgc", 0, context(Table5Scale(epochs=1, datasets=("cora",), choices=str(empty))))
    for text in ("not json", "[]", None):
        other = tmp_path / f"other {text}.json"
        if text is not None:
            other.write_text(text)
        with pytest.raises(UsageError, match=r"choices must be a choices.json of settle run table5 --select, got '"):
            selected(str(other))
    for scale, message in (
        (Table5Scale(models=("nets",)), "models must be among majority class, mlp, .*, got 'nets'"),
        (Table5Scale(datasets=("pubmed",)), "datasets must be among cora, .*, got 'pubmed'"),
    ):
        with pytest.raises(UsageError, match=message):
            EXPERIMENT.cells(scale)
    with pytest.raises(UsageError, match="models must be among"):
        SELECTION.cells(SelectScale(models=("gcn",)))


def test_resuming_gives_the_numbers_of_one_run(tmp_path: Path) -> None:
    """The seeds of a cell run together again when one is missing, and only what was missing is written."""
    request = Request(scale="smoke", settings={"models": "gcn", "epochs": "3"}, out=tmp_path / "run")
    whole = launch(EXPERIMENT, request).ran
    path = tmp_path / "run" / "result.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n")
    resumed = launch(EXPERIMENT, Request(**{**vars(request), "mode": "resume"})).ran
    lines = path.read_text().splitlines()
    assert lines[0] == first
    assert len(lines) == 2
    assert json.loads(lines[1])["metrics"] == json.loads(second)["metrics"]
    assert [record.metrics for record in resumed.records] == [record.metrics for record in whole.records]


def _table(**changes: float) -> Results:
    """A table that meets every threshold, but for the changes "row column"."""
    scale = Table5Scale(models=("gcn", "gat", "gcn centred", "pign-gcn settled", "pign-gat settled"))
    lines: dict[str, dict[str, float]] = {}
    for row in scale.models:
        lines[row] = {key: value for name in scale.datasets for key, value in ((name, 30.0), (f"{name} floor", 20.0))}
        lines[row] |= {name: sum(bounds) / 2 for name, bounds in WITHIN.get(row, {}).items()}
        lines[row] |= {name: bound + 0.1 for name, bound in AT_LEAST.get(row, {}).items()}
    for key, value in changes.items():
        row, name = key.split("/")
        lines[row][name] = value
    return Results("cpu", scale, [Record(row, 0, metrics) for row, metrics in lines.items()])


@pytest.mark.parametrize(
    ("key", "bad"),
    [("gcn/cora", 79.9), ("gcn/citeseer", 72.6), ("gat/cora", 83.6), ("gat/citeseer", 69.8),
     ("pign-gcn settled/cora", 81.9), ("pign-gcn settled/citeseer", 70.2), ("pign-gcn settled/cora-50", 68.9),
     ("pign-gcn settled/citeseer-50", 47.9), ("pign-gat settled/cora-50", 63.9), ("pign-gat settled/citeseer-50", 42.9),
     ("gcn centred/cora-50", 61.2), ("gcn centred/citeseer-50", 40.2), ("gcn centred/cora", 19.0)],
)  # fmt: skip
def test_each_threshold_can_fail(key: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_table()))
    failed = [check for check in EXPERIMENT.checks(_table(**{key: bad})) if not check.passed]
    assert len(failed) == 1


def test_noise_is_drawn_by_graph_share_and_number() -> None:
    here = context(TINY)
    clean, first, again, other = (
        Citations("Cora", share, mask).task(here).x for share, mask in ((0, 0), (0.5, 1), (0.5, 1), (0.5, 2))
    )
    assert clean.is_sparse
    assert first is again
    assert not torch.equal(first, other)
    raised = first - clean.to_dense()
    assert int((raised > 0.5).sum()) == first.numel() // 2


def test_the_noise_sweep_measures_levels_and_kinds() -> None:
    scale = NoiseScale(seeds=1, hidden=4, epochs=2, models=("sgc",), levels=(0.0, 0.5), starts=2)
    for cell in NOISE.cells(scale):
        found = NOISE.run(cell, 0, context(scale))
        assert set(found["metrics"]) == {"drop-in 0", "drop-in 0.5", "flips 0", "flips 0.5"}
        assert found["curves"]["flips"]["x"] == [0.0, 0.5]
        assert found["metrics"]["drop-in 0"] == found["metrics"]["flips 0"]


@pytest.mark.parametrize("cell", ITERATIONS.cells(IterationsScale()))
def test_the_sweep_over_iterations(cell: str) -> None:
    found = ITERATIONS.run(cell, 0, context(IterationsScale(hidden=4, epochs=3)))
    keys = {column.key for table in ITERATIONS.tables for column in table.columns}
    assert keys <= set(found["metrics"])
    if cell != "published":
        assert found["metrics"]["Anderson residual 4K"] < 0.1 * found["metrics"]["Picard residual 4K"]
        assert found["metrics"]["Picard residual 4K"] < 0.1 * found["metrics"]["Picard residual 1K"]


def test_they_are_registered() -> None:
    assert [REGISTRY.load(name).id for name in ("table5", "table5-noise", "pign-iterations")] == [
        EXPERIMENT.id, NOISE.id, ITERATIONS.id,
    ]  # fmt: skip
