"""settlepoint: make any network or equation iterate until it settles, and know whether to trust where it settled.

    x = lam*T(x) + f        T any function or nn.Module, solved row by row

Start with `solve`, or wrap a network in `FixedPoint`.
"""

from settlepoint.adjoints import Checkpointed, Implicit, Truncated, Unrolled
from settlepoint.equation import Equation
from settlepoint.iterate import iterate
from settlepoint.solution import (
    Gradient,
    GradientWarning,
    Solution,
    SolveError,
    Status,
    Trace,
)
from settlepoint.solve import FixedPoint, solve
from settlepoint.solvers import (
    R2N2,
    Aitken,
    Anderson,
    Auto,
    Broyden,
    Chebyshev,
    FirstStep,
    Halpern,
    Mann,
    NewtonKrylov,
    Picard,
    Safeguarded,
    Solver,
)
from settlepoint.spaces import Layout, Rows, Segments
from settlepoint.stop import FixedSteps, Tolerance

__version__ = "0.1.0"

__all__ = [
    "R2N2",
    "Aitken",
    "Anderson",
    "Auto",
    "Broyden",
    "Chebyshev",
    "Checkpointed",
    "Equation",
    "FirstStep",
    "FixedPoint",
    "FixedSteps",
    "Gradient",
    "GradientWarning",
    "Halpern",
    "Implicit",
    "Layout",
    "Mann",
    "NewtonKrylov",
    "Picard",
    "Rows",
    "Safeguarded",
    "Segments",
    "Solution",
    "SolveError",
    "Solver",
    "Status",
    "Tolerance",
    "Trace",
    "Truncated",
    "Unrolled",
    "iterate",
    "solve",
]
