"""settlepoint where code calls SciPy: `linear_solve` for gmres, `root` for newton_krylov, `LearnedRK` for solve_ivp."""

from settlepoint.compat.bridge import torched
from settlepoint.compat.error_weights import fit_error_weights
from settlepoint.compat.learned_rk import LearnedRK
from settlepoint.compat.linear import linear_solve
from settlepoint.compat.root import root

__all__ = ["LearnedRK", "fit_error_weights", "linear_solve", "root", "torched"]
