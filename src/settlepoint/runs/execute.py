"""execute: carry a plan out into a folder, from the start or from where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from settlepoint.lock import locked
from settlepoint.runs.engines import Engine, Local
from settlepoint.runs.environment import environment
from settlepoint.runs.errors import RunError
from settlepoint.runs.folder import RunFolder
from settlepoint.runs.plan import DECIDES, Plan
from settlepoint.runs.record import Record, plain
from settlepoint.runs.watch import watching

Mode = Literal["new", "resume", "replace"]


@dataclass(frozen=True)
class Ran:
    """What lies in the folder now. missing: pairs without a line; notes: what a person should know."""

    folder: RunFolder
    records: Sequence[Record]
    missing: Sequence[tuple[str, int]]
    interrupted: bool
    notes: Sequence[str]

    @property
    def failed(self) -> list[Record]:
        """The cells and seeds that raised."""
        return [record for record in self.records if record.error is not None]

    @property
    def complete(self) -> bool:
        """Every cell and seed has a result."""
        return not self.missing and not self.failed


def execute(plan: Plan, path: Path, *, mode: Mode = "new", engine: Engine | None = None) -> Ran:
    """Run what is missing; each finished cell is on disk before the next is told of.

    mode: "new" refuses a folder that holds a run, "resume" goes on with it and tries failed cells again, "replace"
    starts over. An interrupt (Ctrl-C) ends the run early and keeps what is done.

    Raises RunError for a wrong or busy folder, WriteError when a result cannot be written.
    """
    folder = RunFolder(path)
    folder.create()
    with locked(path, RunError):
        _prepare(folder, plan, mode)
        records, notes = folder.records(mend=True)
        done = {record.pair for record in records if record.error is None}
        todo = [pair for pair in plan.pairs if pair not in done]
        interrupted = _work(plan, folder, todo, engine or Local())
        return _ran(plan, folder, interrupted, notes)


def _prepare(folder: RunFolder, plan: Plan, mode: Mode) -> None:
    """Write the spec and the environment of this session, or refuse."""
    if mode == "replace":
        folder.clear()
    if mode == "new" and folder.started:
        raise RunError(f"{folder.path} holds a run already; go on with --resume, or choose another folder with --out")
    if mode == "resume" and folder.started:
        _same(folder, plan)
    sessions = folder.read_json("environment.json").get("sessions", []) if _has_environment(folder) else []
    folder.write_json("spec.json", plan.spec)
    folder.write_json("environment.json", {"sessions": [*sessions, environment(plan.spec["threads"])]})


def _has_environment(folder: RunFolder) -> bool:
    return (folder.path / "environment.json").exists()


def _same(folder: RunFolder, plan: Plan) -> None:
    there, now = folder.read_json("spec.json"), plain(plan.spec)
    lines = [line for key in DECIDES for line in _differences(key, there.get(key), now.get(key))]
    if lines:
        raise RunError(f"cannot resume {folder.path}, it was made from another spec:\n  " + "\n  ".join(lines))


def _differences(key: str, there: Any, now: Any) -> list[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*there, *now])
        return [line for k in keys for line in _differences(f"{key}.{k}", there.get(k), now.get(k))]
    return [] if there == now else [f"{key}: {there!r} there, {now!r} now"]


def _work(plan: Plan, folder: RunFolder, todo: Sequence[tuple[str, int]], engine: Engine) -> bool:
    """Run the pairs; True when interrupted."""
    if not todo:
        return False
    wanted = set(todo)
    with watching(plan.spec["id"], len(todo)) as watcher, closing(engine.run(plan, todo, watcher)) as records:  # pyright: ignore[reportArgumentType]
        try:
            for record in records:
                if record.pair in wanted:  # seeds that run together run again when one of them is missing
                    watcher.end(folder.append(record))
        except KeyboardInterrupt:
            return True
    return False


def _ran(plan: Plan, folder: RunFolder, interrupted: bool, notes: Sequence[str]) -> Ran:
    by_pair = {record.pair: record for record in folder.records()[0]}
    records = [by_pair[pair] for pair in plan.pairs if pair in by_pair]
    missing = [pair for pair in plan.pairs if pair not in by_pair]
    return Ran(folder, records, missing, interrupted, notes)
