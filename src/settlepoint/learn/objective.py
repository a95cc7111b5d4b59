"""Objectives: what the weights of a solver are trained to make small, as a sum of squares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.problems import Batch, Family
from settlepoint.solvers.solver import Solver

Weight = Callable[[int], float]


@dataclass(frozen=True)
class Course:
    """What a solver did: iterates and residuals after 1, 2, ..., K iterations, each (R, W).

    residuals[k] = P(x) - x, of the last iterate too, where it was asked for; else one fewer.
    """

    iterates: tuple[Tensor, ...]
    residuals: tuple[Tensor, ...]


def rollout(solver: Solver, eq: Equation, z: Tensor, iterations: int, *, check: bool = True) -> Course:
    """K iterations from z (R, W), nothing stopped, everything kept; differentiable, also by torch.func."""
    iterates, residuals = [], []
    r, state = eq.flat(z) - z, None
    for k in range(iterations):
        state = solver.init(eq, z, r) if state is None else state
        z, state, _ = solver.step(eq, z, r, state)
        iterates.append(z)
        if check or k + 1 < iterations:
            r = eq.flat(z) - z
            residuals.append(r)
    return Course(tuple(iterates), tuple(residuals))


@dataclass(frozen=True)
class Task:
    """Problems to train on: the bound equation eq at z (R, W), and what the objective has prepared."""

    eq: Equation
    z: Tensor
    target: Tensor | None = None  # (R, K, W)
    divisor: Tensor | None = None  # (R,), or (R, number of looks)


class Objective(ABC):
    """Prepares a task once, then gives the vector whose squared length is the loss."""

    @abstractmethod
    def prepare(self, family: Family, batch: Batch, iterations: int) -> Task:
        """The task of these problems."""

    @abstractmethod
    def errors(self, solver: Solver, task: Task, iterations: int) -> Tensor:  # (M,)
        """Vector whose sum of squares is the loss."""


@dataclass(frozen=True)
class Residuals(Objective):
    """sum_k w_k mean_i |P(x_ik) - x_ik|^2 over the iterations k = 1 ... K       (R2N2, Eq. 9; w_k = 4^k)

    Iterations of weight 0 cost no rows.
    """

    weight: Weight

    def prepare(self, family: Family, batch: Batch, iterations: int) -> Task:
        return _bound(family, batch)

    def errors(self, solver: Solver, task: Task, iterations: int) -> Tensor:
        course = rollout(solver, task.eq, task.z, iterations)
        scales = [(_weight(self.weight, k) / len(task.z)) ** 0.5 for k in range(1, iterations + 1)]
        return torch.cat([(s * r).flatten() for s, r in zip(scales, course.residuals, strict=True) if s])


@dataclass(frozen=True)
class Trajectories(Objective):
    """sum_k w_k mean_i |x_ik - x*_ik|^2 / h_i^p over the steps k = 1 ... K      (R2N2, Eq. 10; w_k = 1)

    x*: `Family.trajectory`. power: p.
    """

    power: float
    weight: Weight = lambda k: 1.0

    def prepare(self, family: Family, batch: Batch, iterations: int) -> Task:
        task = _bound(family, batch)
        if batch.h is None:
            raise ValueError(f"an objective on trajectories needs step sizes h, which {family.name} does not give")
        return Task(task.eq, task.z, family.trajectory(batch, iterations), batch.h**self.power)

    def errors(self, solver: Solver, task: Task, iterations: int) -> Tensor:
        assert task.target is not None
        assert task.divisor is not None
        course = rollout(solver, task.eq, task.z, iterations, check=False)
        scale = (1 / (task.divisor * len(task.z))).sqrt()[:, None]
        weights = [_weight(self.weight, k) ** 0.5 for k in range(1, iterations + 1)]
        pairs = zip(weights, course.iterates, task.target.unbind(1), strict=True)
        return torch.cat([(w * scale * (x - exact)).flatten() for w, x, exact in pairs if w])


@dataclass(frozen=True)
class Relative(Objective):
    """mean_i sum_{k in at} |x_ik - x*_ik|^2 / e_ik^2, with e_ik the error of the solver `peer` after as many steps.

    For integrators over many steps: problems whose steps differ in size count alike, which powers of h do not achieve.
    Where the peer is exact by chance, e is a third of what its errors are at that step size (a power of h
    fitted to them).
    """

    peer: Solver
    at: tuple[int, ...]

    def prepare(self, family: Family, batch: Batch, iterations: int) -> Task:
        task = Trajectories(0.0).prepare(family, batch, iterations)
        assert task.target is not None
        assert batch.h is not None
        if not self.at or min(self.at) < 1 or max(self.at) > iterations:
            raise ValueError(f"at must hold steps from 1 to {iterations}, got {self.at}")
        with torch.no_grad():
            course = rollout(self.peer, task.eq, task.z, iterations, check=False)
        gaps = torch.stack([task.eq.norm(course.iterates[k - 1] - task.target[:, k - 1]) for k in self.at], 1)
        least = torch.finfo(gaps.dtype).eps * task.eq.norm(task.target[:, -1])[:, None]
        gaps = torch.maximum(gaps, least.clamp(min=torch.finfo(gaps.dtype).tiny))
        powers = torch.stack((torch.ones_like(batch.h), batch.h.log()), 1)
        usual = (powers @ torch.linalg.lstsq(powers, gaps.log(), driver="gelsd").solution).exp()
        return Task(task.eq, task.z, task.target, torch.maximum(gaps, usual / 3))

    def errors(self, solver: Solver, task: Task, iterations: int) -> Tensor:
        assert task.target is not None
        assert task.divisor is not None
        course = rollout(solver, task.eq, task.z, iterations, check=False)
        gaps = [
            (course.iterates[k - 1] - task.target[:, k - 1]) / task.divisor[:, j, None] for j, k in enumerate(self.at)
        ]
        return torch.cat([gap.flatten() for gap in gaps]) / len(task.z) ** 0.5


@dataclass(frozen=True)
class Digits(Objective):
    """mean_i (log10(|r_i| / tolerance) + reserve)^2, r_i the last residual: the digits that are missing.

    For solvers whose iterations differ so much in size that squares of residuals see the worst rows alone. tolerance is
    absolute, in the norm of the space; reserve: decades below it that still count.
    """

    tolerance: float
    reserve: float = 6.0

    def prepare(self, family: Family, batch: Batch, iterations: int) -> Task:
        return _bound(family, batch)

    def errors(self, solver: Solver, task: Task, iterations: int) -> Tensor:
        r = rollout(solver, task.eq, task.z, iterations).residuals[-1]
        floor = self.tolerance * 10.0**-self.reserve
        square = task.eq.dot(r, r) + floor**2
        return (0.5 * torch.log10(square) - torch.log10(square.new_tensor(floor))) / len(task.z) ** 0.5


def _weight(weight: Weight, k: int) -> float:
    """w_k, checked."""
    value = weight(k)
    if not 0 <= value < float("inf"):
        raise ValueError(f"weight must be >= 0 and finite, got {value} at k = {k}")
    return value


def _bound(family: Family, batch: Batch) -> Task:
    eq = family.equation(batch).at(batch.x0)
    assert eq.layout is not None
    return Task(eq, eq.layout.flatten(batch.x0))
