"""The parts of a file that takes long to make: what is done survives an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from settlepoint.data.registry import DataError
from settlepoint.lock import locked


def kept_in(path: Path) -> Path:
    """The folder that keeps the parts of a file while it is being made."""
    return path.with_name(path.name + ".parts")


def new_file(path: Path) -> Path:
    """The path, if a file may be written there. Raises DataError when it exists or does not end in .npz."""
    if path.suffix != ".npz":
        raise DataError(f"{path} must end in .npz")
    if path.exists():
        raise DataError(f"{path} exists already: remove it or name another")
    return path


@contextmanager
def parts_of(path: Path) -> Iterator[Path]:
    """The folder `kept_in(path)`, held by this process alone; it goes with the block once path is there, if empty.

    Raises DataError as `new_file` does, for a folder that cannot be made, and when another process is at work there.
    """
    folder = kept_in(new_file(path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"could not write {path}: {error}") from error
    with locked(folder, DataError):
        yield folder
    if path.exists() and [left.name for left in folder.iterdir()] == ["lock"]:
        with suppress(OSError):  # another process may have come in between: what it holds stays
            (folder / "lock").unlink()
            folder.rmdir()
