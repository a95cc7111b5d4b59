"""Gradients of a solve, one a file."""

from settlepoint.adjoints.adjoint import Adjoint
from settlepoint.adjoints.checkpointed import Checkpointed
from settlepoint.adjoints.implicit import Implicit
from settlepoint.adjoints.truncated import Truncated
from settlepoint.adjoints.unrolled import Unrolled

__all__ = ["Adjoint", "Checkpointed", "Implicit", "Truncated", "Unrolled"]
