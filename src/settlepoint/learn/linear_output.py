"""Least squares for the weights in which the errors are linear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.learn.trainer import Errors, Report, Trained, Trainer, check_starts, losses


@dataclass(frozen=True)
class LeastSquares(Trainer):
    """theta - J^+ e in one step: exact where the errors are linear in the weights that train.

    One iteration of R2N2 is linear in its output weights, for linear equations and for trajectories: switch
    `solver.inner.requires_grad_(False)` off first. Raises ValueError where the step shows the errors to be curved.
    """

    starts: int = 1
    spread: float = 0.0

    def __post_init__(self):
        check_starts(self.starts, self.spread)

    def train(self, errors: Errors, theta: Tensor, report: Report) -> Trained:
        solved = torch.stack([self._one(errors, start) for start in theta])
        loss = losses(errors, solved)
        report(1, 1, float(loss.min()))
        return Trained(solved, loss, [{"iteration": 1, "loss": float(loss.min())}])

    def _one(self, errors: Errors, theta: Tensor) -> Tensor:
        jacobian, e = torch.func.jacfwd(errors)(theta), errors(theta)
        step = -torch.linalg.lstsq(jacobian, e[:, None], driver="gelsd").solution[:, 0]
        foretold, found = e + jacobian @ step, errors(theta + step)
        scale = e.norm() + (jacobian @ step).norm()
        if not bool((found - foretold).norm() <= 1e-8 * scale):
            raise ValueError(
                "LeastSquares needs errors that are linear in the trained weights, and these are curved by "
                f"{float((found - foretold).norm() / scale):.1e} of their size; freeze the inner weights and train one "
                "iteration, or take LevenbergMarquardt"
            )
        return theta + step
