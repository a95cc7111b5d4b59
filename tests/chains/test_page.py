"""The Python blocks of docs/decoding.md run as they stand."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[2] / "docs" / "decoding.md"


def test_python_blocks_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 4
    assert bool(names["found"].converged.all())
