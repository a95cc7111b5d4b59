"""Figures of images and of curves joined across cells: from an outcome to the SVG and the numbers behind it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from tests.toy import ToyScale

from settlepoint.experiments.experiment import Check, Experiment, Figure, Results, curve, outcome, pictures
from settlepoint.experiments.launch import Request, launch
from settlepoint.report import read, write
from settlepoint.report.series import series


class Painted(Experiment):
    """Two cells of images and of one point each."""

    id, title, claim, source = "painted", "Painted", "Images are kept.", "the tests"
    scales: ClassVar = {"smoke": ToyScale(seeds=2)}
    figures = (
        Figure("Samples", ("samples",), "A column a cell.", kind="images"),
        Figure("Over T", ("loss",), "A line a group.", kind="across"),
        Figure("Absent", ("nothing",), "None.", kind="images"),
    )

    def cells(self, scale: Any) -> Sequence[str]:
        return ("T = 20", "T = 10", "other, T = 10")

    def run(self, cell: str, seed: int, context: Any) -> Mapping[str, Any]:
        images = torch.linspace(0, 1, 2 * 12).view(2, 1, 3, 4) if seed == 0 else torch.zeros(2, 1, 3, 4)
        group = cell.partition(",")[0] if "other" in cell else "first"
        point = curve([int(cell[-2:])], [seed + len(cell)], group=group)
        return outcome({"evals": 0}, {"samples": pictures(images), "loss": point})

    def checks(self, results: Results) -> Sequence[Check]:
        return [Check.at_least("cells", len(results.cells), 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("painted")
    launch(Painted(), Request(scale="smoke", out=path))
    write([path], path / "report.html")
    return path


def test_the_images_of_the_first_seed_stand_in_the_figure(folder: Path) -> None:
    svg = (folder / "figures/samples.svg").read_text()
    found = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    assert len(found) == 3
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGBA"))
    solid = seen[seen[..., 3] == 255]
    assert {0, 255} <= set(solid[:, 0].tolist())
    assert (solid[:, 0] == solid[:, 2]).all()
    for label in ("T = 20", "other, T = 10"):
        assert label in svg


def test_the_numbers_behind_them(folder: Path) -> None:
    rows = (folder / "figures/samples.csv").read_text().splitlines()
    assert rows[0] == "cell,curve,image,channel,row,column,level"
    assert len(rows) == 1 + 3 * 24
    assert rows[1] == "T = 20,samples,0,0,0,0,0"
    assert rows[24] == "T = 20,samples,1,0,2,3,255"


def test_the_page_loads_nothing_but_itself(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "No finished cell measured this." in text


def test_points_of_a_group_are_joined_over_its_cells(folder: Path) -> None:
    run = read(folder)
    first, other = series(run, run.spec["figures"][1])
    assert (first.label, other.label) == ("first", "other")
    assert first.median[0].tolist() == [10, 20]
    assert first.median[1].tolist() == [6.5, 6.5]
    assert [y.tolist() for _, y in first.seeds] == [[6, 6], [7, 7]]
    assert other.median[0].tolist() == [10]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 3), r"images must be \(N, C, H, W\) with one or three channels, got \(3, 3\)"),
        (torch.zeros(1, 2, 3, 3), "one or three channels"),
        (torch.zeros(0, 1, 3, 3), "one or three channels"),
        (torch.full((1, 1, 2, 2), torch.nan), "images must be finite"),
    ],
)
def test_what_is_refused(images: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pictures(images)


def test_colours_and_values_outside() -> None:
    found = pictures(np.stack([np.full((1, 3, 2, 2), 2.0), np.full((1, 3, 2, 2), -1.0)]).reshape(2, 3, 2, 2))
    assert found["x"] == [2, 3, 2, 2]
    assert found["y"] == [255] * 12 + [0] * 12
