"""CIFAR-10, in the small copy, or whole in the binary or the Python layout; nothing is unpickled blindly."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from settlepoint.data.files import data_dir, verified
from settlepoint.data.graph_file import load_arrays
from settlepoint.data.registry import DataError

_RECORD = 1 + 3 * 32 * 32
_TRUSTED = {
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
_HOW = "put cifar10/cifar10_small.npz there, or the files of cifar-10-batches-bin or cifar-10-batches-py unpacked"


@dataclass(frozen=True, eq=False)
class Images:
    """Images (N, 3, 32, 32) as bytes, and class numbers (N,), to train and to test on. copy: which files these are."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    copy: str


def cifar10(folder: Path | None = None) -> Images:
    """The whole set where its files lie in the data folder, else the small copy: 5,000 images to train, 1,000 to test.

    The images of the small copy were compressed as JPEG in between: errors on them are not comparable with the
    original to the third digit. Raises DataError, naming the file, for one that is missing, cut short, or holds
    anything but arrays, texts and numbers.
    """
    root = data_dir(folder)
    for name, read in (("cifar-10-batches-bin", _binary), ("cifar-10-batches-py", _pickled)):
        if (root / name).is_dir():
            return _whole(root / name, read)
    try:
        (path,) = verified(root, "cifar10-small")
    except DataError as error:
        raise DataError(f"{error}; {_HOW}") from None
    arrays = load_arrays(path, "settle data fetch")
    train_x, train_y, test_x, test_y = (_tensor(arrays[key]) for key in ("x_train", "y_train", "x_test", "y_test"))
    return Images(train_x, train_y, test_x, test_y, "small")


def _tensor(values: np.ndarray) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(values))
    return found.permute(0, 3, 1, 2).contiguous() if found.ndim == 4 else found.long()


Read = Callable[[Path], tuple[np.ndarray, np.ndarray]]


def _whole(folder: Path, read: Read) -> Images:
    suffix = ".bin" if read is _binary else ""
    parts = [read(folder / f"{name}{suffix}") for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")]
    if len({len(labels) for _, labels in parts}) > 1:
        raise DataError(
            f"{folder} is cut short: its six files must hold as many images each, got {[len(y) for _, y in parts]}"
        )
    pixels, classes = ([torch.from_numpy(part[at].copy()) for part in parts] for at in (0, 1))
    x = [values.view(-1, 3, 32, 32) for values in pixels]
    y = [values.long() for values in classes]
    return Images(torch.cat(x[:-1]), torch.cat(y[:-1]), x[-1], y[-1], "whole")


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = _content(path)
    if not content or len(content) % _RECORD:
        raise DataError(f"{path} is cut short: its size must be a multiple of {_RECORD} bytes, got {len(content)}")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:], _classes(path, records[:, 0].tolist())


def _pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = _Plain.read(path)
    held = {key.decode(errors="replace") if isinstance(key, bytes) else key: value for key, value in found.items()}
    pixels, classes = held.get("data"), held.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_RECORD - 1,):
        raise DataError(f"{path} must hold data, (N, {_RECORD - 1}) bytes, got {type(pixels).__name__}")
    if not isinstance(classes, list) or len(classes) != len(pixels):
        raise DataError(f"{path} must hold labels, one for each of {len(pixels)} images, got {type(classes).__name__}")
    return pixels, _classes(path, classes)


def _classes(path: Path, values: list[Any]) -> np.ndarray:
    for value in values:
        if not isinstance(value, int) or not 0 <= value <= 9:
            raise DataError(f"{path} must hold class numbers from 0 to 9, got {value!r:.40}")
    return np.array(values, dtype=np.int64)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_HOW}") from None


class _Plain(pickle.Unpickler):
    """Reads dictionaries, lists, texts, numbers and arrays; the first name of anything else ends it."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _TRUSTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)

    @classmethod
    def read(cls, path: Path) -> dict[Any, Any]:
        try:
            found = cls(io.BytesIO(_content(path)), encoding="bytes").load()
        except DataError:
            raise
        except Exception as error:  # a damaged pickle raises nearly anything
            raise DataError(f"{path} is damaged or holds more than arrays, texts and numbers: {error}") from None
        if not isinstance(found, dict):
            raise DataError(f"{path} must hold a dictionary, got {type(found).__name__}")
        return found
