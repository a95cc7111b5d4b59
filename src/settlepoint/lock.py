"""One writer a folder: a lock that the operating system drops when its process dies, so that none goes stale."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, refusal: type[Exception]) -> Iterator[None]:
    """Hold `folder/lock`, which names the process that holds it. A file left by a dead process does not count.

    Raises the refusal, naming the other process, when another one is writing there.
    """
    path = folder / "lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise refusal(f"{folder} is being written by process {file.read().strip() or 'unknown'}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            # Emptied, not deleted: deleting lets a third process lock a new file beside a waiting second one.
            file.truncate(0)
