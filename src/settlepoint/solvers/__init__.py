"""Everything that looks for a fixed point, one method a file."""

from settlepoint.solvers.aitken import Aitken
from settlepoint.solvers.anderson import Anderson
from settlepoint.solvers.auto import Auto
from settlepoint.solvers.broyden import Broyden
from settlepoint.solvers.chebyshev import Chebyshev
from settlepoint.solvers.first_step import FirstStep
from settlepoint.solvers.halpern import Halpern
from settlepoint.solvers.mann import Mann
from settlepoint.solvers.newton_krylov import NewtonKrylov
from settlepoint.solvers.picard import Picard
from settlepoint.solvers.r2n2 import R2N2
from settlepoint.solvers.safeguarded import Safeguarded
from settlepoint.solvers.solver import Solver, State

__all__ = [
    "R2N2",
    "Aitken",
    "Anderson",
    "Auto",
    "Broyden",
    "Chebyshev",
    "FirstStep",
    "Halpern",
    "Mann",
    "NewtonKrylov",
    "Picard",
    "Safeguarded",
    "Solver",
    "State",
]
