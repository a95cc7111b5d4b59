"""Tables 2, 3 and 4, small: tasks, trivial rows by hand, statistics of a course, and a run of every kind of cell."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import settlepoint as sp
from settlepoint.experiments import REGISTRY, pixels, table4
from settlepoint.experiments.experiment import Context, Experiment
from settlepoint.experiments.flow_frames import FlowScale, build, errors, fitted, task
from settlepoint.experiments.table2 import EXPERIMENT as TABLE2
from settlepoint.experiments.table2_settled import EXPERIMENT as SETTLED
from settlepoint.experiments.table2_settled import _shape
from settlepoint.experiments.table3 import EXPERIMENT as TABLE3
from settlepoint.experiments.table3_settled import EXPERIMENT as SETTLED3
from settlepoint.experiments.table4 import EXPERIMENT as TABLE4
from settlepoint.experiments.table4 import AnieScale
from settlepoint.models.anie import Faults

FLOW = FlowScale(train=12, test=4, solved=16, grid=8, since=1, frames=2, width=8, heads=2, period=2, epochs=1, batch=6)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a few random images in the binary layout, and no task kept from another one."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (8, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    pixels._task.cache_clear()
    return tmp_path


def test_frames_asked_for_follow_those_seen_and_have_unit_size() -> None:
    data, later = task(Context(scale=FLOW)), task(Context(scale=replace(FLOW, since=2)))
    seen, asked = data.train
    assert seen.shape == asked.shape == (12, 2, 8, 8)
    assert float(asked.std()) == pytest.approx(1.0, abs=1e-5)
    ratio = later.train[0][:, 0] / data.train[0][:, 1]  # the same frame in other units
    assert float(ratio.std() / ratio.mean()) < 1e-3
    assert data.persistence == pytest.approx(float((data.test[1] - data.test[0][:, 1:]).square().mean()), rel=1e-5)
    assert data.mean_error < 1.5


def test_errors_are_those_of_a_fixed_number_of_steps() -> None:
    context = Context(scale=FLOW)
    model, _ = fitted(lambda: build("vit", "input", 2, FLOW), ("test", 0), context)
    data = task(context)
    found = errors(model, data.test, 3)
    for steps in (1, 3):
        model.settle.stop = sp.FixedSteps(steps)
        wanted = (model(data.test[0]) - data.test[1]).square().flatten(1).mean(1)
        assert torch.allclose(found[steps - 1], wanted.detach(), atol=1e-5)


def test_a_fit_does_not_depend_on_what_ran_before() -> None:
    make = lambda: fitted(lambda: build("vit", "km", 1, FLOW), ("test", 1), Context(scale=FLOW))[0]  # noqa: E731
    first = make()
    torch.randn(7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), make().parameters(), strict=True))


def test_the_shape_of_a_course_by_hand() -> None:
    course = torch.tensor([4.0, 2.0, 2.02, *[1.0] * 6, 1.1])
    found = _shape(course)
    assert found["best"] == 1.0
    assert found["rise"] == pytest.approx(1.0, abs=1e-4)
    assert found["drift"] == pytest.approx(10.0, abs=1e-4)


@pytest.mark.parametrize(
    ("experiment", "cells"),
    [(TABLE2, ("vit", "space-time", "vit, input", "mean")), (SETTLED, ("small",))],
    ids=["table2", "table2-settled"],
)
def test_cells_of_table_2(experiment: Experiment, cells: tuple[str, ...]) -> None:
    scale = experiment.scales["smoke"]
    small = replace(
        scale, **{name: getattr(FLOW, name) for name in ("train", "test", "since", "frames", "epochs", "batch")}
    )
    for cell in cells:
        found = experiment.run(cell, 0, Context(scale=small))["metrics"]
        assert all(math.isfinite(value) for value in found.values())
        assert found["evals"] >= 0
    assert set(cells) <= set(experiment.cells(small))


def test_scores_of_pictures_by_hand(images: Path) -> None:
    data = pixels.task(Context(scale=pixels.PixelScale(train=10, test=4), data_dir=images))
    off = data.test + 0.5
    found = pixels.scores(off, data)
    assert found["mse"] == pytest.approx(0.25, rel=1e-5)
    assert found["mse01"] == pytest.approx(0.0625, rel=1e-5)
    assert found["mse dropped"] == pytest.approx(0.25, rel=1e-5)
    assert found["psnr"] == pytest.approx(10 * math.log10(4 / 0.25), rel=1e-5)
    assert pixels.scores(data.test, data)["fd"] == pytest.approx(0.0, abs=1e-6)
    assert found["fd"] > 0


@pytest.mark.parametrize("cell", ["N = 2", "three times the blocks", "box", "as shown", "training images", "noise"])
def test_cells_of_table_3(images: Path, cell: str) -> None:
    scale = replace(TABLE3.scales["smoke"], train=10, test=4, batch=5, width=8)
    found = TABLE3.run(cell, 0, Context(scale=scale, data_dir=images))["metrics"]
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("cell", ["settled", "correction, N = 3"])
def test_cells_of_table_3_settled(images: Path, cell: str) -> None:
    scale = replace(SETTLED3.scales["smoke"], train=10, test=4, batch=5, width=8)
    found = SETTLED3.run(cell, 0, Context(scale=scale, data_dir=images))["metrics"]
    assert all(math.isfinite(value) for value in found.values())


def test_more_images_than_there_are(images: Path) -> None:
    with pytest.raises(ValueError, match=r"train must lie in \[2, 40\], the images that there are, got 50"):
        pixels.task(Context(scale=pixels.PixelScale(train=50, test=4), data_dir=images))


TINY = AnieScale(
    train=12, test=4, solved=16, grid=8, since=1, frames=2, width=8, features=4, hidden=8, epochs=1, batch=6,
    sizes=("2H1B",), thresholds=False,
)  # fmt: skip


def test_table_4_asks_for_the_same_frames_from_one() -> None:
    whole, one = task(Context(scale=TINY)), table4.frame_task(Context(scale=TINY))
    assert torch.equal(one.train[0], whole.train[0][:, -1:])
    assert torch.equal(one.test[1], whole.test[1])


def test_sizes_and_faults_of_table_4() -> None:
    scale = replace(TINY, sizes=("4H4B",))
    model = table4.build("4H4B", 2, replace(scale, width=16), Faults.published())
    assert len(model.operator.blocks) == 4
    assert model.operator.blocks[0].attention.heads == 4
    assert model.settle.stop == sp.FixedSteps(3)
    assert isinstance(model.settle.adjoint, sp.Truncated)
    with pytest.raises(ValueError, match="sizes must be of 1H1B, 4H1B, 2H2B, 4H4B, got '3H1B'"):
        TABLE4.cells(replace(scale, sizes=("3H1B",)))


@pytest.mark.parametrize("how", ["", "settled", "published"])
def test_rows_of_table_4(how: str) -> None:
    scale = replace(TINY, sizes=("1H1B",))
    found = TABLE4.run(f"1H1B {how}".strip(), 0, Context(scale=scale))["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert {f"N={n}" for n in table4.STEPS} <= set(found)


@pytest.mark.parametrize("name", ["table2", "table2-settled", "table3", "table3-settled", "table4"])
def test_they_are_known_to_the_program(name: str) -> None:
    assert REGISTRY.load(name).id == name
