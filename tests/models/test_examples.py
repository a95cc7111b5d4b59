"""The scripts of examples/ run as they are and print what they promise."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _as_found(monkeypatch: pytest.MonkeyPatch):
    state = torch.get_rng_state()
    monkeypatch.setattr(sys, "argv", ["example"])
    yield
    torch.set_rng_state(state)


@pytest.mark.slow
def test_digits(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "digits.py"))
    printed = capsys.readouterr().out
    assert float(printed.split()[1]) > 90
    assert "{'CONVERGED': 397}" in printed


@pytest.mark.slow
@pytest.mark.skipif("SETTLEPOINT_DATA" not in os.environ, reason="needs the Cora files in SETTLEPOINT_DATA")
def test_cora(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "cora.py"))
    printed = capsys.readouterr().out
    assert float(printed.split()[2]) > 80
    assert "{'CONVERGED': 1}" in printed
