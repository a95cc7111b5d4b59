"""Tables for a terminal: every number whole, however narrow it is."""

from __future__ import annotations

import pytest
from rich.console import Console

from settlepoint.report.tables import Entry, Sheet
from settlepoint.report.terminal import _tables

HEADS = ["Residual", "with a long head", "Seeds"]
ROWS = [("a cell", [Entry("1.23e-04 ± 5.6e-05"), Entry("42"), Entry("3")]), ("b", [Entry("–"), Entry("7"), Entry("3")])]


def printed(width: int, sheet: Sheet) -> str:
    console = Console(width=width)
    with console.capture() as text:
        for table in _tables(sheet, width):
            console.print(table)
    return text.get()


@pytest.mark.parametrize("width", [40, 46, 60, 120])
def test_no_number_is_cut_short(width: int) -> None:
    text = printed(width, Sheet("Title", "Caption", HEADS, ROWS))
    assert "…" not in text
    assert text.count("1.23e-04 ± 5.6e-05") == text.count("42") == text.count("Title") == text.count("Caption") == 1


def test_every_part_names_its_rows() -> None:
    many = Sheet("Title", "", [f"head{i}" for i in range(9)], [("a cell", [Entry("1.000e+00")] * 9)])
    text = printed(40, many)
    assert text.count("a cell") == text.count("Cell") > 1
    assert [word for word in text.split() if word.startswith("head")] == list(many.heads)


def test_a_table_that_fits_is_one_table() -> None:
    assert len(list(_tables(Sheet("Title", "", HEADS, ROWS), 120))) == 1
    assert len(list(_tables(Sheet("Title", "", [], [("a", [])]), 120))) == 1
