"""RelativeErrors: the objective for integrators over long horizons."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.learn import Objective, Trajectories
from settlepoint.learn.objective import Task, rollout
from settlepoint.problems import Batch, Family
from settlepoint.solvers import Solver


@dataclass(frozen=True)
class RelativeErrors(Objective):
    """mean_i mean_k (log10(e_ik / c_ik) - log10(floor))^2, e_ik = |x_ik - x*_ik|, c_ik the same of a classical method

    for the steps k in `at`, with e_ik^2 + (floor c_ik)^2 in the place of e_ik^2. Errors over a long horizon differ by
    orders of magnitude from sample to sample; a sum of their squares would see the largest alone.
    """

    classical: Solver
    at: tuple[int, ...]
    floor: float = 1e-3

    def prepare(self, family: Family, batch: Batch, iterations: int) -> Task:
        task = Trajectories(0).prepare(family, batch, iterations)
        assert task.target is not None
        with torch.no_grad():
            path = rollout(self.classical, task.eq, task.z, iterations, check=False)
        return replace(task, divisor=(torch.stack(path.iterates, 1) - task.target).square().sum(2))

    def errors(self, solver: Solver, task: Task, iterations: int) -> Tensor:
        assert task.target is not None
        assert task.divisor is not None  # (R, K), squared errors of the classical method
        path = rollout(solver, task.eq, task.z, iterations, check=False)
        parts = []
        for k in self.at:
            square = (path.iterates[k - 1] - task.target[:, k - 1]).square().sum(1) / task.divisor[:, k - 1]
            parts.append(torch.log1p(square / self.floor**2) / (2 * torch.log(square.new_tensor(10.0))))
        return torch.cat(parts) / (len(self.at) * len(task.z)) ** 0.5
