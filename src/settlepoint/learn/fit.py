"""fit: the weights of a solver, learned from problems of a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.objective import Objective, Residuals, Task, Trajectories, Weight
from settlepoint.learn.trainer import Errors, Report, Trainer
from settlepoint.problems import Batch, Family
from settlepoint.solvers.solver import Solver

Penalty = Callable[[Solver], Tensor]  # -> a vector whose squared length is added to the loss


@dataclass(frozen=True)
class Fit:
    """solver: trained, a copy. loss: of its weights on the training problems; test_loss: on the held-out ones.

    losses: (S,) of every start, inf for those that failed. history: an entry an iteration of the trainer, with the best
    loss so far. rate: the certified bound where one was asked for.
    """

    solver: Solver
    loss: float
    test_loss: float
    losses: Tensor
    history: list[dict[str, float]] = field(default_factory=list)
    rate: float | None = None
    notes: tuple[str, ...] = ()


def fit(
    solver: Solver,
    family: Family,
    iterations: int,
    weight: Weight | Objective | None = None,
    trainer: Trainer | None = None,
    penalty: Penalty | None = None,
    seed: int = 0,
    *,
    samples: int | Batch = 500,
    certify_interval: tuple[float, float] | None = None,
    progress: Report | None = None,
) -> Fit:
    """Trains the weights of solver so that `iterations` of its steps solve problems of the family well.

    weight: w_k of the k-th iteration, 4^k by default, for sum_k w_k mean |P(x_k) - x_k|^2 (families of form "rhs":
    w_k = 1 for sum_k w_k mean |x_k - x*_k|^2 / h^p, p = stages); or any Objective. trainer: LevenbergMarquardt() by
    default. penalty(solver): a vector whose squared length is added (R2N2, Eq. 4). samples: problems, of which 70 %
    train; or a Batch. certify_interval: see `learn.minimax`; the interval holds the spectrum of P'.
    progress(iteration, of, loss) is called as the trainer goes.

    The same seed gives the same weights. Raises ValueError when nothing can be trained, or every start fails.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations must be an integer >= 1, got {iterations!r}")
    _check_kinds(solver, family, weight, trainer, penalty)
    batch = samples if isinstance(samples, Batch) else family.sample(samples, generator(seed, 0))
    objective = _objective(family, solver, weight)
    if certify_interval is not None:
        from settlepoint.learn.minimax import fit_certified  # it trains by calling fit itself

        options = {"trainer": trainer, "penalty": penalty, "seed": seed, "progress": progress}
        return fit_certified(solver, family, iterations, objective, batch, certify_interval, options)
    model = Model(solver, objective, iterations, penalty)
    with torch.enable_grad():  # steps must not write in place under the transforms of torch.func
        return _trained(model, family, batch, trainer or LevenbergMarquardt(), seed, progress or _silent)


def _trained(model: Model, family: Family, batch: Batch, trainer: Trainer, seed: int, report: Report) -> Fit:
    train, test = (model.objective.prepare(family, part, model.iterations) for part in batch.split())
    starts = trainer.scattered(model.theta, generator(seed, 1))
    done = trainer.train(model.errors(train), starts, report)
    best = int(done.loss.argmin())
    if not bool(torch.isfinite(done.loss[best])):
        raise ValueError(
            f"all {len(starts)} starts of the training gave losses that are not finite; try fewer iterations than "
            f"{model.iterations}, or a smaller spread of the starts"
        )
    solver = model.solved(done.theta[best])
    held = Model(solver, model.objective, model.iterations)
    test_loss = float(held.errors(test)(held.theta).detach().square().sum())
    return Fit(solver, float(done.loss[best]), test_loss, done.loss.detach(), done.history)


class Model:
    """The trainable weights of a solver as one vector theta (p,), and the errors as a function of them."""

    def __init__(self, solver: Solver, objective: Objective, iterations: int, penalty: Penalty | None = None):
        self.solver, self.objective, self.iterations, self.penalty = solver, objective, iterations, penalty
        parameters = {name: p for name, p in solver.named_parameters() if p.requires_grad and p.numel()}
        if not parameters:
            raise ValueError(f"solver must have trainable weights, {solver!r} has none")
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.theta = torch.cat([p.detach().double().flatten() for p in parameters.values()])

    def errors(self, task: Task) -> Errors:
        """The objective's errors, and the penalty's, as a function of theta."""
        call = _Call(self.solver)

        def errors(theta: Tensor) -> Tensor:
            parts = {f"solver.{name}": part for name, part in self.parts(theta).items()}
            return torch.func.functional_call(call, parts, (self.objective, task, self.iterations, self.penalty))

        return errors

    def parts(self, theta: Tensor) -> dict[str, Tensor]:
        """theta cut into the parameters of the solver."""
        pieces = theta.split([shape.numel() for shape in self.shapes.values()])
        return {name: p.reshape(shape) for (name, shape), p in zip(self.shapes.items(), pieces, strict=True)}

    def solved(self, theta: Tensor) -> Solver:
        """A copy of the solver with these weights."""
        solver = deepcopy(self.solver)
        solver.load_state_dict(self.parts(theta), strict=False)
        return solver


class _Call(nn.Module):
    """What functional_call needs: a forward around a solver."""

    def __init__(self, solver: Solver):
        super().__init__()
        self.solver = solver

    def forward(self, objective: Objective, task: Task, iterations: int, penalty: Penalty | None) -> Tensor:
        errors = objective.errors(self.solver, task, iterations)
        if penalty is None:
            return errors
        more = penalty(self.solver)
        if not isinstance(more, Tensor):
            raise TypeError(f"penalty must return a tensor, made from the weights of the solver, got {more!r}")
        return torch.cat((errors, more.reshape(-1)))


def _check_kinds(solver: Any, family: Any, weight: Any, trainer: Any, penalty: Any) -> None:
    """Refuses what is no solver, family, weight, trainer or penalty."""
    for name, value, kind in (("solver", solver, Solver), ("family", family, Family), ("trainer", trainer, Trainer)):
        if not isinstance(value, kind) and not (name == "trainer" and value is None):
            found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise TypeError(f"{name} must be a {kind.__name__}, got {found}")
    if not (weight is None or isinstance(weight, Objective) or callable(weight)):
        raise TypeError(f"weight must be a function of k such as lambda k: 4.0**k, or an Objective, got {weight!r}")
    if not (penalty is None or callable(penalty)):
        raise TypeError(f"penalty must be a function of the solver, got {type(penalty).__name__}")


def _objective(family: Family, solver: Solver, weight: Weight | Objective | None) -> Objective:
    if isinstance(weight, Objective):
        return weight
    if family.form == "rhs":
        power = _stages(solver)
        return Trajectories(power) if weight is None else Trajectories(power, weight)
    return Residuals(weight or (lambda k: 4.0**k))


def _stages(solver: Solver) -> int:
    """n of an R2N2, anywhere inside the solver."""
    from settlepoint.solvers.r2n2 import R2N2

    found: Sequence[R2N2] = [m for m in solver.modules() if isinstance(m, R2N2)]
    return found[0].stages if found else 1


def generator(seed: int, stream: int) -> torch.Generator:
    """A generator for one of the streams of random numbers that a seed stands for."""
    return torch.Generator().manual_seed(1_000_003 * seed + stream)


def _silent(iteration: int, of: int, loss: float) -> None:
    """No report."""
