"""Every solver of the table keeps the contract."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contracts")
from tests.contracts import SOLVERS, SolverContract  # noqa: E402


@pytest.mark.parametrize("promise", SOLVERS, ids=str)
class TestEverySolver(SolverContract):
    """The suite on the table."""
