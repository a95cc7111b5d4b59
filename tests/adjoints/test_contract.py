"""Every adjoint of the table keeps the contract."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contracts")
from tests.contracts import ADJOINTS, AdjointContract  # noqa: E402


@pytest.mark.parametrize("promised", ADJOINTS, ids=str)
class TestEveryAdjoint(AdjointContract):
    """The suite on the table."""
