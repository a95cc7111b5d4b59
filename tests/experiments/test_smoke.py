"""Every experiment runs from end to end at its smoke scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.launch import Request, launch


@pytest.mark.slow
@pytest.mark.parametrize("name", REGISTRY.modules)
def test_it_runs(name: str, tmp_path: Path) -> None:
    run = launch(REGISTRY.load(name), Request(scale="smoke", out=tmp_path / name))
    assert run.exit_code == 0, [check for check in run.checks if not check.passed]
