"""Fitting solvers to a problem class, and racing them against the classical ones."""

from settlepoint.learn.fit import Fit, fit
from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.objective import Digits, Objective, Residuals, Trajectories
from settlepoint.learn.trainer import Trainer

__all__ = ["Digits", "Fit", "LevenbergMarquardt", "Objective", "Residuals", "Trainer", "Trajectories", "fit"]
