"""PascalVOC-SP: plain arrays first, pickles only when vouched for, and no network in any test."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from settlepoint.data import DataError, ImageGraph, pascal, write_graphs
from settlepoint.data.pascal import ADDRESS, INSIDE, SPLITS

Raw = tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]


def raw_graph(nodes: int) -> Raw:
    """A path as the benchmark stores it: half-precision features, both directions, labels as a NumPy array."""
    steps = torch.arange(nodes - 1)
    up = torch.stack((steps, steps + 1))
    weights = torch.stack((steps / 8, steps + 1.0), 1)
    x = torch.arange(nodes * 14).reshape(nodes, 14).half()
    return x, torch.cat((weights, weights)).double(), torch.cat((up, up.flip(0)), 1), np.arange(nodes, dtype=np.int32)


def lonely() -> Raw:
    """One node with the self loop that the benchmark gives it."""
    return torch.ones(1, 14).half(), torch.zeros(1, 2), torch.zeros(2, 1, dtype=torch.int64), np.array([20], np.int32)


CONTENT = {"train": [raw_graph(3), lonely(), raw_graph(4)], "val": [raw_graph(5)], "test": [raw_graph(2)]}


def fill(folder: Path) -> list[str]:
    """The three pickles, and their sums."""
    folder.mkdir(parents=True)
    for split, graphs in CONTENT.items():
        (folder / f"{split}.pickle").write_bytes(pickle.dumps(graphs))
    return [hashlib.sha256((folder / f"{split}.pickle").read_bytes()).hexdigest() for split in SPLITS]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty data folder."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_plain_arrays_need_nobody(home: Path, tmp_path: Path) -> None:
    graph = ImageGraph(
        np.ones((2, 14), np.float32), np.array([0, 20]), np.array([[0], [1]]), np.ones((1, 2), np.float32)
    )
    write_graphs(home / "pascalvoc-sp/val.npz", [graph], ["a"], 21)
    found = pascal(home, "val", cache=tmp_path / "cache")
    assert (len(found), found.classes, found.y.tolist(), found.edges.tolist()) == (1, 21, [0, 20], [[0, 1], [1, 0]])
    assert not (tmp_path / "cache").exists()
    write_graphs(home / "pascalvoc-sp/test.npz", [graph], ["a"], 20 + 2)
    with pytest.raises(DataError, match="classes must be 22, as the file says, got 21"):
        pascal(home, "test")


def test_without_files_the_message_says_which_to_put_where(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        pascal(home, "train", cache=tmp_path / "cache")
    for part in (f"{home}/pascalvoc-sp/train.npz", "settle data superpixels", f"{home}/pascalvoc-sp/raw", ADDRESS):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="split must be one of train, val, test, got 'dev'"):
        pascal(home, "dev")


def test_a_pickle_nobody_vouches_for_is_never_read(home: Path, tmp_path: Path) -> None:
    class Spring:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "sprung",)

    sums = fill(home / "pascalvoc-sp/raw")
    (home / "pascalvoc-sp/raw/val.pickle").write_bytes(pickle.dumps([Spring()]))
    with pytest.raises(DataError, match=r"run what they hold when read, and nobody vouches for them: val.pickle has "):
        pascal(home, "train", vouched=sums, cache=tmp_path / "cache")
    assert not (tmp_path / "sprung").exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_vouched_pickles_are_read_once(home: Path, tmp_path: Path) -> None:
    """The oracle: what was stored, after float16."""
    sums = fill(home / "pascalvoc-sp/raw")
    found = pascal(home, "train", vouched=sums, cache=tmp_path / "cache")
    assert (len(found), found.classes, found.index.tolist()) == (3, 21, [0, 0, 0, 1, 2, 2, 2, 2])
    assert torch.equal(found.take([2]).x, CONTENT["train"][2][0].float())
    assert found.take([1]).edges.shape == (2, 0)
    assert found.take([0]).edges.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert found.y.tolist() == [0, 1, 2, 20, 0, 1, 2, 3]
    assert found.edge_x is not None
    assert found.edge_x[:4].tolist() == [[0, 1], [0, 1], [0.125, 2], [0.125, 2]]
    again = pascal(home, "val", cache=tmp_path / "cache")  # nobody vouches, since no pickle is read
    assert len(again.x) == 5
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.*")) == ["test.npz", "train.npz", "val.npz"]


def test_edges_of_one_direction_are_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, edge_x, edges, y = raw_graph(3)
    monkeypatch.setitem(CONTENT, "train", [(x, edge_x[:3], edges[:, :3], y)])
    sums = fill(home / "pascalvoc-sp/raw")
    with pytest.raises(DataError, match="graph train 0 must have every edge in both directions, got 2 and 1"):
        pascal(home, "train", vouched=sums, cache=tmp_path / "cache")


def archive(tmp_path: Path, inside: str = INSIDE) -> bytes:
    fill(tmp_path / "source")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for path in sorted((tmp_path / "source").iterdir()):
            file.write(path, f"{inside}/{path.name}")
    return stream.getvalue()


def test_what_is_fetched_needs_vouching_too(home: Path, tmp_path: Path) -> None:
    content, asked, cache = archive(tmp_path), [], tmp_path / "cache"

    def opened(url: str) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(content)

    with pytest.raises(DataError, match="pass these SHA-256 as vouched"):
        pascal(home, "train", download=True, cache=cache, opened=opened)
    sums = [hashlib.sha256((cache / f"pascalvoc-sp/raw/{split}.pickle").read_bytes()).hexdigest() for split in SPLITS]
    assert len(pascal(home, "test", download=True, vouched=sums, cache=cache, opened=opened)) == 1
    assert asked == [ADDRESS]


@pytest.mark.parametrize("content", [b"a login page", b"PK"])
def test_another_thing_than_the_archive(home: Path, tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"could not fetch .*put train.pickle, val.pickle, test.pickle of that archive"):
        pascal(home, "val", download=True, cache=tmp_path, opened=lambda url: io.BytesIO(content))
    assert [path for path in (tmp_path / "pascalvoc-sp").rglob("*") if path.is_file()] == []


def test_an_archive_without_the_pickles_and_no_network(home: Path, tmp_path: Path) -> None:
    def offline(url: str) -> io.BytesIO:
        raise urllib.error.URLError("no route to host")

    with pytest.raises(DataError, match="no route to host"):
        pascal(home, "val", download=True, cache=tmp_path / "cache", opened=offline)
    other = archive(tmp_path, "elsewhere")
    with pytest.raises(DataError, match="There is no item named"):
        pascal(home, "val", download=True, cache=tmp_path / "cache", opened=lambda url: io.BytesIO(other))


def test_the_address_is_that_of_torch_geometric() -> None:
    from torch_geometric.datasets import LRGBDataset

    assert LRGBDataset.urls["pascalvoc-sp"] == ADDRESS
    assert LRGBDataset.dwnld_file_name["pascalvoc-sp"] == INSIDE


def test_torch_geometric_is_named_when_it_lacks(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sums = fill(home / "pascalvoc-sp/raw")
    monkeypatch.setitem(sys.modules, "torch_geometric.datasets", None)
    with pytest.raises(ImportError, match=r"settlepoint\[graphs\]"):
        pascal(home, "val", vouched=sums, cache=tmp_path / "cache")
