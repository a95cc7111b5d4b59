"""fno-deq-darcy end to end on made-up fields at a tiny scale, its measures by hand, and its checks."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from settlepoint import Equation, FixedPoint, FixedSteps
from settlepoint.data import Darcy, DataError, Fields
from settlepoint.experiments import REGISTRY, darcy_task, fno_deq_darcy
from settlepoint.experiments.darcy_networks import (
    DEPTHS,
    NETWORKS,
    DarcyScale,
    build,
    by_evaluations,
    parameters,
    settled,
)
from settlepoint.experiments.darcy_task import Task, mean_errors, refined, relative, ridge_errors, task
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.fno_deq_darcy import EXPERIMENT, GRIDS, KINDS, MODEL
from settlepoint.experiments.launch import Request, launch
from settlepoint.layers import Frame
from settlepoint.models import FNODEQ
from settlepoint.runs import Record

TINY = DarcyScale(
    train=8, val=2, width=3, modes=2, own_width=3, own_modes=2, layers=2, evals=3, epochs=1, longer=2, batch=4,
    thresholds=False,
)  # fmt: skip


def made_up(folder: Path | None) -> Darcy:
    """Bumps whose height is the share of true points: 10 of 8 x 8 to train, 4 to test, the same on 16 x 16."""
    draw = torch.Generator().manual_seed(0)

    def fields(x: Tensor) -> Fields:
        n = x.shape[-1]
        bump = torch.sin(math.pi * torch.arange(n) / n)
        return Fields(x, x.float().mean((1, 2), keepdim=True) * bump[:, None] * bump)

    train, fine = torch.rand(10, 8, 8, generator=draw) > 0.5, torch.rand(4, 16, 16, generator=draw) > 0.5
    return Darcy(fields(train), fields(fine[:, ::2, ::2]), fields(fine))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(darcy_task, "loaded", made_up)
    monkeypatch.setattr(fno_deq_darcy, "loaded", made_up)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("cell", EXPERIMENT.cells(TINY))
def test_every_cell_gives_what_its_tables_show(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    metrics = found["metrics"]
    wanted = {f"{kind} {part}" for kind in KINDS for part in (*GRIDS, "val")} | {"evals"}
    wanted |= {"parameters", "training seconds"} if cell in NETWORKS else set()
    assert wanted <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["mean clean 16"] == metrics["mean noisy 16"]
    if cell == MODEL:
        assert {column.key for table in EXPERIMENT.tables for column in table.columns} <= set(metrics)
        assert {name for figure in EXPERIMENT.figures[:2] for name in figure.curves} <= set(found["curves"])
        assert metrics["false claims"] == 0
        assert metrics["evals"] == metrics["clean 16 evals"]
        assert len(found["notes"]) == 4
        assert "CONVERGED" in found["notes"][0]
    elif cell in NETWORKS:
        assert (
            metrics["evals"]
            == {"fno": 2, "fno long": 2, "gated": 2, "gated long": 2, "tied": 2, "tied deep": 3, "unrolled": 3}[cell]
        )


@pytest.mark.usefixtures("small")
def test_it_runs_from_the_command_line_and_again_with_the_same_numbers(tmp_path: Path) -> None:
    settings = {name: str(getattr(TINY, name)) for name in ("train", "val", "width", "modes", "epochs", "batch")}
    runs = [launch(EXPERIMENT, Request(scale="smoke", out=tmp_path / name, settings=settings)) for name in "ab"]
    assert [run.exit_code for run in runs] == [0, 0]
    first, second = ({record.cell: record.metrics["noisy 16"] for record in run.ran.records} for run in runs)
    assert first == second
    assert first["fno"] != first["fno long"]


def records(**changes: float) -> Results:
    """Results in which all checks hold, but for the changes, of the model."""
    names = [f"{kind} {grid}" for kind in KINDS for grid in GRIDS]
    common = {"parameters": 100.0, **{f"mean {name}": 40.0 for name in names}}
    model = {name: 9.0 for name in names} | {f"{name} settled": 50.0 for name in names} | {"false claims": 0.0}
    rows = [Record(MODEL, 0, common | model | {key.replace("_", " "): value for key, value in changes.items()})]
    rows += [Record(cell, 0, common | {name: 11.0 for name in names}) for cell in ("fno", "fno long")]
    return Results("cpu", DarcyScale(), rows)


def test_each_claim_can_fail() -> None:
    assert all(check.passed for check in EXPERIMENT.checks(records()))
    for bad in (
        {"clean_16": 11.0}, {"noisy_16": 11.0}, {"clean_32": 11.0}, {"noisy_32": math.nan}, {"parameters": 106.0},
        {"noisy_32_settled": 49.0}, {"false_claims": 1.0}, {"clean_16": 41.0},
    ):  # fmt: skip
        assert not all(check.passed for check in EXPERIMENT.checks(records(**bad))), bad
    assert not any(check.passed for check in EXPERIMENT.checks(Results("cpu", DarcyScale(), []))[:4])


def test_networks_are_of_one_size() -> None:
    """Within 5 % of each other, at every scale that makes the claim."""
    for scale in (EXPERIMENT.scales["cpu"], EXPERIMENT.scales["paper"]):
        sizes = [parameters(build(cell, scale)) for cell in NETWORKS]
        assert max(sizes) <= 1.05 * min(sizes)
    with pytest.raises(ValueError, match=r"cell must be one of fno, .*fno-deq, got 'unet'"):
        build("unet", TINY)


def test_the_error_by_hand() -> None:
    found, y = torch.zeros(2, 1, 1, 2), torch.tensor([[[[3.0, 4.0]]], [[[1.0, 0.0]]]])
    assert float(relative(found, y)) == 1.0
    found[0, 0, 0, 0] = 3.0  # the first sample: 4 of 5
    assert float(relative(found, y)) == pytest.approx(0.9)


def test_refined_is_exact_for_what_is_linear() -> None:
    """1 - s is 0 on the edge behind the last point."""
    s = lambda n: 1 - torch.arange(n) / n  # noqa: E731
    y = (s(4)[:, None] * s(4))[None, None]
    torch.testing.assert_close(refined(y)[0, 0], s(8)[:, None] * s(8))


def linear_task(noise: float = 0.0) -> Task:
    draw = torch.Generator().manual_seed(3)
    weight = torch.randn(16, 16, generator=draw)

    def fields(count: int, n: int = 4) -> Fields:
        x = torch.randn(count, 1, n, n, generator=draw)
        return Fields(x, (x.flatten(1) @ weight + 2.0).reshape(x.shape) if n == 4 else x)

    return Task(fields(400), fields(20), fields(20), fields(20, 8))


def test_ridge_finds_a_linear_map() -> None:
    data = linear_task()
    found = ridge_errors(data)
    assert found["16"] < 1.0  # the smallest ridge, 1, of 400 samples
    assert mean_errors(data)["16"] > 50.0


@pytest.mark.usefixtures("small")
def test_noise_is_what_is_named_and_the_test_set_is_apart() -> None:
    clean, noisy = (task(None, train=8, val=2, noise=noise, seed=0) for noise in (0.0, 0.5))
    assert set(clean.train.x.unique().tolist()) == {-1.0, 1.0}
    difference = noisy.fine.x - clean.fine.x
    assert float(difference.std()) == pytest.approx(0.5, rel=0.1)  # 1,024 draws
    assert torch.equal(noisy.test.y, clean.test.y)
    other = task(None, train=8, val=2, noise=0.5, seed=1)
    assert not torch.equal(other.test.x, noisy.test.x)
    assert torch.equal(clean.train.x, task(None, train=8, val=2, noise=0.0, seed=1).train.x)
    assert float(clean.train.y.std()) == pytest.approx(1.0)
    both = torch.cat((clean.train.x, clean.val.x)).flatten(1)
    assert len(both.unique(dim=0)) == 10  # training and validation share no sample


class Halving(torch.nn.Module):
    """z / 2 + u: rate 1/2."""

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        return z / 2 + u


def test_settled_measures_the_rate() -> None:
    net = FNODEQ(Frame((1, 2, 1), padding=0.0), FixedPoint(Halving(), inject="input"))
    part = Fields(torch.ones(3, 1, 4, 4), torch.ones(3, 1, 4, 4))
    net.settle.stop = fno_deq_darcy.SERVED
    net(part.x)
    found, each, counts = settled(net, part)
    assert found["rate"] == pytest.approx(0.5, abs=1e-3)
    assert found["settled"] == 3
    assert found["false claims"] == 0
    assert each == [int(found["evals max"])] * 3
    assert counts == {"CONVERGED": 3}
    falling = by_evaluations(net, part, "halving")
    assert len(falling["y"]) == len(DEPTHS)
    assert net.settle.stop is fno_deq_darcy.SERVED


def test_a_false_claim_is_seen() -> None:
    """A solve that ends after one step says so; called converged, it would be found out."""
    from dataclasses import replace

    net = FNODEQ(Frame((1, 2, 1), padding=0.0), FixedPoint(Halving(), stop=FixedSteps(1), inject="input"))
    part = Fields(torch.ones(3, 1, 4, 4), torch.ones(3, 1, 4, 4))
    net(part.x)
    assert net.settle.last is not None
    net.settle.last = replace(net.settle.last, status=torch.zeros(3, dtype=torch.int64))
    assert settled(net, part)[0]["false claims"] == 3
    assert isinstance(net.posed(part.x)[0], Equation)


def test_it_is_registered_and_says_which_files_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert REGISTRY.load("fno-deq-darcy") is EXPERIMENT
    json.dumps([table.caption for table in EXPERIMENT.tables])
    monkeypatch.delenv("SETTLEPOINT_DATA", raising=False)
    with pytest.raises(DataError, match=r"DIR/neuralop/darcy_test_16.pt"):
        darcy_task.darcy()


@pytest.mark.skipif(not os.environ.get("SETTLEPOINT_DATA"), reason="needs SETTLEPOINT_DATA with neuralop in it")
def test_the_real_test_set_is_never_trained_on() -> None:
    data = task(None, train=900, val=100, noise=0.0, seed=0)
    assert [len(part) for part in (data.train, data.val, data.test, data.fine)] == [900, 100, 50, 50]
    seen = torch.cat((data.train.x, data.val.x)).flatten(1)
    assert torch.cdist(data.test.x.flatten(1), seen).min() > 1.0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("train", "val"), [(1000, 100), (0, 100), (900, 0)])
def test_validation_samples_are_not_trained_on(train: int, val: int) -> None:
    with pytest.raises(ValueError, match=rf"together at most \d+, got {train} and {val}"):
        task(None, train=train, val=val, noise=0.0, seed=0)
