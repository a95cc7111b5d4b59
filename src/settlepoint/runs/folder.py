"""RunFolder: the files of one run; every write is either whole on disk or not there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from settlepoint.runs.errors import RunError, WriteError
from settlepoint.runs.record import Record, plain

RESULTS = "result.jsonl"
_OURS = ("spec.json", "environment.json", RESULTS, "checks.json", "report.html")


@dataclass(frozen=True)
class RunFolder:
    """A folder with spec.json, environment.json, result.jsonl, checks.json and errors/."""

    path: Path

    @property
    def started(self) -> bool:
        """Whether a run lies here already."""
        return (self.path / "spec.json").exists()

    def create(self) -> None:
        """Make the folder. Raises RunError when something else is in the way."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {self.path}: {error.strerror}") from None

    def clear(self) -> None:
        """Delete the files of a run, and nothing else that lies here."""
        for name in _OURS:
            (self.path / name).unlink(missing_ok=True)
        for name in ("errors", "figures"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of this folder. Raises RunError when it is absent or broken."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path} has no {name}: it is not the folder of a run") from None
        except ValueError as error:
            raise RunError(f"{self.path / name} is not JSON: {error}") from None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file by writing beside it and renaming, so that a reader never sees half of it."""
        self._write(name, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")

    def append(self, record: Record) -> Record:
        """Add one line to the results, on disk when this returns; the text of a traceback goes into errors/.

        Raises WriteError when it cannot be written; the file is then as it was before.
        """
        if record.traceback is not None:
            name = f"errors/{_file_name(record.cell)}-{record.seed}.txt"
            self._write(name, record.traceback)
            record = replace(record, traceback=name)
        path = self.path / RESULTS
        before = path.stat().st_size if path.exists() else 0
        try:
            _append(path, (record.to_line() + "\n").encode())
        except OSError as error:
            _cut(path, before)
            raise self._failed(RESULTS, error) from error
        return record

    def records(self, *, mend: bool = False) -> tuple[list[Record], list[str]]:
        """All records, the newest of each pair, and notes on what was dropped.

        A last line torn by a kill is dropped, and with `mend` cut off the file. Raises RunError for a broken line
        elsewhere.
        """
        path = self.path / RESULTS
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        notes = []
        if len(whole) < len(data):
            notes.append(f"dropped the last line of {path}, torn by an interruption ({len(data) - len(whole)} bytes)")
            if mend:
                _cut(path, len(whole))
        return list({r.pair: r for r in self._parse(whole)}.values()), notes

    def _parse(self, data: bytes) -> list[Record]:
        records = []
        for number, line in enumerate(data.decode("utf-8", errors="replace").split("\n")[:-1], start=1):
            try:
                records.append(Record.from_line(line))
            except (ValueError, TypeError) as error:
                raise RunError(
                    f"line {number} of {self.path / RESULTS} is not a record: {error}; delete that line, and --resume "
                    "runs its cell again"
                ) from None
        return records

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        part = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(exist_ok=True)
            part.unlink(missing_ok=True)
            _append(part, text.encode())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: OSError) -> WriteError:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror or error)
        kept = len(self.records()[0])
        return WriteError(
            f"could not write {name} in {self.path}: {why}. The {kept} results already there are whole; "
            "make room and go on with --resume"
        )


def _append(path: Path, data: bytes) -> None:
    """Append, flush and fsync; unbuffered, so that a failure shows here and not at close."""
    with path.open("ab", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())


def _cut(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def _file_name(text: str) -> str:
    """A cell's name as a file name.

    >>> _file_name("Anderson(5) / hard")
    'Anderson_5____hard'
    """
    return "".join(c if c.isalnum() or c in "-." else "_" for c in text)
