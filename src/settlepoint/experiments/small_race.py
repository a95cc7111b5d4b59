"""Many small systems at the same time: CPU time to equal tolerance, of our solvers and of what is written plainly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.experiments.measuring import cpu_seconds
from settlepoint.learn.objective import rollout
from settlepoint.problems import Batch, SmallSystems
from settlepoint.solve import solve
from settlepoint.solvers import Aitken, Anderson, Picard, Solver
from settlepoint.stop import Tolerance

SMALL = SmallSystems()
TOLERANCES = (1e-4, 1e-6, 1e-8)
RIVALS: dict[str, Solver] = {"Aitken": Aitken(), "Anderson(2)": Anderson(2)}
"""The classical solvers that were fastest on these systems among all of the library."""

Plain = Callable[[Equation, Batch, float], int]  # to a tolerance; returns its evaluations


def timed(name: str, contender: Solver | Plain, batch: Batch, repeats: int) -> dict[str, float]:
    """CPU milliseconds, mean evaluations, and the best rival's time over this one's, at every tolerance.

    limit: what that ratio would be if nothing but the evaluations of this one took time.
    The rivals run beside it in every round. inf evaluations and gain 0 where a row was not solved.
    """
    eq, metrics = SMALL.equation(batch), {}
    for tolerance in TOLERANCES:
        stop = Tolerance(tolerance, max_steps=400, window=60)
        variants: dict[str, Callable[[], object]] = {
            n: partial(solve, eq, batch.x0, s, stop) for n, s in RIVALS.items()
        }
        with torch.no_grad():
            if isinstance(contender, Solver):
                variants[name] = partial(solve, eq, batch.x0, contender, stop)
                solution = solve(eq, batch.x0, contender, stop)
                evals = float(solution.evals.double().mean()) if bool(solution.converged.all()) else np.inf
            else:
                variants[name] = partial(contender, eq, batch, tolerance)
                evals = float(contender(eq, batch, tolerance))
            seconds = cpu_seconds(variants, repeats)
        rival = min(seconds[n] for n in RIVALS)
        gain = rival / seconds[name] if np.isfinite(evals) else 0.0
        found = {"ms": 1e3 * seconds[name], "evals small": evals, "gain": gain}
        found["limit"] = 1e3 * rival / (evals * bare_milliseconds(batch, repeats))
        metrics |= {f"{key} {tolerance:g}": value for key, value in found.items()}
    return metrics


def bare_milliseconds(batch: Batch, repeats: int) -> float:
    """CPU milliseconds of one evaluation of P on all rows."""
    eq = SMALL.equation(batch)
    with torch.no_grad():
        return 1e3 * cpu_seconds({"P": lambda: eq.operator(batch.x0, *eq.context)}, 10 * repeats)["P"]


def learned_inverse(batch: Batch, steps: int = 6) -> Callable[[Tensor], Tensor]:
    """v -> M v with the M (m, m) nearest to what takes residuals to errors: argmin sum |M r_k - (x* - x_k)|^2 / |r_k|^2
    over the first iterates of Picard on these problems.
    """
    eq, exact = SMALL.equation(batch).at(batch.x0), SMALL.reference(batch)
    with torch.no_grad():
        states = [batch.x0, *rollout(Picard(), eq, batch.x0, steps).iterates]
        pairs = [(eq.flat(x) - x, exact - x) for x in states]
        sizes = [eq.norm(r)[:, None] for r, _ in pairs]
        r, e = (torch.cat([pair[i] / n for pair, n in zip(pairs, sizes, strict=True)]) for i in (0, 1))
        M = torch.linalg.lstsq(r, e, driver="gelsd").solution
    return lambda v: v @ M


def plain_loop(eq: Equation, batch: Batch, tolerance: float) -> int:
    """Picard as everybody writes it, the whole batch until its slowest row is done."""
    x: Tensor = batch.x0
    for k in range(1, 1000):
        image = eq.operator(x, *eq.context)
        assert isinstance(image, Tensor)
        if float(torch.linalg.vector_norm(image - x, dim=1).amax()) <= tolerance:
            return k
        x = image
    return 1000


def newton(eq: Equation, batch: Batch, tolerance: float) -> int:
    """Newton's method on all rows by numpy.linalg.solve; an evaluation comes with a Jacobian."""
    K, g, b = SMALL.kernel.numpy(), batch.parameters["g"].numpy()[:, None], batch.parameters["b"].numpy()
    x, eye = batch.x0.numpy(), np.eye(len(K))
    for k in range(1, 50):
        w = 1 / np.sqrt(1 + x * x)
        F = x - b - g * ((x * w) @ K)
        if np.sqrt((F**2).sum(1).max()) <= tolerance:
            return k
        x = x - np.linalg.solve(eye - g[:, :, None] * K * (w**3)[:, None], F[:, :, None])[:, :, 0]
    return 50
