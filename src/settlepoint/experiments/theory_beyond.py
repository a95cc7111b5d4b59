"""What the papers leave open: learned linear solvers, proofs without a norm below 1, other metrics, no fixed point."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from settlepoint.certify import (
    bielecki,
    class_rate,
    contraction_bound,
    displacement,
    exclusion_radius,
    jacobians,
    kantorovich,
    matrix_rate,
    perron,
    residual_polynomial,
    thomson,
)
from settlepoint.equation import Equation
from settlepoint.experiments.r2n2_parts import linear_batch
from settlepoint.experiments.theory_trials import (
    SLACK,
    Statement,
    Trials,
    bounds,
    iterates,
    length,
    normal,
    single,
    sized,
    together,
    uniform,
    values,
)
from settlepoint.solve import solve
from settlepoint.solvers import R2N2, NewtonKrylov
from settlepoint.stop import FixedSteps, Tolerance

_ROWS = 10  # of each draw of weights
SPECTRUM = (0.2, 1.8)


def _solver(g: torch.Generator) -> R2N2:
    """A linear R2N2 with two stages and random weights."""
    return R2N2(2, theta=0.4 * normal(g, 3) + 0.4)


def on_a_class(n: int, g: torch.Generator) -> Trials:
    """||r_1|| / ||r_0|| on spectra in [.2, 1.8] against the largest of five training eigenvalues and class_rate."""
    return together([_trained(g) for _ in range(n)])


def _trained(g: torch.Generator, points: int = 400) -> Trials:
    solver = _solver(g)
    seen = uniform(g, *SPECTRUM, 5)
    whole = torch.linspace(*SPECTRUM, points, dtype=torch.float64)
    rate = lambda spectrum: _shrunk(solver, torch.diag(spectrum)).amax()[None]  # noqa: E731
    bound = single(class_rate(residual_polynomial(solver), *SPECTRUM))
    return bounds(rate(seen), bound, rate(whole), evals=2 * solver.stages)


def _shrunk(solver: R2N2, A: Tensor) -> Tensor:  # (m, m) -> (m,)
    """|r_1 / r_0| entry by entry after one iteration, r_0 = b = 1."""
    eq, x0 = linear_batch(A[None], torch.ones(1, len(A), dtype=torch.float64))
    x = solve(eq, x0, solver, FixedSteps(1)).value
    return eq.residual(x)[0].abs()  # pyright: ignore[reportArgumentType, reportIndexIssue]


def on_a_matrix(n: int, g: torch.Generator) -> Trials:
    """Whether a learned solver converges, by ||p(A)||_2 < 1, by the spectral radius of p(A), and by running it."""
    return together([_run(g, min(_ROWS, n)) for _ in range(max(1, n // _ROWS))])


def _run(g: torch.Generator, count: int, m: int = 4, steps: int = 200) -> Trials:
    """A triangular, with a spectrum in [.2, 1.8]; rates within 3 % of 1 are left out."""
    solver = _solver(g)
    A = 2 * normal(g, count, m, m).triu(1) + torch.diag_embed(uniform(g, *SPECTRUM, count, m))
    p = residual_polynomial(solver)
    radius, norm = torch.tensor([matrix_rate(p, a) for a in A], dtype=torch.float64).T
    keep = (radius.log().abs() > 0.03).nonzero()[:, 0]
    eq, zero = linear_batch(A[keep], torch.zeros(len(keep), m, dtype=torch.float64))  # x* = 0 has no rounding
    done = solve(eq, zero + normal(g, len(keep), m), solver, FixedSteps(steps, check=True), trace=True)
    assert done.trace is not None
    course = torch.cat((done.trace.residual, done.residual[None])).double()
    measured = (course[-1] / course[0]).nan_to_num(nan=torch.inf) ** (1 / steps)
    radius, norm, settles = radius[keep], norm[keep], measured < 1
    rises = course[1:] > course[:-1] * (1 + SLACK)
    wrong = ((radius < 1) != settles) | ((norm < 1) & rises.any(0))
    evals = steps * solver.stages * len(keep)
    return Trials(norm, radius, measured, (norm < 1) != settles, wrong, bound=False, evals=evals)


def at_the_point(n: int, g: torch.Generator) -> Trials:
    """||x - x*|| against the radius with L = ||W||_2 = 2 and that of Kantorovich's theorem, x = tanh(W x + u)."""
    return together([_tanh(g, min(_ROWS, n)) for _ in range(max(1, n // _ROWS))])


def _tanh(g: torch.Generator, count: int, m: int = 16) -> Trials:
    W, u = sized(normal(g, m, m), 2.0), normal(g, count, m)
    eq = Equation(lambda x, u: torch.tanh(x @ W.T + u), context=(u,))
    found = solve(eq, torch.zeros_like(u), NewtonKrylov(), Tolerance(1e-9, max_steps=200))
    d = normal(g, count, m)
    x = found.value + 1e-6 * d / length(d)[:, None]  # pyright: ignore[reportOperatorIssue]
    proof, exact = kantorovich(eq, x), _polished(eq, x)
    residual = length(eq.residual(x))  # pyright: ignore[reportArgumentType]
    return bounds(
        contraction_bound(residual, 2.0), proof.radius, torch.where(proof.proved, length(x - exact), 0.0),
        evals=int(found.work) + 6 * m * count,
    )  # fmt: skip


def _polished(eq: Equation, x: Tensor) -> Tensor:
    """Newton's method from x, five steps with dense Jacobians."""
    bound, eye = eq.at(x), torch.eye(x.shape[1], dtype=x.dtype)
    for _ in range(5):
        x = x + torch.linalg.solve(eye - jacobians(bound, x), bound.flat(x) - x)
    return x


def entry_by_entry(n: int, g: torch.Generator) -> Trials:
    """||x - x*|| against ||P(x) - x|| / (1 - rho(W)) and the radius by the Perron root of |W|, which is .9."""
    return together([_nilpotent(g) for _ in range(n)])


def _nilpotent(g: torch.Generator, count: int = 4, m: int = 4) -> Trials:
    """W = p q^T with q orthogonal to p, of spectral radius 0."""
    p, q = normal(g, m), normal(g, m)
    W = torch.outer(p, q - (p @ q) / (p @ p) * p)
    W = 0.9 * W / torch.linalg.eigvals(W.abs()).abs().max()
    eq = Equation(lambda x, u: torch.tanh(x @ W.T + u), context=(2 * normal(g, count, m),))
    course = iterates(eq, normal(g, count, m), 500)
    x, rho = course[1], torch.linalg.eigvals(W).abs().max()
    residual = length(course[2] - x)
    return bounds(contraction_bound(residual, rho), perron(eq, x).radius, length(x - course[-1]), evals=500 * count)


def positive(n: int, g: torch.Generator, m: int = 4, degree: float = 0.5) -> Trials:
    """||x - x*|| against ||P(x) - x|| / (1 - mu) and Thomson's radius: P(x) = (W x + b)^mu, ||W||_2 up to 100."""
    W = sized(uniform(g, 0, 1, n, m, m), 10 ** uniform(g, 0, 2, n))
    b = uniform(g, 0, 1, n, m)
    eq = Equation(lambda x, W, b: ((W @ x[:, :, None])[:, :, 0] + b) ** degree, context=(W, b))
    course = iterates(eq, uniform(g, 0.1, 3, n, m), 100)
    j = torch.randint(5, (n,), generator=g)
    x, image = (course[j + i, torch.arange(n)] for i in (0, 1))
    short = contraction_bound(length(image - x), degree)
    return bounds(short, thomson(eq, x, degree).radius, length(x - course[-1]), evals=100 * n)


def any_weights(n: int, g: torch.Generator, starts: int = 9) -> Trials:
    """Positive fixed points of x = tanh(W x) + 1.2 against 1 for all W, and 1 for W >= 0 alone."""
    a, signed = uniform(g, 0.6, 5, n), torch.arange(n) % 2 == 0
    ones = torch.ones(2, 2, dtype=torch.float64)
    W = a[:, None, None] * torch.where(signed[:, None, None], ones - 2 * (1 - torch.eye(2, dtype=torch.float64)), ones)
    eq = Equation(lambda x, W: torch.tanh((W @ x[:, :, None])[:, :, 0]) + 1.2, context=(W.repeat(starts, 1, 1),))
    x = uniform(g, 0.1, 3, starts, n, 2)
    x[0] = x[0, :, :1]  # a start with two equal entries keeps them
    last = iterates(eq, x.reshape(-1, 2), 300)[-1].reshape(starts, n, 2)
    found = torch.tensor([float(len(v.unique(dim=0))) for v in last.mul(1e6).round().unbind(1)], dtype=torch.float64)
    return bounds(torch.ones(n), torch.where(signed, torch.inf, 1.0), found, evals=300 * starts * n)


def volterra(n: int, g: torch.Generator, points: int = 61, L: float = 10.0) -> Trials:
    """||x - x*|| against the sup norm, where L T = 6, and Bielecki's weights: x(t) = f(t) + int_0^t L_i sin x ds."""
    t = torch.linspace(0, 0.6, points, dtype=torch.float64)
    h, slope = float(t[1]), uniform(g, 0.1, 1, n, 1) * L
    f = normal(g, n, 1) + normal(g, n, 1) * torch.sin(uniform(g, 0, 5, n, 1) * t)
    f[0], slope[0] = 0.0, L

    def integral(x: Tensor, slope: Tensor) -> Tensor:
        y = slope * torch.sin(x)
        return torch.cumulative_trapezoid(y, dx=h, dim=1)

    padded = lambda x, slope: torch.nn.functional.pad(integral(x, slope), (1, 0))  # noqa: E731
    eq = Equation(padded, f, context=(slope,))
    exact, x = (iterates(e, f, 150)[-1] for e in (eq, replace(eq, f=f + 1e-6)))
    residual = (eq.image(x) - x).abs().amax(1)  # pyright: ignore[reportOperatorIssue]
    short = contraction_bound(residual, L * float(t[-1])) * math.sqrt(points)
    return bounds(short, bielecki(eq, x, t, L).radius, length(x - exact), evals=300 * n)


def drift(n: int, g: torch.Generator, steps: int = 1000) -> Trials:
    """||v||, the smallest ||P(x) - x||, by ||x_k|| / k and by 2 ||x_k - x_0|| / k of Halpern's iterates, to 5 %."""
    angle, v = uniform(g, 0.5, 2.5, n), normal(g, n, 2)
    v = v * (uniform(g, 0.5, 2, n) / length(v))[:, None]
    c, s = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((c, -s), 1), torch.stack((s, c), 1)), 1)

    def P(x: Tensor, turn: Tensor, v: Tensor) -> Tensor:
        return torch.cat(((turn @ x[:, :2, None])[:, :, 0] + 1, x[:, 2:] + v), 1)

    found = displacement(Equation(P, context=(turn, v)), torch.zeros(n, 4, dtype=torch.float64), steps)
    return values(found.size / 2, found.size, length(v), 0.05, evals=2 * steps * n).but(~found.moved)


def excluded(n: int, g: torch.Generator, m: int = 4) -> Trials:
    """||x - x*|| is not >= ||P(x) - x|| but >= ||P(x) - x|| / (1 + L): as bounds of the residual."""
    A, x, exact = sized(normal(g, n, m, m), 2.0), normal(g, n, m), normal(g, n, m)
    A[0] = -2 * torch.eye(m, dtype=torch.float64)
    eq = Equation(lambda x, A, c: c + (A @ (x - c)[:, :, None])[:, :, 0], context=(A, exact))
    residual, away = length(eq.residual(x)), length(x - exact)  # pyright: ignore[reportArgumentType]
    reach = exclusion_radius(eq, x, bound=2.0)
    return bounds(away, away * residual / reach, residual, evals=2 * n).but(reach > away * (1 + SLACK))


STATEMENTS = {
    "R2N2 on a class": Statement(
        "What a learned solver did to the eigenvalues it was trained on bounds nothing else of their class; "
        "class_rate, the maximum of its polynomial over the interval, does.",
        on_a_class,
        costly=True,
    ),
    "R2N2, a matrix": Statement(
        "A linear R2N2 (SM4) converges for all right-hand sides just when the spectral radius of p(A) is below 1; a "
        "norm below 1 is not needed, and gives monotone decrease.",
        on_a_matrix,
    ),
    "Kantorovich": Statement(
        "With ||W||_2 = 2 the whole space says nothing about tanh(W x + u); the Newton map at the point proves "
        "existence and a radius.",
        at_the_point,
        wrong=False,
        costly=True,
    ),
    "Perron": Statement(
        "The spectral radius of W is no rate of tanh(W x + u), not even when it is 0 as here; the Perron root of |W| "
        "is one, in a weighted sup norm.",
        entry_by_entry,
        costly=True,
    ),
    "Thomson": Statement(
        "(W x + b)^.5 with W, b >= 0 has the rate .5 for every ||W||, but in Thomson's metric: read in the 2-norm the "
        "same rate is wrong.",
        positive,
    ),
    "Thomson, any W": Statement(
        "A positive subhomogeneous activation does not settle any W: tanh(W x) + 1.2 with W = [[a, -a], [-a, a]] has "
        "three positive fixed points; W >= 0 is needed.",
        any_weights,
    ),
    "Bielecki": Statement(
        "A Volterra equation with L T = 6 is no contraction in the sup norm, yet is one in exp(beta t)-weighted ones, "
        "where its radius is finite.",
        volterra,
        wrong=False,
    ),
    "displacement": Statement(
        "Without a fixed point x_k / k of Halpern's iterates tends to v / 2, not to the smallest displacement v; "
        "2 (x_k - x_0) / k does (an estimate, within 5 %).",
        drift,
    ),
    "exclusion": Statement(
        "A fixed point may lie nearer than ||P(x) - x||, by a factor 1 + L: for P = -2 x the residual is 3 ||x||.",
        excluded,
    ),
}
