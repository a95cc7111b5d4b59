"""The machine, the versions and the commit behind a result."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("settlepoint", "torch", "numpy", "scipy", "scikit-learn", "torch-geometric", "torchdeq")


def environment(threads: int) -> dict[str, Any]:
    """What stands in environment.json for one session: versions, processor, GPU, threads, git, start."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": threads,
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the checkout this code lies in and whether it was changed; None for an installed package."""
    here = Path(__file__).parent
    head = _output("git", "-C", str(here), "rev-parse", "HEAD")
    if head is None or _output("git", "-C", str(here), "ls-files", "--error-unmatch", __file__) is None:
        return None
    return {"commit": head, "changed": bool(_output("git", "-C", str(here), "status", "--porcelain", "-uno"))}


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
