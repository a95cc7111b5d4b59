"""Levenberg-Marquardt: least squares from all starts at once, in one vectorised program."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.learn.trainer import Errors, Report, Trained, Trainer, check_starts, losses

_UP, _DOWN = 4.0, 5.0  # factors of the damping after a refused and after an accepted step
_GIVEN_UP = 1e10  # damping at which a start counts as settled
_STEP = 1e-6  # of finite differences, relative to 1 + |theta|


@dataclass(frozen=True)
class LevenbergMarquardt(Trainer):
    """(J^T J + mu diag(J^T J)) d = -J^T e,  theta + d taken when it lowers |e|^2          (Marquardt 1963)

    iterations: at most. gain: a start is settled after three accepted steps in a row that lower its loss by less than
    this share. keep: share of the starts that go on after `trial` iterations, the best ones; 1 keeps all.
    jacobian: "forward", derivatives forward through the solver; "difference", p + 1 calls, for equations without
    derivatives.
    """

    starts: int = 12
    iterations: int = 100
    spread: float = 0.5
    gain: float = 1e-4
    keep: float = 0.5
    trial: int = 15
    jacobian: str = "forward"

    def __post_init__(self):
        check_starts(self.starts, self.spread)
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise ValueError(f"iterations must be an integer >= 0, got {self.iterations!r}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {self.keep}")
        if self.jacobian not in ("forward", "difference"):
            raise ValueError(f"jacobian must be 'forward' or 'difference', got {self.jacobian!r}")

    def train(self, errors: Errors, theta: Tensor, report: Report) -> Trained:
        walk = _Walk(self, errors, theta)
        for k in range(self.iterations):
            if k == self.trial and self.keep < 1:
                walk.thin(self.keep)
            if not walk.advance():
                break
            walk.note(k)
            report(k + 1, self.iterations, walk.history[-1]["loss"])
        return Trained(walk.theta, walk.loss, walk.history)


class _Walk:
    """The starts under way: weights, losses, damping, and which of them still move."""

    def __init__(self, rule: LevenbergMarquardt, errors: Errors, theta: Tensor):
        self.rule, self.errors, self.theta = rule, errors, theta.clone()
        self.loss = _finite(self._losses(theta))
        self.damping = torch.full_like(self.loss, 1e-2)
        self.idle = torch.zeros_like(self.loss)
        self.moving = torch.isfinite(self.loss)
        self.calls = float(len(theta))
        self.history: list[dict[str, float]] = []
        self.stale = torch.ones_like(self.moving)  # starts whose system is to be made anew
        self.system: tuple[Tensor, Tensor] | None = None  # (S, p, p), (S, p) of every start

    def advance(self) -> bool:
        """One trial step of every start that moves; False when none does."""
        index = self.moving.nonzero()[:, 0]
        if not len(index):
            return False
        self._linearise(index)
        assert self.system is not None
        square, slope = (s[index] for s in self.system)
        scale = square.diagonal(dim1=1, dim2=2)
        floor = 1e-12 * scale.amax(1, keepdim=True) + torch.finfo(scale.dtype).tiny
        damped = square + torch.diag_embed(self.damping[index, None] * scale.clamp(min=floor))
        step, trouble = torch.linalg.solve_ex(damped, -slope)
        trial = self.theta[index] + step
        loss = _finite(self._losses(trial))
        self.calls += len(index)
        self._judge(index, trial, loss, better=(loss < self.loss[index]) & (trouble == 0))
        return True

    def _judge(self, index: Tensor, trial: Tensor, loss: Tensor, better: Tensor) -> None:
        small = loss >= (1 - self.rule.gain) * self.loss[index]
        idle = torch.where(better & small, self.idle[index] + 1, torch.where(better, 0.0, self.idle[index]))
        damping = torch.where(better, self.damping[index] / _DOWN, self.damping[index] * _UP)
        self.theta[index] = torch.where(better[:, None], trial, self.theta[index])
        self.loss[index] = torch.where(better, loss, self.loss[index])
        self.damping[index], self.idle[index] = damping.clamp(min=1e-15), idle
        self.moving[index] = (idle < 3) & (damping < _GIVEN_UP) & (self.loss[index] > 0)
        self.stale[index] = better

    def _linearise(self, index: Tensor) -> None:
        """J^T J and J^T e afresh for the starts that have moved since."""
        if self.system is None:
            s, p = self.theta.shape
            self.system = self.theta.new_zeros(s, p, p), self.theta.new_zeros(s, p)
        due = index[self.stale[index]]
        if not len(due):
            return
        square, slope = _system(self.errors, self.theta[due], self.rule.jacobian)
        self.system[0][due], self.system[1][due] = square, slope
        self.stale[due] = False
        self.calls += len(due) * (1 + self.theta.shape[1])

    def thin(self, keep: float) -> None:
        """Only the best share of the starts goes on."""
        count = max(1, round(keep * len(self.loss)))
        worst = self.loss.argsort()[count:]
        self.moving[worst] = False

    def note(self, k: int) -> None:
        self.history.append({"iteration": k + 1, "loss": float(self.loss.min()), "calls": self.calls})

    def _losses(self, theta: Tensor) -> Tensor:
        if self.rule.jacobian == "difference":
            return torch.stack([self.errors(t).square().sum() for t in theta])
        return losses(self.errors, theta)


def _system(errors: Errors, theta: Tensor, jacobian: str) -> tuple[Tensor, Tensor]:  # (S, p) -> (S, p, p), (S, p)
    """J^T J and J^T e."""
    if jacobian == "difference":
        pairs = [_difference(errors, t) for t in theta]
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    def one(t: Tensor) -> tuple[Tensor, Tensor]:
        basis = torch.eye(len(t), dtype=t.dtype, device=t.device)
        e, columns = torch.func.vmap(lambda v: torch.func.jvp(errors, (t,), (v,)))(basis)[:2]
        return columns @ columns.mT, columns @ e[0]

    return torch.func.vmap(one)(theta)


def _difference(errors: Errors, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The same by forward differences."""
    e = errors(theta)
    sizes = _STEP * (1 + theta.abs())
    columns = torch.stack([(errors(theta + d) - e) / s for d, s in zip(torch.diag(sizes), sizes, strict=True)])
    return columns @ columns.mT, columns @ e


def _finite(loss: Tensor) -> Tensor:
    """loss, infinite where it is not a number."""
    return torch.where(torch.isfinite(loss), loss, torch.inf)
