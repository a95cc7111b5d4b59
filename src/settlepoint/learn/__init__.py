"""Fitting solvers to a problem class, and racing them against the classical ones."""

from settlepoint.learn.files import SolverFileError, evidence, load, save
from settlepoint.learn.fit import Fit, fit
from settlepoint.learn.gradient import LBFGS, Adam
from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.linear_output import LeastSquares
from settlepoint.learn.minimax import certified_rate, minimax, polynomial
from settlepoint.learn.objective import Digits, Objective, Relative, Residuals, Trajectories
from settlepoint.learn.penalties import order_conditions
from settlepoint.learn.trainer import Trainer
from settlepoint.learn.tune import tune
from settlepoint.learn.tuned import Budget, Tuned

__all__ = [
    "LBFGS",
    "Adam",
    "Budget",
    "Digits",
    "Fit",
    "LeastSquares",
    "LevenbergMarquardt",
    "Objective",
    "Relative",
    "Residuals",
    "SolverFileError",
    "Trainer",
    "Trajectories",
    "Tuned",
    "certified_rate",
    "evidence",
    "fit",
    "load",
    "minimax",
    "order_conditions",
    "polynomial",
    "save",
    "tune",
]
