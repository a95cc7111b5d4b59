"""The data sets by name: which files, how large, their SHA-256, where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


class DataError(Exception):
    """A data file is missing, corrupt or cannot be fetched; the message says which file to put where."""


@dataclass(frozen=True)
class DataFile:
    """One file: path inside the data folder, bytes, SHA-256, and its public address where one is known."""

    path: str
    size: int
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A named set of files with its source and licence."""

    name: str
    what: str
    source: str
    licence: str
    files: tuple[DataFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@cache
def datasets() -> dict[str, Dataset]:
    """All data sets by name.

    >>> [file.path for file in datasets()["r2n2-matrices"].files]
    ['r2n2/matrices.npz']
    """
    text = files("settlepoint.data").joinpath("datasets.json").read_text(encoding="utf-8")
    entries = json.loads(text)["datasets"]
    return {e["name"]: Dataset(**{**e, "files": tuple(DataFile(**f) for f in e["files"])}) for e in entries}


def dataset(name: str) -> Dataset:
    """The data set of that name. Raises DataError, naming the valid ones, when there is none."""
    if name not in datasets():
        raise DataError(f"no data set {name!r}; the data sets are {', '.join(datasets())}")
    return datasets()[name]
