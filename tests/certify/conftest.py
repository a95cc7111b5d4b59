"""Layers of torch and of torch-geometric draw their weights from the global generator: it starts at the seed."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded(seed: int) -> None:
    """The same weights in every run, whatever ran before."""
    torch.manual_seed(seed)
