"""Data sets: names, files and checksums; loaders that verify what they read."""

from settlepoint.data.digits import Split, digits
from settlepoint.data.files import FileState, data_dir, fetch, present, states, verified
from settlepoint.data.planetoid import planetoid, planetoid_root
from settlepoint.data.registry import DataError, DataFile, Dataset, dataset, datasets

__all__ = [
    "DataError",
    "DataFile",
    "Dataset",
    "FileState",
    "Split",
    "data_dir",
    "dataset",
    "datasets",
    "digits",
    "fetch",
    "planetoid",
    "planetoid_root",
    "present",
    "states",
    "verified",
]
