"""CIFAR-10 in its three layouts, and files that must not be trusted; pixels dropped and painted."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from settlepoint.data import DataError, cifar10, dropped, painted

NAMES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


def batches() -> list[tuple[np.ndarray, list[int]]]:
    draw = np.random.default_rng(0)
    return [(draw.integers(0, 256, (3, 3072), dtype=np.uint8), draw.integers(0, 10, 3).tolist()) for _ in NAMES]


def as_pickles(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, (pixels, classes) in zip(NAMES, batches(), strict=True):
        content = pickle.dumps({b"data": pixels, b"labels": classes, b"batch_label": b"x"}, protocol=2)
        (folder / name).write_bytes(content)
    return folder


def as_records(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (pixels, classes) in zip(NAMES, batches(), strict=True):
        records = np.concatenate((np.array(classes, np.uint8)[:, None], pixels), 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


@pytest.mark.parametrize("lay", [as_pickles, as_records])
def test_both_layouts_of_the_authors(tmp_path: Path, lay) -> None:
    lay(tmp_path)
    found, made = cifar10(tmp_path), batches()
    assert found.copy == "whole"
    assert found.train_x.shape == (15, 3, 32, 32)
    assert torch.equal(found.train_x[4], torch.from_numpy(made[1][0][1]).view(3, 32, 32))
    assert found.test_y.tolist() == made[-1][1]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("/tmp/settlepoint-hostile",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Hostile()), "asks for (posix|nt).mkdir"),
        (pickle.dumps([1, 2]), "must hold a dictionary, got list"),
        (pickle.dumps({b"data": np.zeros((2, 3), np.uint8)}, protocol=2), r"must hold data, \(N, 3072\) bytes"),
        (
            pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
            "must hold labels, one for",
        ),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [12]}, protocol=2),
            "class numbers from 0 to 9, got 12",
        ),
        (b"", "is damaged"),
        (pickle.dumps({b"data": np.zeros((9, 3072), np.uint8)}, protocol=2)[:500], "is damaged"),
    ],
)
def test_pickles_that_are_not_what_they_should_be(tmp_path: Path, content: bytes, words: str) -> None:
    (as_pickles(tmp_path) / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.*{words}"):
        cifar10(tmp_path)
    assert not Path("/tmp/settlepoint-hostile").exists()


def test_records_that_are_cut_short_or_missing(tmp_path: Path) -> None:
    folder = as_records(tmp_path)
    (folder / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"test_batch\.bin is cut short: .* a multiple of 3073 bytes, got 3"):
        cifar10(tmp_path)
    (folder / "test_batch.bin").write_bytes((folder / "data_batch_1.bin").read_bytes()[:3073])
    with pytest.raises(DataError, match="is cut short: its six files must hold as many images each, got"):
        cifar10(tmp_path)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"test_batch\.bin cannot be read"):
        cifar10(tmp_path)


def test_no_copy_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10_small\.npz is missing.*or the files of cifar-10-batches-bin"):
        cifar10(tmp_path)


def test_a_damaged_small_copy(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar10_small.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="corrupt"):
        cifar10(tmp_path)


def test_dropped_pixels_are_0_in_all_channels_and_a_quarter_stays() -> None:
    images = torch.rand(20, 3, 32, 32) + 0.1
    found = dropped(images, torch.Generator().manual_seed(0))
    mask = found[:, 3:]
    assert torch.equal(found[:, :3], images * mask)
    assert float(mask.mean()) == pytest.approx(0.25, abs=0.02)
    blocks = dropped(images, torch.Generator().manual_seed(0), block=2)[:, 3:]
    assert torch.equal(blocks, blocks[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_painted_is_the_mean_of_the_kept_neighbours() -> None:
    u = dropped(torch.rand(2, 3, 8, 8), torch.Generator().manual_seed(0), kept=0.4)
    found = painted(u, 3)
    for row in range(2):
        for i, j in ((0, 0), (3, 4), (7, 2)):
            near = (slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2))
            known = u[row, 3][near] > 0
            wanted = u[row, :3][:, near[0], near[1]][:, known].mean(1) if known.any() else torch.zeros(3)
            wanted = u[row, :3, i, j] if u[row, 3, i, j] > 0 else wanted
            assert torch.allclose(found[row, :, i, j], wanted, atol=1e-6)


def test_what_is_no_dropout() -> None:
    images = torch.rand(1, 3, 8, 8)
    for settings, words in (({"kept": 0.0}, "kept must lie in"), ({"block": 3}, "block must divide 8 and 8, got 3")):
        with pytest.raises(ValueError, match=words):
            dropped(images, torch.Generator(), **settings)
    with pytest.raises(ValueError, match="u must end in a mask of zeros and ones"):
        painted(images)
    with pytest.raises(ValueError, match="box must be odd"):
        painted(dropped(images, torch.Generator()), 4)
