"""The report needs only the files of a run, and is one page that needs only itself."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.toy import Toy

from settlepoint.experiments.launch import Request, launch
from settlepoint.report import ReportError, read, write
from settlepoint.report.page import verdict
from settlepoint.report.series import median, series
from settlepoint.report.style import PALETTE, SOLVERS, strokes
from settlepoint.report.tables import sheets, summary


def run(folder: Path, **settings: str) -> Path:
    launch(Toy(), Request(scale="cpu", out=folder, settings=settings))
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("bad"), raises="rate 0.6", target="200")


class Page(HTMLParser):
    """Checks that tags close, ids are unique and nothing is fetched."""

    VOID = ("meta", "link", "br", "img", "use", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.keep(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.keep(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def keep(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        links = [v for name, v in attrs if name in ("src", "href", "xlink:href", "data") and v]
        self.loads += [link for link in links if not link.startswith(("#", "data:,"))]


def test_the_page_is_whole_and_needs_nothing_else(good: Path, bad: Path, tmp_path: Path) -> None:
    text = write([good, bad, good], tmp_path / "deep" / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.loads == []
    assert "<script" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_ids_are_unique_on_a_page(good: Path, tmp_path: Path) -> None:
    page = Page()
    page.feed(write([good], tmp_path / "report.html").read_text())
    assert len(page.ids) == len(set(page.ids))


def test_the_first_screen_says_what_was_claimed_and_found(good: Path, bad: Path, tmp_path: Path) -> None:
    text = write([good], tmp_path / "report.html").read_text()
    order = ["A contraction settles at its rate.", "All 4 checks passed", "What the toy measures", "<svg", "Machine"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "a &lt;note&gt; of the toy" in text
    text = write([bad], tmp_path / "report.html").read_text()
    assert "2 of 3 checks passed" in text
    assert "ArithmeticError: this cell was asked to raise" in text
    assert "No finished cell measured this." in text


def test_figures_lie_beside_their_numbers(good: Path, tmp_path: Path) -> None:
    write([good], tmp_path / "report.html")
    names = sorted(path.name for path in (good / "figures").iterdir())
    assert names == ["accuracy-by-cell.csv", "accuracy-by-cell.svg", "convergence.csv", "convergence.svg"]
    rows = (good / "figures/convergence.csv").read_text().splitlines()
    assert rows[0] == "cell,curve,group,seed,x,y"
    assert len(rows) == 1 + 3 * (3 + 1) * 30
    for name in names:
        if name.endswith(".svg"):
            ElementTree.fromstring((good / "figures" / name).read_text())


def test_a_page_is_the_same_from_the_same_files(good: Path, tmp_path: Path) -> None:
    pages = [write([good], tmp_path / f"{i}.html").read_text() for i in range(2)]
    assert re.sub(r"\d\d:\d\d UTC", "", pages[0]) == re.sub(r"\d\d:\d\d UTC", "", pages[1])


def test_tables_hold_mean_spread_paper_and_work(good: Path) -> None:
    (sheet,) = sheets(read(good))
    assert sheet.heads == ["Accuracy (%)", "Paper", "Final residual", "Evaluations", "CPU (s)", "Seeds"]
    first = dict(sheet.rows)["rate 0.3"]
    assert re.fullmatch(r"91\.\d ± 0\.\d", first[0].text)
    assert [entry.text for entry in (first[1], first[3], first[5])] == ["91.0", "30 ± 0", "3"]
    assert first[2].kind == "best"
    assert dict(sheet.rows)["rate 0.6"][1].text == "88.0 ± 0.4"
    assert dict(sheet.rows)["rate 0.9"][1].text == ""


def test_columns_that_a_scale_does_not_measure_are_left_out(good: Path, tmp_path: Path) -> None:
    spec = json.loads((good / "spec.json").read_text())["tables"][0]
    absent = {**spec["columns"][1], "key": "absent", "label": "Absent"}
    copy = edited(good, tmp_path, tables=[{**spec, "columns": [*spec["columns"], absent]}])
    assert "Absent" not in sheets(read(copy))[0].heads
    (copy / "result.jsonl").write_text("")
    assert "Absent" in sheets(read(copy))[0].heads


def test_failed_cells_stay_in_the_table(bad: Path) -> None:
    (sheet,) = sheets(read(bad))
    row = dict(sheet.rows)["rate 0.6"]
    assert row[0].text == "failed"
    assert row[-1].text == "0 of 3"


def test_a_run_without_tables_shows_all_metrics(good: Path, tmp_path: Path) -> None:
    copy = edited(good, tmp_path, tables=[])
    (sheet,) = sheets(read(copy))
    assert sheet.heads == ["accuracy", "residual", "never", "Evaluations", "CPU (s)", "Seeds"]
    assert sheet.rows[0][1][2].text == "∞"
    assert "All metrics" in write([copy], tmp_path / "report.html").read_text()


def edited(folder: Path, to: Path, **changes: object) -> Path:
    """A copy of a run with entries of its spec replaced."""
    for name in ("spec.json", "environment.json", "result.jsonl", "checks.json"):
        (to / name).write_text((folder / name).read_text())
    spec = json.loads((to / "spec.json").read_text())
    (to / "spec.json").write_text(json.dumps({**spec, **changes}))
    return to


def test_verdicts(good: Path, tmp_path: Path) -> None:
    copy = edited(good, tmp_path)
    lines = (copy / "result.jsonl").read_text().splitlines(keepends=True)
    (copy / "result.jsonl").write_text("".join(lines[:-2]) + lines[-2][:30])
    (copy / "checks.json").unlink()
    assert verdict(read(copy))["text"] == "Incomplete"
    assert "2 cells and seeds have not run" in verdict(read(copy))["advice"]
    (copy / "result.jsonl").write_text("".join(lines))
    assert verdict(read(copy))["text"] == "Nothing was checked"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("spec.json", None, "is not the folder of a run: it has no spec.json"),
        ("spec.json", "{", "spec.json is not JSON"),
        ("result.jsonl", "{}\n", "line 1 of .*result.jsonl is not a result"),
    ],
)
def test_broken_folders_are_named(good: Path, tmp_path: Path, name: str, text: str | None, message: str) -> None:
    copy = edited(good, tmp_path)
    (copy / name).unlink()
    if text is not None:
        (copy / name).write_text(text)
    with pytest.raises(ReportError, match=message):
        read(copy)


def test_a_report_of_nothing_is_refused(good: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="at least one run"):
        write([], tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write"):
        write([good], tmp_path / "file" / "report.html")


def test_solvers_keep_their_colours() -> None:
    labels = ["Anderson(depth=5)", "mine", "Picard()", "torchdeq Anderson", "plain loop"]
    alone, together = strokes(labels[:1]), strokes(labels)
    assert alone[labels[0]] == together[labels[0]]
    assert together["mine"].colour not in {together[label].colour for label in labels if label != "mine"}
    assert (together["torchdeq Anderson"].colour, together["torchdeq Anderson"].dash) == SOLVERS["torchdeq"]
    two = strokes(["torchdeq Anderson", "torchdeq Picard"])
    assert two["torchdeq Anderson"].colour == two["torchdeq Picard"].colour
    assert two["torchdeq Anderson"].dash != two["torchdeq Picard"].dash
    assert len({(s.colour, s.dash) for s in strokes(f"cell {i}" for i in range(30)).values()}) == 30
    assert len(set(PALETTE)) == len(PALETTE)


def test_a_log_axis_leaves_out_zero_and_nan(good: Path, tmp_path: Path) -> None:
    copy = edited(good, tmp_path)
    text = (copy / "result.jsonl").read_text().replace('"y": [', '"y": [0.0, "nan", ').replace('"x": [', '"x": [0, 0, ')
    (copy / "result.jsonl").write_text(text)
    write([copy], tmp_path / "report.html")
    assert (copy / "figures/convergence.svg").exists()


def test_labels_tell_series_apart(good: Path, tmp_path: Path) -> None:
    copy = edited(good, tmp_path)
    text = (copy / "result.jsonl").read_text().replace('"group": ""', '"group": "Picard"')
    (copy / "result.jsonl").write_text(text)
    found = series(read(copy), {"rows": [], "curves": ["residual"], "kind": "lines"})
    assert [entry.label for entry in found] == ["Picard (rate 0.3)", "Picard (rate 0.6)", "Picard (rate 0.9)"]
    assert {entry.group for entry in found} == {"Picard"}
    write([copy], tmp_path / "report.html")


def test_the_median_holds_each_seed_between_its_points() -> None:
    """By hand: at x = 2 the seeds stand at 4, 3 and 9; at x = 3 at 4 (ended), 2 and 9; at x = 4 one of three runs."""
    seeds = [([1, 2], [8, 4]), ([1, 3], [3, 2]), ([2, 3, 4], [9, 9, 9])]
    x, y = median([(np.array(a, float), np.array(b, float)) for a, b in seeds])
    assert x.tolist() == [1.0, 2.0, 3.0]
    assert y.tolist() == [5.5, 4.0, 4.0]


def test_summaries_of_infinite_values() -> None:
    assert summary([1.0, float("inf")], ".1f") == "∞"
    assert summary([float("nan")], ".1f") == "nan"
