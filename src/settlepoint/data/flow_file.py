"""Trajectories of a fluid in one file; what is done survives an interruption."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from settlepoint.data.files import appearing
from settlepoint.data.fluid import Flow
from settlepoint.data.graph_file import load_arrays
from settlepoint.data.navier_stokes import DRAWN, initial_vorticity, trajectories
from settlepoint.data.parts import parts_of
from settlepoint.data.registry import DataError

Report = Callable[[str, int, int], None]  # what is at work, how many are done, of how many
TOGETHER = 8  # trajectories in one tensor: what a core's cache holds at 64 points a side


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """What a file of trajectories holds: `count` of them, with a frame at time 0 and at every multiple of `every`.

    Trajectory i starts from a field drawn with a generator of its own, seeded by `seed` and i: it is the same whatever
    the count. Raises ValueError for a count below 1, a seed below 0, an `until` that is no multiple of `every`, an
    `every` that is none of the flow's dt, and a flow on more points than the fields at time 0 are drawn on.
    """

    count: int
    until: float = 50.0
    every: float = 1.0
    seed: int = 0
    flow: Flow = field(default_factory=Flow)

    def __post_init__(self):
        if self.count < 1 or self.seed < 0:
            raise ValueError(f"count must be at least 1 and seed at least 0, got {self.count} and {self.seed}")
        if not (0 < self.every < math.inf and 0 < self.until < math.inf):
            raise ValueError(f"until and every must be finite and above 0, got {self.until:g} and {self.every:g}")
        if self.frames < 2 or abs(self.times[-1] - self.until) > 1e-9 * self.until:
            raise ValueError(f"until must be a multiple of every = {self.every:g}, got {self.until:g}")
        steps, size = round(self.every / self.flow.dt), self.flow.size
        if steps < 1 or abs(steps * self.flow.dt - self.every) > 1e-9 * self.every:
            raise ValueError(f"every must be a multiple of dt = {self.flow.dt:g}, got {self.every:g}")
        if size > DRAWN:
            raise ValueError(f"size must be at most {DRAWN}, where the fields at time 0 are drawn, got {size}")

    @property
    def frames(self) -> int:
        """How many, the first at time 0 included."""
        return round(self.until / self.every) + 1

    @property
    def times(self) -> list[float]:
        """Of the frames."""
        return [frame * self.every for frame in range(self.frames)]


@dataclass(frozen=True, eq=False)
class Frames:
    """Vorticities w: (N, T, size, size), float32, at times (T,), and how they were made."""

    w: Tensor
    times: Tensor
    spec: Mapping[str, Any]


def write_trajectories(path: Path, wanted: Trajectories, report: Report = lambda what, done, of: None) -> Path:
    """Compute the trajectories on a CPU and write them as one npz that `frames` reads; path appears only when whole.

    Every eight are kept in the folder `parts.kept_in(path)` as they end, so that the same call goes on where it was
    interrupted; a part that is cut short is made again. An existing file is not touched. Raises DataError for a path
    that cannot be written or that another process is writing, FlowError as `trajectories` does; what was computed
    before stays.
    """
    groups = [range(start, min(start + TOGETHER, wanted.count)) for start in range(0, wanted.count, TOGETHER)]
    with parts_of(path) as folder:
        parts = [folder / f"{_digest(wanted)}-{rows.start}-{rows.stop}.npy" for rows in groups]
        for rows, part in zip(groups, parts, strict=True):
            report(f"trajectory {rows.start}", rows.start, wanted.count)
            if not _whole(part, (len(rows), *_shape(wanted)[1:])):
                with appearing(part) as half, half.open("wb") as file:
                    np.save(file, _computed(wanted, rows))
        report("writing", wanted.count, wanted.count)
        _join(path, parts, wanted)
        for part in folder.glob("*.npy"):
            part.unlink()
    return path


def frames(path: Path | str) -> Frames:
    """The trajectories of a file. Raises DataError for one that is missing, cut short, or not what was written."""
    arrays = load_arrays(Path(path), "settle data navier-stokes")
    lacking = [name for name in ("w", "times", "spec", "sha256") if name not in arrays]
    if lacking:
        raise DataError(f"{path} holds no trajectories: {', '.join(lacking)} is not there")
    w, times = arrays["w"], arrays["times"]
    if w.ndim != 4 or w.dtype != np.float32 or times.shape != w.shape[1:2] or w.shape[2] != w.shape[3]:
        raise DataError(f"{path}: w must be (N, T, n, n) float32 with T times, got {w.shape} {w.dtype}, {times.shape}")
    spec = str(arrays["spec"])
    digest = hashlib.sha256(np.ascontiguousarray(w).data)
    if _with(digest, times, spec).hexdigest() != str(arrays["sha256"]):
        raise DataError(f"{path}: the SHA-256 of what it holds is not the one written beside it; write it again")
    return Frames(torch.from_numpy(w), torch.from_numpy(times), json.loads(spec))


def _with(digest: Any, times: np.ndarray, spec: str) -> Any:
    """The digest of w, with the times and the spec behind it."""
    digest.update(np.ascontiguousarray(times, dtype="<f8").tobytes() + spec.encode())
    return digest


def _shape(wanted: Trajectories) -> tuple[int, ...]:
    return (wanted.count, wanted.frames, wanted.flow.size, wanted.flow.size)


def _whole(part: Path, shape: tuple[int, ...]) -> bool:
    """Whether a part of an earlier call can be used."""
    try:
        found = np.load(part, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return found.shape == shape and found.dtype == np.float32 and bool(np.isfinite(found).all())


def _digest(wanted: Trajectories) -> str:
    """Of all that decides a trajectory, the count aside."""
    return hashlib.sha256(json.dumps({**asdict(wanted), "count": 0}).encode()).hexdigest()[:16]


def _computed(wanted: Trajectories, rows: range) -> np.ndarray:  # (len(rows), T, n, n)
    seeds = [int(np.random.SeedSequence((wanted.seed, row)).generate_state(1)[0]) for row in rows]
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    first = torch.cat([initial_vorticity(1, draw, wanted.flow.size) for draw in draws])
    return torch.cat((first[:, None], trajectories(first, wanted.times[1:], wanted.flow)), 1).float().numpy()


def _join(path: Path, parts: list[Path], wanted: Trajectories) -> None:
    """One npz of all parts, one part in memory at a time."""
    digest, times, spec = hashlib.sha256(), np.array(wanted.times), json.dumps(asdict(wanted))
    header = {"descr": "<f4", "fortran_order": False, "shape": _shape(wanted)}
    with appearing(path) as half, zipfile.ZipFile(half, "w") as archive:
        with archive.open("w.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                block = np.load(part, allow_pickle=False).astype("<f4").tobytes()
                digest.update(block)
                file.write(block)
        small = {"times": times, "spec": spec, "sha256": _with(digest, times, spec).hexdigest()}
        for name, value in small.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)
