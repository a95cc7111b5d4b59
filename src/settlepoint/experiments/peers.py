"""What a user would take instead: plain loops, torchdeq, SciPy, each stopped at the same residual as ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from settlepoint.experiments.cells import Problem


@dataclass(frozen=True)
class Answer:
    """value: (R, D); calls: evaluations of the whole batch; claimed: (R,), rows the method says are solved."""

    value: Tensor
    calls: int
    claimed: Tensor


Peer = Callable[[Problem], Answer]


def required(context: object = None) -> None:
    """Raise ImportError, naming the extra, when torchdeq is not installed."""
    try:
        import torchdeq  # noqa: F401
    except ImportError:
        raise ImportError('comparisons need torchdeq: pip install "settlepoint[peers]"') from None


class Counted:
    """P of a problem, counting its calls."""

    def __init__(self, problem: Problem):
        self.problem, self.calls = problem, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.problem.whole(x)


def _within(problem: Problem, x: Tensor, image: Tensor) -> Tensor:
    stop = problem.stop
    gap = torch.linalg.vector_norm(image - x, dim=1)
    return gap <= stop.atol + (stop.rtol * torch.linalg.vector_norm(image, dim=1) if stop.rtol else 0.0)


def plain_loop(problem: Problem) -> Answer:
    """The loop everybody writes: iterate the whole batch until its slowest row is done."""
    f, x = Counted(problem), problem.x0
    good = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(problem.stop.max_steps):
        image = f(x)
        good = _within(problem, x, image)
        if bool(good.all()) or not bool(torch.isfinite(image).all()):
            break
        x = image
    return Answer(x, f.calls, good)


def plain_anderson(problem: Problem, depth: int = 5) -> Answer:
    """Textbook Anderson(5): differences in lists, least squares by a batched solve with a small relative ridge."""
    f, x = Counted(problem), problem.x0
    images: list[Tensor] = []
    residuals: list[Tensor] = []
    good = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(problem.stop.max_steps):
        image = f(x)
        good = _within(problem, x, image)
        if bool(good.all()) or not bool(torch.isfinite(image).all()):
            break
        images, residuals = [*images, image][-depth - 1 :], [*residuals, image - x][-depth - 1 :]
        x = image if len(images) == 1 else _mixed(images, residuals)
    return Answer(x, f.calls, good)


def _mixed(images: list[Tensor], residuals: list[Tensor]) -> Tensor:
    d_image = torch.stack([b - a for a, b in pairwise(images)], 1)
    d_residual = torch.stack([b - a for a, b in pairwise(residuals)], 1)
    gram = d_residual @ d_residual.mT
    ridge = 1e-12 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype)
    right = (d_residual @ residuals[-1][:, :, None])[:, :, 0]
    weights = torch.linalg.solve_ex(gram + ridge, right)[0].nan_to_num(0.0)
    return images[-1] - (weights[:, None] @ d_image)[:, 0]


def torchdeq(name: str, **options: float) -> Peer:
    """A solver of torchdeq at the same tolerance: relative where the problem's is, else absolute.

    Its tolerance is for the whole batch (the slowest row ends all); rows are claimed by its own lowest residual.
    """

    def solve(problem: Problem) -> Answer:
        from torchdeq.solver import get_solver

        stop, f = problem.stop, Counted(problem)
        mode, tol = ("rel", stop.rtol) if stop.rtol else ("abs", stop.atol)
        run = get_solver(name)
        value, _, info = run(f, problem.x0, max_iter=stop.max_steps, tol=tol, stop_mode=mode, **options)
        return Answer(value, f.calls, (info[f"{mode}_lowest"] <= tol).reshape(-1))

    return solve


def scipy_newton_krylov(problem: Problem) -> Answer:
    """scipy.optimize.newton_krylov on all rows as one vector, float64, to the tightest row's tolerance."""
    from scipy.optimize import NoConvergence, newton_krylov

    x0, f = problem.x0, Counted(problem)

    def residual(v: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(v).reshape(x0.shape).to(x0.dtype)
        return (f(x) - x).double().numpy().reshape(-1)

    size = float(torch.linalg.vector_norm(problem.whole(x0), dim=1).double().min())
    tol = max(problem.stop.atol, problem.stop.rtol * size)
    norm = lambda v: float(np.linalg.norm(v.reshape(len(x0), -1), axis=1).max())  # noqa: E731
    claimed = True
    try:
        v = newton_krylov(residual, x0.double().numpy().reshape(-1), f_tol=tol, maxiter=100, tol_norm=norm)
    except NoConvergence as error:
        v, claimed = error.args[0], False
    except (ValueError, FloatingPointError):  # singular Jacobian, or NaN in its line search
        v, claimed = x0.double().numpy().reshape(-1), False
    value = torch.from_numpy(np.asarray(v)).reshape(x0.shape).to(x0.dtype)
    return Answer(value, f.calls, torch.full((len(x0),), claimed))


PEERS: dict[str, Peer] = {
    "plain loop": plain_loop,
    "plain loop, Anderson(5)": plain_anderson,
    "torchdeq fixed_point_iter": torchdeq("fixed_point_iter"),
    "torchdeq anderson": torchdeq("anderson"),
    "torchdeq anderson lam=1e-12": torchdeq("anderson", lam=1e-12),
    "torchdeq broyden": torchdeq("broyden"),
    "scipy newton_krylov": scipy_newton_krylov,
}
