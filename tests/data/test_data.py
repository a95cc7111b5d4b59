"""Data sets are found, verified, fetched and refused; no test needs a network or the real files but one."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import urllib.error
from pathlib import Path

import pytest
import torch

import settlepoint.data.registry as registry
from settlepoint.data import (
    DataError,
    DataFile,
    Dataset,
    data_dir,
    dataset,
    datasets,
    digits,
    fetch,
    planetoid,
    planetoid_root,
    present,
    states,
    verified,
)

CONTENT = b"a small graph"
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A registry of one data set with one file that has an address and one that has none."""
    here = DataFile("small/a.bin", len(CONTENT), SUM, "https://example.org/a.bin")
    found = Dataset("small", "for tests", "the tests", "none", (here,))
    hidden = Dataset("hidden", "for tests", "the tests", "none", (DataFile("small/b.bin", 1, SUM),))
    monkeypatch.setattr(registry, "datasets", lambda: {"small": found, "hidden": hidden})
    return found


def put(folder: Path, content: bytes = CONTENT) -> None:
    (folder / "small").mkdir()
    (folder / "small/a.bin").write_bytes(content)


def test_the_registry_is_whole() -> None:
    found = [file for entry in datasets().values() for file in entry.files]
    assert len({file.path for file in found}) == len(found)
    assert all(len(file.sha256) == 64 and file.size > 0 for file in found)
    assert dataset("planetoid-cora").size == sum(file.size for file in dataset("planetoid-cora").files)
    with pytest.raises(DataError, match="no data set 'x'; the data sets are planetoid-cora"):
        dataset("x")


def test_the_option_wins_over_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("SETTLEPOINT_DATA", str(tmp_path))
    assert data_dir(tmp_path / "a") == tmp_path / "a"
    assert data_dir() == tmp_path


def test_without_a_folder_the_message_says_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SETTLEPOINT_DATA", raising=False)
    with pytest.raises(DataError, match=r"give --data-dir DIR or set SETTLEPOINT_DATA=DIR$"):
        data_dir()
    with pytest.raises(DataError, match=r"DIR/planetoid/Cora/raw/ind.cora.allx, DIR"):
        data_dir(needs="planetoid-cora")
    with pytest.raises(DataError, match="the data folder nowhere does not exist"):
        data_dir("nowhere")


def test_states(tmp_path: Path, small: Dataset) -> None:
    assert [s.state for s in states(tmp_path, small)] == ["absent"]
    assert present(tmp_path, small) == 0
    put(tmp_path)
    assert [s.state for s in states(tmp_path, small)] == ["ok"]
    assert present(tmp_path, small) == 1
    assert verified(tmp_path, "small") == [tmp_path / "small/a.bin"]


def test_a_corrupt_file_is_named_with_both_sums(tmp_path: Path, small: Dataset) -> None:
    put(tmp_path, b"a broken graph")
    found = hashlib.sha256(b"a broken graph").hexdigest()
    with pytest.raises(DataError, match=rf"small/a.bin is corrupt: expected SHA-256 {SUM}, found {found}"):
        verified(tmp_path, "small")


def test_a_missing_file_is_named_with_its_place(tmp_path: Path, small: Dataset) -> None:
    with pytest.raises(DataError, match=rf"small/a.bin is missing: put a.bin there \(SHA-256 {SUM}\)"):
        verified(tmp_path, "small")


def test_fetch_brings_what_is_missing(tmp_path: Path, small: Dataset) -> None:
    asked: list[str] = []

    def opened(url: str) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(CONTENT)

    assert fetch(tmp_path, "small", opened=opened) == [tmp_path / "small/a.bin"]
    assert fetch(tmp_path, "small", opened=opened) == []
    assert asked == ["https://example.org/a.bin"]
    assert verified(tmp_path, "small")


def test_fetch_keeps_nothing_that_is_not_whole(tmp_path: Path, small: Dataset) -> None:
    with pytest.raises(DataError, match="gave another file"):
        fetch(tmp_path, "small", opened=lambda url: io.BytesIO(b"a login page"))
    assert not list((tmp_path / "small").iterdir())


def test_fetch_without_a_network_says_what_to_do(tmp_path: Path, small: Dataset) -> None:
    def offline(url: str) -> io.BytesIO:
        raise urllib.error.URLError("no route to host")

    with pytest.raises(DataError, match=r"could not fetch .*: no route to host; put a.bin at .*small/a.bin"):
        fetch(tmp_path, "small", opened=offline)
    with pytest.raises(DataError, match=r"small/b.bin has no public address; put b.bin at"):
        fetch(tmp_path, "hidden", opened=offline)


def test_digits_are_the_same_every_time() -> None:
    first, second = digits(), digits(torch.float64)
    assert (first.train_x.shape, first.test_x.shape) == ((1400, 64), (397, 64))
    assert torch.equal(first.train_x.double(), second.train_x)
    assert float(first.train_x.min()) == 0.0
    assert float(first.train_x.max()) == 1.0
    assert set(first.test_y.tolist()) == set(range(10))


def test_the_digits_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"settlepoint\[data\]"):
        digits()


def test_planetoid_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.datasets", None)
    with pytest.raises(ImportError, match=r"settlepoint\[graphs\]"):
        planetoid(None, cache=tmp_path)


def test_planetoid_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no citation graph 'PubMed'; there are Cora, CiteSeer"):
        planetoid_root(tmp_path, "PubMed")
    with pytest.raises(DataError, match=r"Cora/raw/ind.cora.allx is missing"):
        planetoid_root(tmp_path, "Cora")


def test_the_cache_has_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from settlepoint.data.planetoid import cache_dir

    monkeypatch.delenv("SETTLEPOINT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "settlepoint"
    monkeypatch.setenv("SETTLEPOINT_CACHE", str(tmp_path / "x"))
    assert cache_dir() == tmp_path / "x"


@pytest.mark.skipif("SETTLEPOINT_DATA" not in os.environ, reason="needs the real files of Cora")
def test_cora_is_cora(tmp_path: Path) -> None:
    """2,708 papers, 10,556 directed citations, 1,433 words, 140/500/1,000 masks: the published sizes."""
    graph = planetoid(None, "Cora", cache=tmp_path)
    assert (graph.num_nodes, graph.num_edges, graph.num_features) == (2708, 10556, 1433)
    assert [int(mask.sum()) for mask in (graph.train_mask, graph.val_mask, graph.test_mask)] == [140, 500, 1000]
    again = planetoid(None, "Cora", cache=tmp_path)
    assert torch.equal(again.edge_index, graph.edge_index)
