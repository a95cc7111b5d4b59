"""The Cora experiment end to end on a small made-up graph, and its checks."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from settlepoint.data import DataError
from settlepoint.experiments import REGISTRY, pign_cora
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.launch import Request, launch
from settlepoint.experiments.pign_cora import EXPERIMENT, ITERATED, MODEL, CoraScale
from settlepoint.runs import Record

TINY = CoraScale(hidden=8, epochs=5)


def made_up(folder: Path | None, name: str) -> Data:
    """70 nodes of 7 classes that mostly link to their own, with word counts; half of the links cross."""
    gen = torch.Generator().manual_seed(0)
    y = torch.arange(70) % 7
    x = (torch.rand(70, 21, generator=gen) + (y[:, None] == torch.arange(21) % 7) > 0.8).float()
    pairs = torch.randint(70, (2, 400), generator=gen)
    pairs = pairs[:, (y[pairs[0]] == y[pairs[1]]) | (torch.rand(400, generator=gen) < 0.1)]
    edges = torch.cat((pairs, pairs.flip(0)), 1).unique(dim=1)
    part = torch.arange(70) // 7 % 5
    return Data(x=x, y=y, edge_index=edges, train_mask=part < 2, val_mask=part == 2, test_mask=part > 2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pign_cora, "planetoid", made_up)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("cell", EXPERIMENT.cells(TINY))
def test_every_cell_gives_what_its_tables_show(cell: str) -> None:
    torch.manual_seed(0)
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    metrics = found["metrics"]
    assert 0 <= metrics["accuracy"] <= 100
    assert metrics["evals"] == {"mlp": 0, "sgc": 2, "gcn": 2, "published": 10, MODEL: 10}.get(cell, metrics["evals"])
    keys = {c.key for table in EXPERIMENT.tables for c in table.columns if not table.rows or cell in table.rows}
    if cell in ITERATED:
        assert keys - set(metrics) <= ({"direct distance"} if cell == "published" else set())
        assert metrics["false claims"] == 0
    if cell == MODEL:
        assert metrics["direct distance"] <= 1e-9
        assert metrics["settles"] == 1
        assert metrics["anderson evals"] < metrics["picard evals"] <= 175
        assert {name for figure in EXPERIMENT.figures for name in figure.curves} - {"accuracy"} <= set(found["curves"])


@pytest.mark.usefixtures("small")
def test_a_seed_gives_the_same_numbers_twice() -> None:
    first, second = (EXPERIMENT.run(MODEL, 3, Context(TINY))["metrics"] for _ in range(2))
    first.pop("training seconds"), second.pop("training seconds")
    assert first == second


def _records(model: str = MODEL, **changes: float) -> Results:
    good = {"accuracy": 82.5, "direct distance": 1e-9, "picard evals": 150, "anderson evals": 45, "false claims": 0}
    lines = {"gcn": {"accuracy": 81.0, "majority": 13.0}, MODEL: {**good, "majority": 13.0}}
    lines[model].update(changes)
    return Results("cpu", CoraScale(), [Record(cell, 0, metrics) for cell, metrics in lines.items()])


@pytest.mark.parametrize(
    ("model", "metric", "bad"),
    [("gcn", "accuracy", 79.9), ("gcn", "accuracy", 83.1), (MODEL, "accuracy", 81.9), (MODEL, "accuracy", math.nan),
     (MODEL, "direct distance", 1e-6), (MODEL, "picard evals", 176), (MODEL, "anderson evals", 61),
     (MODEL, "false claims", 1), ("gcn", "accuracy", 82.9), ("gcn", "majority", 90.0)],
)  # fmt: skip
def test_each_claim_can_fail(model: str, metric: str, bad: float) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_records()))
    assert not all(check.passed for check in EXPERIMENT.checks(_records(model, **{metric: bad})))


def test_missing_cells_fail() -> None:
    assert not any(check.passed for check in EXPERIMENT.checks(Results("cpu", CoraScale(), [])))


def test_it_is_registered() -> None:
    assert REGISTRY.load("pign-cora") is EXPERIMENT
    with pytest.raises(ValueError, match=r"mlp, sgc, gcn, published.*got 'gat'"):
        pign_cora.build("gat", (3, 4, 2), TINY)


def test_without_the_data_every_cell_says_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ind\.cora"):
        EXPERIMENT.run("gcn", 0, Context(TINY, tmp_path))


@pytest.mark.slow
def test_the_real_graph(tmp_path: Path) -> None:
    folder = os.environ.get("SETTLEPOINT_DATA")
    if not folder:
        pytest.skip("set SETTLEPOINT_DATA to the folder of the data sets")
    run = launch(EXPERIMENT, Request(scale="smoke", data_dir=Path(folder), out=tmp_path / "run"))
    assert run.exit_code == 0, run.summary()["checks"]
