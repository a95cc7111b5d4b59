"""What every test stands on: one thread, seeds as fixtures, hypothesis without chance."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu need one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture
def seed() -> int:
    """The seed of a test that needs one."""
    return 20_240_917


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    """A CPU generator started at the seed."""
    return torch.Generator().manual_seed(seed)
