"""SciPy's calls exchanged for ours: products, evaluations and time of `linear_solve` and `root` beside its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from scipy.optimize import newton_krylov
from scipy.sparse.linalg import LinearOperator, gmres

from settlepoint.compat.scipy import linear_solve, root
from settlepoint.experiments.experiment import Check, Column, Context, Experiment, Results, Scale, Table, outcome
from settlepoint.learn import fit
from settlepoint.problems import Chandrasekhar, LinearFamily
from settlepoint.runs.seeds import seed_from
from settlepoint.solvers import R2N2, Anderson, Solver

Call = Callable[[Callable[[np.ndarray], np.ndarray]], np.ndarray]  # what it is given counts its calls
RTOL, F_TOL, RESTART = 1e-5, 1e-8, 20


@dataclass(frozen=True, kw_only=True)
class ScipyScale(Scale):
    """Sizes of the comparison."""

    side: Annotated[int, "points a side of the Poisson and wind problems"] = 30
    waves: Annotated[int, "points a side of the Helmholtz problems"] = 16
    repeats: Annotated[int, "timed runs; the fastest counts"] = 5


class FromScipy(Experiment):
    """Rows of the tables are problems."""

    id = "from-scipy"
    title = "linear_solve and root beside gmres and newton_krylov"
    claim = (
        "Called like SciPy's, ours meet the same tolerance. Anderson(2) takes half the evaluations of newton_krylov on "
        "the H-equation; linear_solve saves products on Poisson, and takes more of them, and more time, elsewhere."
    )
    source = "compat.scipy; SciPy's gmres and newton_krylov"
    scales: ClassVar = {
        "smoke": ScipyScale(seeds=1, side=8, waves=6, repeats=1),
        "cpu": ScipyScale(seeds=3),
        "paper": ScipyScale(seeds=10, side=100, waves=32),
    }
    scaled_down: ClassVar = {"smoke": "8^2 and 6^2 points instead of 30^2 and 16^2"}
    tables: ClassVar = (
        Table(
            "Linear systems, products to rtol = 1e-5",
            (
                Column("scipy", "gmres", fmt=".0f", better="low"),
                Column("ours", "linear_solve", fmt=".0f", better="low"),
                Column("same restart", "the same, restart = 20", fmt=".0f"),
                Column("learned", "solver=learned", fmt=".0f"),
                Column("scipy ms", "gmres", "ms", fmt=".2f"),
                Column("ours ms", "linear_solve", "ms", fmt=".2f"),
                Column("learned ms", "learned", "ms", fmt=".2f"),
                Column("miss", "worst residual over tolerance", fmt=".2f"),
            ),
            ("Poisson", "wind", "Helmholtz .2i - .3", "Helmholtz .5i - 1", "A1"),
            "Right-hand sides of random numbers, restart = 20 for gmres, as by default. linear_solve keeps 50 vectors "
            "for complex systems. learned: R2N2(4) trained on other right-hand sides of A1.",
        ),
        Table(
            "Nonlinear systems, evaluations to f_tol = 1e-8",
            (
                Column("scipy", "newton_krylov", fmt=".0f", better="low"),
                Column("ours", "root", fmt=".0f"),
                Column("anderson", "solver=Anderson(2)", fmt=".0f", better="low"),
                Column("learned", "solver=learned", fmt=".0f"),
                Column("scipy ms", "newton_krylov", "ms", fmt=".2f"),
                Column("ours ms", "root", "ms", fmt=".2f"),
                Column("anderson ms", "Anderson(2)", "ms", fmt=".2f"),
                Column("miss", "worst residual over tolerance", fmt=".2f"),
            ),
            ("H-equation",),
            "Chandrasekhar's H-equation with 50 unknowns, c = .9, from 1 + N(0, .2). learned: R2N2(3) trained on 10 "
            "and 20 unknowns.",
        ),
    )

    def cells(self, scale: ScipyScale) -> Sequence[str]:
        return tuple(cell for table in self.tables for cell in table.rows)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: ScipyScale = context.scale
        rng = np.random.default_rng(seed_from(self.id, cell, seed))
        context.progress(cell)
        system, calls, tolerance = _nonlinear(rng) if cell == "H-equation" else _linear(cell, scale, rng)
        metrics, worst = {}, 0.0
        for name, call in calls.items():
            count, seconds, residual = _measured(system, call, scale.repeats)
            metrics |= {name: float(count), f"{name} ms": 1e3 * seconds}
            worst = max(worst, residual / tolerance)
        return outcome(metrics | {"evals": metrics["ours"], "miss": worst})

    def checks(self, results: Results) -> Sequence[Check]:
        met = [Check.at_most(f"{c}: residual over tolerance", max(results.values(c, "miss")), 1) for c in results.cells]
        if results.scale_name == "smoke":
            return met
        mean = results.mean
        ratio = lambda cell, ours: mean(cell, ours) / mean(cell, "scipy")  # noqa: E731
        return [
            *met,
            Check.at_most("Poisson: products over gmres", ratio("Poisson", "ours"), 1),
            Check.at_most("A1: products of the learned solver over gmres", ratio("A1", "learned"), 2),
            Check.at_most("H-equation: Anderson(2) over newton_krylov", ratio("H-equation", "anderson"), 0.6),
        ]


def grid(m: int, wind: float = 0.0) -> sp.csr_array:
    """The five-point Laplacian on m x m points, with a wind across it."""
    line = sp.diags_array([-1.0 - wind, 2.0, -1.0 + wind], offsets=[-1, 0, 1], shape=(m, m))  # pyright: ignore[reportArgumentType]
    return sp.csr_array(sp.kron(sp.eye_array(m), line) + sp.kron(line, sp.eye_array(m)))


def matrix(cell: str, scale: ScipyScale) -> Any:
    """The matrix of a cell, in units of its diagonal on grids."""
    if cell == "A1":
        return LinearFamily("A1").dense.numpy()
    if cell in ("Poisson", "wind"):
        return grid(scale.side, 0.9 * (cell == "wind")) / 4
    shift = 0.2j - 0.3 if cell == "Helmholtz .2i - .3" else 0.5j - 1
    return sp.csr_array((grid(scale.waves) / 4).astype(complex) + shift * sp.eye_array(scale.waves**2))


def _linear(cell: str, scale: ScipyScale, rng: np.random.Generator) -> tuple[_System, dict[str, Call], float]:
    """b - A x, the calls that solve it given x -> A x, and the tolerance in the 2-norm."""
    A = matrix(cell, scale)
    b = rng.normal(size=A.shape[0]) + (1j * rng.normal(size=A.shape[0]) if np.iscomplexobj(A[:1]) else 0)
    operator = lambda product: LinearOperator(A.shape, matvec=product, dtype=b.dtype)  # noqa: E731  # pyright: ignore
    ours = lambda product, **options: linear_solve(operator(product), b, rtol=RTOL, **options)[0]  # noqa: E731
    calls: dict[str, Call] = {
        "scipy": lambda product: gmres(operator(product), b, rtol=RTOL, restart=RESTART)[0],
        "ours": ours,
        "same restart": partial(ours, restart=RESTART),
    }
    if cell == "A1":
        calls["learned"] = partial(ours, solver=_learned(LinearFamily("A1"), R2N2(4), 3))
    return _System(lambda x: A @ x, lambda x: float(np.linalg.norm(b - A @ x))), calls, RTOL * float(np.linalg.norm(b))


def _nonlinear(rng: np.random.Generator) -> tuple[_System, dict[str, Call], float]:
    mu = (np.arange(50) + 0.5) / 50
    kernel = 0.9 * mu[:, None] / (100 * (mu[:, None] + mu))
    F = lambda x: x - 1 / (1 - kernel @ x)  # noqa: E731
    x0 = 1 + 0.2**0.5 * rng.normal(size=50)
    ours = lambda f, **options: root(f, x0, f_tol=F_TOL, **options)  # noqa: E731
    calls: dict[str, Call] = {
        "scipy": lambda f: newton_krylov(f, x0, f_tol=F_TOL),
        "ours": ours,
        "anderson": partial(ours, solver=Anderson(2)),
        "learned": partial(ours, solver=_learned(Chandrasekhar(), R2N2(3), 2)),
    }
    return _System(F, lambda x: float(np.abs(F(x)).max())), calls, F_TOL


@dataclass(frozen=True)
class _System:
    """What is called and counted, and the norm of the residual at an x."""

    function: Callable[[np.ndarray], np.ndarray]
    residual: Callable[[np.ndarray], float]


def _learned(family: LinearFamily | Chandrasekhar, start: R2N2, iterations: int) -> Solver:
    with torch.enable_grad():
        return fit(start, family, iterations, samples=300).solver


def _measured(system: _System, call: Call, repeats: int) -> tuple[int, float, float]:
    """Calls of the function, CPU seconds, and the residual in the end."""
    seconds, count, x = float("inf"), 0, np.empty(0)
    for _ in range(repeats):
        count = 0

        def counted(v: np.ndarray) -> np.ndarray:
            nonlocal count
            count += 1
            return system.function(v)

        begin = time.process_time()
        x = call(counted)
        seconds = min(seconds, time.process_time() - begin)
    return count, seconds, float(system.residual(x))


EXPERIMENT = FromScipy()
