"""How a row of the target table is measured: CPU seconds of variants in turn, and the peak of memory of a call."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Measure = Callable[[int], tuple[float, float]]
"""Ours and the peer's number, of so many repeats."""


def cpu_seconds(variants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least CPU seconds of each variant over `repeats` rounds, in every round one call of each; one call before.

    Every other round goes backwards: what the variant before leaves in caches and heap is worth some per cent.
    """
    best = dict.fromkeys(variants, float("inf"))
    names = list(variants)
    for call in variants.values():
        call()
    for k in range(repeats):
        for name in names if k % 2 == 0 else reversed(names):
            start = time.process_time()
            variants[name]()
            best[name] = min(best[name], time.process_time() - start)
    return best


def alone(call: Callable[..., Any], *given: object, **malloc: int) -> Any:
    """What call(*given) returns in a process of its own, one thread, with these settings of glibc's malloc."""
    with _environment(**malloc), multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(call, given)


def peak(call: Callable[[], object]) -> float:
    """MB by which a call's peak passes what is resident before it; for use inside of `alone`."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on; getrusage would inherit the parent's
    before = _status_kib("VmRSS")
    call()
    return (_status_kib("VmHWM") - before) / 1024


def _status_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


@contextmanager
def _environment(**values: int) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
