"""Where the data sets lie, whether their files are whole, and how to fetch them."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from settlepoint.data.registry import DataError, DataFile, Dataset, dataset

VARIABLE = "SETTLEPOINT_DATA"
State = Literal["ok", "absent", "corrupt"]


@dataclass(frozen=True)
class FileState:
    """What stands at the place of a data file; found is its SHA-256, empty when absent."""

    file: DataFile
    path: Path
    state: State
    found: str = ""

    @property
    def problem(self) -> str:
        """One sentence for a person: what is wrong and which file to put where."""
        if self.state == "absent":
            return f"{self.path} is missing: put {Path(self.file.path).name} there (SHA-256 {self.file.sha256})"
        return f"{self.path} is corrupt: expected SHA-256 {self.file.sha256}, found {self.found}"


def data_dir(option: Path | str | None = None, needs: str | None = None) -> Path:
    """The data folder: `option` (from --data-dir), else $SETTLEPOINT_DATA.

    needs: the data set it is wanted for, named in the message. Raises DataError when neither is given or the folder
    does not exist.
    """
    given = option or os.environ.get(VARIABLE)
    if not given:
        raise DataError(f"no data folder: give --data-dir DIR or set {VARIABLE}=DIR{_needed(needs)}")
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist{_needed(needs)}")
    return folder


def _needed(needs: str | None) -> str:
    if needs is None:
        return ""
    names = ", ".join(f"DIR/{file.path}" for file in dataset(needs).files)
    return f", with these files of {needs} in it: {names}"


def states(folder: Path, wanted: Dataset) -> list[FileState]:
    """The state of each file, its SHA-256 read."""
    return [_state(folder, file) for file in wanted.files]


def present(folder: Path, wanted: Dataset) -> int:
    """How many files are there, by name and size alone."""
    paths = [(folder / file.path, file.size) for file in wanted.files]
    return sum(path.is_file() and path.stat().st_size == size for path, size in paths)


def verified(folder: Path, name: str) -> list[Path]:
    """The paths of a data set's files, all of them whole. Raises DataError naming each file that is not."""
    found = states(folder, dataset(name))
    problems = [state.problem for state in found if state.state != "ok"]
    if problems:
        raise DataError("\n".join(problems))
    return [state.path for state in found]


def _state(folder: Path, file: DataFile) -> FileState:
    path = folder / file.path
    if not path.is_file():
        return FileState(file, path, "absent")
    found = sha256(path)
    return FileState(file, path, "ok" if found == file.sha256 else "corrupt", found)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Another name to write to: the file becomes `path` where the block ends well, and is gone where it does not.

    Raises DataError when it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise DataError(f"could not write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


Open = Callable[[str], BinaryIO]


def _open(url: str) -> BinaryIO:
    return urllib.request.urlopen(url, timeout=30)


def fetch(folder: Path, name: str, *, opened: Open = _open) -> Sequence[Path]:
    """Download what is missing or corrupt of a data set; a file appears under its name only when it is whole.

    Raises DataError when a file has no public address, the network does not answer, or what came is something else;
    the message says which file to put where.
    """
    wanted = states(folder, dataset(name))
    return [_fetch(state, opened) for state in wanted if state.state != "ok"]


def _fetch(state: FileState, opened: Open) -> Path:
    file, path = state.file, state.path
    by_hand = f"put {Path(file.path).name} at {path} (SHA-256 {file.sha256})"
    if file.url is None:
        raise DataError(f"{file.path} has no public address; {by_hand}")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened(file.url) as source, part.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        found = sha256(part)
        if found != file.sha256:
            raise DataError(f"{file.url} gave another file (SHA-256 {found}); {by_hand}")
        return part.replace(path)
    except OSError as error:  # URLError, timeouts and full disks alike
        raise DataError(f"could not fetch {file.url}: {_reason(error)}; {by_hand}") from error
    finally:
        part.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return str(error.reason) if isinstance(error, urllib.error.URLError) else str(error)
