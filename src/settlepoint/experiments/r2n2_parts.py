"""What the experiments on linear R2N2 share: families of several matrices, polynomial optima, restarted GMRES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from scipy.sparse.linalg import gmres
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.experiments.courses import Course
from settlepoint.learn import polynomial
from settlepoint.problems import Batch, Family, LinearFamily
from settlepoint.solvers.solver import Solver


@dataclass(frozen=True)
class MixedLinear(Family):
    """A_i x = b_i as x = x - (A_i x - b_i), the problems cycling through the matrices of several linear families.

    parameters: A (n, m, m) and b (n, m).
    """

    families: tuple[LinearFamily, ...]

    name = "mixed-linear"

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        b = torch.stack([family.sample(n, generator).parameters["b"] for family in self.families])
        which = torch.arange(n) % len(self.families)
        A = torch.stack([family.dense for family in self.families])
        b = b[which, torch.arange(n)]
        return Batch(torch.zeros_like(b), {"A": A[which], "b": b})

    def equation(self, batch: Batch) -> Equation:
        return Equation(relaxed, context=(batch.parameters["A"], batch.parameters["b"]))


def relaxed(x: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """P(x) = x - (A x - b), with a matrix a row."""
    return x - ((A @ x[:, :, None])[:, :, 0] - b)


def linear_batch(A: Tensor, b: Tensor) -> tuple[Equation, Tensor]:
    """The equation of A_i x = b_i, and x_0 = 0."""
    return Equation(relaxed, context=(A, b)), torch.zeros_like(b)


def iteration_operator(solver: Solver, A: Tensor) -> Tensor:  # (..., m, m)
    """I + sum_j zeta_j A^j, which takes r_k to r_{k+1}      (R2N2, SM4)

    zeta_j = (-1)^j p_j with p from `learn.polynomial`, since the residual of our fixed-point form is b - A x.
    """
    value = torch.zeros_like(A)
    for p in polynomial(solver).detach().flip(0).unbind():
        value = value @ -A + p * torch.eye(A.shape[-1], dtype=A.dtype)
    return value


def optimal_loss(
    batch: Batch, A: Tensor, stages: int, weights: Sequence[float], starts: int = 24
) -> float:  # the least of sum_k w_k mean_i |p(A_i)^k b_i|^2 over p(t) = 1 + sum_j zeta_j t^j
    """What no R2N2 of that many stages can fall below, from x_0 = 0; by scipy.optimize.least_squares over zeta.

    The loss needs the eigenvalues of the symmetric A_i (n, m, m) and the mean squares of b along their vectors alone.
    One iteration is linear least squares, solved by numpy.linalg.lstsq.
    """
    eigenvalues, squares = _spectrum(batch.parameters["b"], A)
    powers = np.stack([eigenvalues**j for j in range(1, stages + 1)], 1)

    def errors(zeta: np.ndarray) -> np.ndarray:
        p = 1 + powers @ zeta
        return np.concatenate([np.sqrt(w * squares) * p**k for k, w in enumerate(weights, 1) if w])

    first = np.linalg.lstsq(np.sqrt(squares)[:, None] * powers, -np.sqrt(squares), rcond=None)[0]
    if len(weights) == 1:
        return float(np.square(errors(first)).sum())
    noise = np.random.default_rng(0).normal(size=(starts, stages))
    noise[0] = 0
    tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "x_scale": "jac"}
    return min(2 * least_squares(errors, first + shift, **tight).cost for shift in noise)


def _spectrum(b: Tensor, A: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the distinct matrices, and the share in mean |b|^2 that lies along each."""
    distinct, which = torch.unique(A.flatten(1), dim=0, return_inverse=True)
    values, squares = [], []
    for i, flat in enumerate(distinct):
        lam, Q = np.linalg.eigh(flat.reshape(A.shape[1:]).numpy())
        values.append(lam)
        squares.append(np.square(b[which == i].numpy() @ Q).sum(0) / len(b))
    return np.concatenate(values), np.concatenate(squares)


def gmres_course(A: Tensor, b: Tensor, restart: int, iterations: int) -> Course:
    """scipy.sparse.linalg.gmres restarted after `restart` steps, a system (n, m, m), (n, m) after the other.

    An iteration counts as restart + 1 evaluations: its products, and the residual it starts from. Residuals are
    computed anew from the iterates.
    """
    rows = [_gmres(a, v, restart, iterations) for a, v in zip(A.numpy(), b.numpy(), strict=True)]
    paths = torch.tensor(rows, dtype=torch.float64)
    evals = (restart + 1.0) * torch.arange(iterations + 1, dtype=torch.float64)
    return Course(evals.expand_as(paths), paths)


def _gmres(A: np.ndarray, b: np.ndarray, restart: int, iterations: int) -> list[float]:
    path = [float(np.linalg.norm(b))]
    x = np.zeros_like(b)
    for _ in range(iterations):
        x, _ = gmres(A, b, x, rtol=0.0, atol=1e-14 * path[0], restart=restart, maxiter=1)
        path.append(float(np.linalg.norm(b - A @ x)))
    return path


def gain_ratio(ours: Course, peer: Course, k: int) -> Tensor:  # (R,)
    """(|f(x_0)| - |f(x_k)|) of ours over the same of the peer      (R2N2, Figs 4 and 7)"""
    return (ours.residual[:, 0] - ours.residual[:, k]) / (peer.residual[:, 0] - peer.residual[:, k])
