"""`import settlepoint` is light: nothing of the program or the extras, and quick beside torch."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = ("typer", "rich", "pydantic", "jinja2", "matplotlib", "scipy")
EXTRAS = ("torch_geometric", "diffusers", "transformers", "lightning_fabric", "ray", "optuna", "onnx", "onnxscript")
EXTRAS += ("onnxruntime", "sklearn", "torchdeq", "torchvision")
PROBE = """
import json, sys, time
import torch
start = time.perf_counter()
before = set(sys.modules)
import settlepoint
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "new": sorted({m.split(".")[0] for m in set(sys.modules) - before})}))
"""


def test_import_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert not set(seen["new"]) & set(PROGRAM + EXTRAS)
    assert seen["seconds"] < 1.0
