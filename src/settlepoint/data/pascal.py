"""PascalVOC-SP of the Long Range Graph Benchmark, through torch-geometric's LRGBDataset, from files vouched for.

LRGBDataset unpickles its raw files, which runs what they hold, downloads them without checking the server's
certificate, and falls back to a full unpickling of its processed files. Therefore its own download is never used, it
is handed only raw files whose SHA-256 the caller vouches for, and what it reads is kept as plain arrays: pickles are
read once. The benchmark publishes no checksums, so that none can stand here.
"""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from settlepoint.data.files import data_dir, sha256
from settlepoint.data.graph_file import superpixel_graphs, write_graphs
from settlepoint.data.graph_set import GraphSet
from settlepoint.data.planetoid import cache_dir
from settlepoint.data.registry import DataError
from settlepoint.data.superpixels import ImageGraph

SPLITS = ("train", "val", "test")
CLASSES = 21
FOLDER = "pascalvoc-sp"  # as LRGBDataset calls it
ADDRESS = "https://www.dropbox.com/s/8x722ai272wqwl4/pascalvocsp.zip?dl=1"  # as LRGBDataset has it
INSIDE = "voc_superpixels_edge_wt_region_boundary"  # the folder in that archive


def _open(url: str) -> BinaryIO:
    return urllib.request.urlopen(url, timeout=30)


def pascal(
    folder: Path | str | None,
    split: str,
    *,
    vouched: Sequence[str] = (),
    download: bool = False,
    cache: Path | None = None,
    opened: Callable[[str], BinaryIO] = _open,
) -> GraphSet:
    """The graphs of "train", "val" or "test" (8,498, 1,428, 1,429): 14 raw features, 21 classes, edges both ways.

    Looked for in this order: pascalvoc-sp/SPLIT.npz in the data folder, as `settle data superpixels` writes it; the
    same in the cache; pascalvoc-sp/raw/*.pickle in either, which LRGBDataset reads and the cache then keeps as npz.
    folder: as `data_dir` takes it. vouched: SHA-256 of pickles you trust, since reading one runs what it holds.
    download: fetch the benchmark's archive into the cache when nothing is there; its pickles need vouching too.
    LRGBDataset's features are rounded to float16, and the self loops of its one-node graphs are left out.

    Raises DataError that says which file to put where, or the sums of the pickles to vouch for; ImportError, naming
    the extra, when torch-geometric is needed and not there.
    """
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    homes = [data_dir(folder) / FOLDER, (cache or cache_dir()) / FOLDER]
    for home in homes:
        if (home / f"{split}.npz").exists():
            return superpixel_graphs(home / f"{split}.npz", classes=CLASSES)
    if download and not any(_whole(home / "raw") for home in homes):
        _fetch(homes[1] / "raw", opened)
    raw = next((home / "raw" for home in homes if _whole(home / "raw")), None)
    if raw is None:
        raise DataError(_absent(homes[0], split))
    _convert(raw, homes[1], vouched)
    return superpixel_graphs(homes[1] / f"{split}.npz", classes=CLASSES)


def _whole(raw: Path) -> bool:
    return all((raw / f"{split}.pickle").is_file() for split in SPLITS)


def _absent(home: Path, split: str) -> str:
    pickles = ", ".join(f"{split}.pickle" for split in SPLITS)
    return (
        f"PascalVOC-SP is not there: put {split}.npz at {home / f'{split}.npz'}, and the other splits beside it, made "
        f"from your copy of VOC or SBD by settle data superpixels IMAGES MASKS --classes {CLASSES} -o {split}.npz; or "
        f"from Python, once: pascal(DIR, {split!r}, download=True), or {pickles} of {ADDRESS} in {home / 'raw'} and "
        "their SHA-256 as vouched=[...]"
    )


def _fetch(raw: Path, opened: Callable[[str], BinaryIO]) -> None:
    """The three pickles of the benchmark's archive, none of them read."""
    archive = raw.with_name("pascalvocsp.zip.part")
    try:
        raw.mkdir(parents=True, exist_ok=True)
        with opened(ADDRESS) as source, archive.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        with zipfile.ZipFile(archive) as members:
            for split in SPLITS:
                _extract(members, f"{INSIDE}/{split}.pickle", raw / f"{split}.pickle")
    except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        names = ", ".join(f"{split}.pickle" for split in SPLITS)
        raise DataError(f"could not fetch {ADDRESS}: {error}; put {names} of that archive into {raw}") from error
    finally:
        archive.unlink(missing_ok=True)


def _extract(members: zipfile.ZipFile, name: str, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    with members.open(name) as source, part.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    part.replace(path)


def _convert(raw: Path, home: Path, vouched: Sequence[str]) -> None:
    """What LRGBDataset reads from copies whose sums are vouched for, as plain arrays in home."""
    try:
        from torch_geometric.datasets import LRGBDataset
    except ImportError:
        raise ImportError('PascalVOC-SP needs PyTorch Geometric: pip install "settlepoint[graphs]"') from None
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=home) as root:
        copies = Path(root) / FOLDER / "raw"
        copies.mkdir(parents=True)
        for split in SPLITS:
            shutil.copyfile(raw / f"{split}.pickle", copies / f"{split}.pickle")
        _vouch(raw, copies, vouched)
        for split in SPLITS:
            graphs = [
                _image_graph(data, f"{split} {i}") for i, data in enumerate(LRGBDataset(root, "PascalVOC-SP", split))
            ]
            write_graphs(home / f"{split}.npz", graphs, [f"{split}-{i}" for i in range(len(graphs))], CLASSES)


def _vouch(raw: Path, copies: Path, vouched: Sequence[str]) -> None:
    """The sums are those of the copies, which nobody else writes."""
    found = {split: sha256(copies / f"{split}.pickle") for split in SPLITS}
    strange = [split for split in SPLITS if found[split] not in {text.lower() for text in vouched}]
    if strange:
        sums = "; ".join(f"{split}.pickle has {found[split]}" for split in strange)
        raise DataError(
            f"{raw} holds pickles, which run what they hold when read, and nobody vouches for them: {sums}. If you "
            "trust where they came from, pass these SHA-256 as vouched"
        )


def _image_graph(data: Any, name: str) -> ImageGraph:
    """Each edge once, from the lower node to the higher."""
    edges, edge_x = data.edge_index.numpy(), data.edge_attr.numpy()
    up, down = edges[0] < edges[1], edges[0] > edges[1]
    if up.sum() != down.sum():
        raise DataError(f"graph {name} must have every edge in both directions, got {up.sum()} and {down.sum()}")
    return ImageGraph(data.x.numpy().astype(np.float32), data.y.numpy(), edges[:, up], edge_x[up].astype(np.float32))
