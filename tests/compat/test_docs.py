"""The Python blocks of docs/scipy.md run as they stand, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "scipy.md"


def test_the_page_runs():
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(compile(block, PAGE.name, "exec"), names)
        if "info" in names and "mu" not in names:
            assert names["info"] == 0
            assert np.allclose(names["A"] @ names["x"], names["b"])
        if "mu" in names and "family" not in names:
            assert np.abs(names["F"](names["x"])).max() <= 1e-8
    assert names["found"].success
    assert abs(names["learned"].tableau()[1].sum().item() - 1) < 1e-4
    assert abs(names["E"] - 0.5 * np.sin(names["E"]) - 1).item() <= 6e-6
