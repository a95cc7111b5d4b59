"""The Planetoid citation graphs through PyTorch Geometric's own loader, from verified files."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from settlepoint.data.files import data_dir, sha256, verified
from settlepoint.data.registry import DataError, dataset

NAMES = {"Cora": "planetoid-cora", "CiteSeer": "planetoid-citeseer"}


def cache_dir() -> Path:
    """Where prepared data are kept: $SETTLEPOINT_CACHE, else settlepoint under $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("SETTLEPOINT_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "settlepoint"


def planetoid_root(folder: Path | str | None, name: str = "Cora", cache: Path | None = None) -> Path:
    """The root that `torch_geometric.datasets.Planetoid(root, name)` reads: a writable copy of verified files.

    folder: as `data_dir` takes it. The raw files are pickles, which run what they hold, so that none is handed on
    unless its SHA-256 is the known one. Raises DataError for an unknown name, a missing or a corrupt file.
    """
    if name not in NAMES:
        raise DataError(f"no citation graph {name!r}; there are {', '.join(NAMES)}")
    key = NAMES[name]
    sources = verified(data_dir(folder, key), key)
    root = (cache or cache_dir()) / "planetoid"
    for source, file in zip(sources, dataset(key).files, strict=True):
        target = root / Path(file.path).relative_to("planetoid")
        if not target.exists() or sha256(target) != file.sha256:
            _copy(source, target)
    return root


def planetoid(folder: Path | str | None, name: str = "Cora", cache: Path | None = None) -> Any:
    """The graph as a `torch_geometric.data.Data` with x, y, edge_index and the public train, val and test masks.

    Processes that ask at the same time wait for one another, since PyG writes its processed copy on first use.
    Raises ImportError, naming the extra, without torch-geometric.
    """
    try:
        from torch_geometric.datasets import Planetoid
    except ImportError:
        raise ImportError('citation graphs need PyTorch Geometric: pip install "settlepoint[graphs]"') from None
    root = (cache or cache_dir()) / "planetoid"
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / f"{name}.lock"):
        return Planetoid(str(planetoid_root(folder, name, cache)), name)[0]


def _copy(source: Path, target: Path) -> None:
    """Through a file of this process, so that no other one reads half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.copyfile(source, part)
    part.replace(target)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
