"""Darcy and Burgers files: what they hold, and what is refused; the real files only where there is a data folder."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from settlepoint.data import DataError, burgers, burgers_file, darcy, darcy_file, load_tensors

real = pytest.mark.skipif(
    not os.environ.get("SETTLEPOINT_DATA") or not Path(os.environ["SETTLEPOINT_DATA"], "neuralop").is_dir(),
    reason="needs SETTLEPOINT_DATA with neuralop in it",
)


class Trap:
    """Something that would write a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@real
def test_darcy_is_what_the_docstring_says() -> None:
    data = darcy()
    assert [len(part) for part in (data.train, data.test, data.fine)] == [1000, 50, 50]
    assert data.train.x.dtype == torch.bool
    assert data.train.y.shape == (1000, 16, 16)
    assert data.fine.y.shape == (50, 32, 32)
    assert torch.equal(data.fine.x[:, ::2, ::2], data.test.x)  # the same samples, the first points on the edge
    assert torch.equal(data.fine.y[:, ::2, ::2], data.test.y)
    assert data.test.y[:, 0].abs().mean() < 0.02 * data.test.y[:, 8].mean()


@real
def test_burgers_is_what_the_docstring_says() -> None:
    data = burgers()
    assert data.train.y.shape == (800, 17, 16)
    assert data.test.x.shape == (400, 16)
    assert data.train.viscosity == data.test.viscosity == 0.01
    assert torch.equal(data.test.y[:, 0], data.test.x)
    assert data.test.y[:, -1].square().mean() < data.test.x.square().mean()  # viscosity takes energy


def test_a_missing_folder_says_which_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SETTLEPOINT_DATA", raising=False)
    with pytest.raises(DataError, match=r"DIR/neuralop/darcy_test_16.pt, DIR/neuralop/darcy_test_32.pt"):
        darcy()
    with pytest.raises(DataError, match=r"DIR/neuralop/burgers_test_16.pt"):
        burgers()


def test_a_file_that_is_not_the_known_one_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "neuralop").mkdir()
    for name in ("darcy_test_16", "darcy_test_32", "darcy_train_16"):
        (tmp_path / f"neuralop/{name}.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match=r"darcy_train_16.pt is corrupt: expected SHA-256 0be662"):
        darcy(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    path = tmp_path / "trap.pt"
    torch.save({"x": torch.zeros(1, 2, 2), "y": Trap(tmp_path / "sprung")}, path)
    with pytest.raises(
        DataError, match=r"no file of plain tensors, and nothing in it is run \(UnpicklingError\): put the file"
    ):
        darcy_file(path)
    path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(DataError, match="put the file that `settle data list` names at"):
        darcy_file(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"no file of tensors", "cut"])
def test_broken_files_are_data_errors(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "a.pt"
    torch.save({"x": torch.zeros(50, 4, 4), "y": torch.zeros(50, 4, 4)}, path)
    path.write_bytes(path.read_bytes()[:700] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"a\.pt .*put the file that `settle data list` names at"):
        darcy_file(path)


def test_what_lacks_or_has_other_shapes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(DataError, match=r"a\.pt is missing"):
        load_tensors(path, ("x",))
    torch.save([torch.zeros(2)], path)
    with pytest.raises(DataError, match="must hold the tensors x, y, but x, y is not there"):
        darcy_file(path)
    torch.save({"x": torch.zeros(2, 3, 3), "y": [1.0]}, path)
    with pytest.raises(DataError, match="but y is not there"):
        darcy_file(path)
    torch.save({"x": torch.zeros(2, 3, 4), "y": torch.zeros(2, 3, 4)}, path)
    with pytest.raises(DataError, match=r"must be \(N, n, n\), y floating, got \(2, 3, 4\)"):
        darcy_file(path)
    torch.save({"x": torch.zeros(2, 3), "y": torch.zeros(2, 5, 4), "visc": torch.ones(1, 1)}, path)
    with pytest.raises(DataError, match=r"y \(N, T, n\), visc one number, got \(2, 3\), \(2, 5, 4\)"):
        burgers_file(path)
    torch.save({"x": torch.zeros(2, 3, 3), "y": torch.full((2, 3, 3), torch.nan)}, path)
    with pytest.raises(DataError, match="must hold finite numbers, but y has NaN or Inf"):
        darcy_file(path)
