"""Theorems 1 to 3 of Operator Learning Meets Numerical Analysis, their corollaries and B.4, on random contractions."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from settlepoint.certify import after_step, ball, banach, distance_after, lipschitz_upper, steps_needed, traced
from settlepoint.equation import Equation
from settlepoint.experiments.show import curve
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
    slopes,
    together,
    uniform,
)

K = 0.2  # of T in Theorem 1: that of the counterexample
_UNITS = 16.0  # of eps sqrt(m) (||x|| + ||P(x)||) that an evaluation may be off by


def mixture(z: Tensor, A: Tensor, s: Tensor) -> Tensor:  # (N, m), (N, m, m), (N,)
    """T(z) = A ((1 - s) z + s tanh z), of Lipschitz constant ||A||_2."""
    return (A @ torch.lerp(z, z.tanh(), s[:, None])[:, :, None])[:, :, 0]


def equations(n: int, g: torch.Generator, m: int = 3) -> Equation:
    """x = lam T(x) + f with k = .2 and |lam| k in [.3, .95).

    The first is T = .2 z, lam = 4, f = (1, 0, 0); the second T = .2 diag(1, .8, .6) z, lam = 4, f = (1, 1, 1).
    """
    A, s = sized(normal(g, n, m, m), K), uniform(g, 0, 1, n)
    lam, f = uniform(g, 0.3, 0.95, n) / K * normal(g, n).sign(), normal(g, n, m)
    s[:2], lam[:2] = 0.0, 4.0
    A[0], f[0] = K * _eye(m), _eye(m)[0]
    A[1:2], f[1:2] = K * torch.diag(1 - 0.2 * torch.arange(m, dtype=torch.float64)), 1.0
    return Equation(mixture, f, lam, context=(A, s))


def _eye(m: int) -> Tensor:
    return torch.eye(m, dtype=torch.float64)


def _start(eq: Equation) -> tuple[Tensor, Tensor, Tensor]:
    """f, lam and ||T(f)||."""
    assert isinstance(eq.f, Tensor)
    assert isinstance(eq.lam, Tensor)
    return eq.f, eq.lam, length(mixture(eq.f, *eq.context))


def step(n: int, g: torch.Generator) -> Trials:
    """||y_{j+1} - y_j|| against (|lam| k)^j ||T(f)|| and |lam| times that, at a random j."""
    eq = equations(n, g)
    f, lam, first = _start(eq)
    j = torch.randint(20, (n,), generator=g)
    j[0] = 0
    y = iterates(eq, f, 21)
    moved = length(y[j + 1, torch.arange(n)] - y[j, torch.arange(n)])
    printed = (lam.abs() * K) ** j * first
    return bounds(printed, lam.abs() * printed, moved, evals=21 * n)


def count(n: int, g: torch.Generator) -> Trials:
    """The first j with ||y_{j+1} - y_j|| < eps, at a random eps; the first has eps = .5."""
    eq = equations(n, g)
    f, lam, first = _start(eq)
    eps = 10 ** uniform(g, -6, -0.5, n)
    eps[0] = 0.5
    rate, steps = lam.abs() * K, 400
    moves = torch.linalg.vector_norm(iterates(eq, f, steps).diff(dim=0), dim=2)
    measured = (moves < eps).double().argmax(0)
    printed = (torch.floor((eps / first).log() / rate.log()) + 1).clamp(min=0)
    scaled = first / eps  # steps_needed takes one tolerance: the count depends on ||T(f)|| / eps alone
    return bounds(printed, steps_needed(scaled, lam, K, 1.0), measured, evals=steps * n)


def distance(n: int, g: torch.Generator) -> Trials:
    """||y_j - y*|| against (|lam| k)^j / (1 - |lam| k) ||T(f)|| and |lam| times that, at j = 5; the second drawn."""
    eq = equations(n, g)
    f, lam, first = _start(eq)
    rate, steps, j, i = lam.abs() * K, 1000, 5, min(1, n - 1)
    y = iterates(eq, f, steps)
    printed = rate**j / (1 - rate) * first
    curves = _courses(y[:, i], float(rate[i]), float(lam[i]), first[i : i + 1])
    return bounds(printed, distance_after(first, lam, K, j), length(y[j] - y[-1]), evals=steps * n, curves=curves)


def _courses(y: Tensor, rate: float, lam: float, first: Tensor, steps: int = 40) -> dict[str, dict]:
    """True distances and bounds of one instance over its iterations."""
    away = torch.linalg.vector_norm(y[: steps + 1] - y[-1], dim=1)
    moved = torch.linalg.vector_norm(y[: steps + 1].diff(dim=0), dim=1)
    ahead = torch.cat([distance_after(first, lam, K, i) for i in range(steps + 1)])
    lines = {
        "distance": away,
        "a priori": ahead,
        "a priori, as printed": ahead / abs(lam),
        "a posteriori": torch.cat((torch.full((1,), torch.nan), after_step(moved, rate))),
    }
    label = {"x_label": "iterations", "y_label": "distance, 2-norm", "log_y": True}
    start = lambda name: int(name == "a posteriori")  # noqa: E731
    return {n: curve(range(start(n), steps + 1), v[start(n) :].tolist(), group=n, **label) for n, v in lines.items()}


def existence(n: int, g: torch.Generator) -> Trials:
    """Two starts a, b: ||P^5(a) - P^5(b)|| <= (|lam| k)^5 ||a - b||; of the last, x + 1, nothing is claimed."""
    eq = equations(n, g)
    f, lam, _ = _start(eq)
    A, s = eq.context
    A[-1], s[-1], lam[-1], f[-1] = K * _eye(A.shape[1]), 0.0, 1 / K, 1.0
    a, b = f + normal(g, *f.shape), f + normal(g, *f.shape)
    apart = length(iterates(eq, a, 5)[-1] - iterates(eq, b, 5)[-1])
    rate = lam.abs() * K
    claim = torch.where(rate < 1, rate**5 * length(a - b), torch.inf)
    proved = banach(eq, f, bound=K).proved
    return bounds(claim, claim, apart, evals=10 * n).but(proved != (rate < 1))


def uniform_in_f(n: int, g: torch.Generator) -> Trials:
    """The count for ||f|| up to 1e6, T linear in half of the instances and bounded in the others."""
    eq = equations(n, g)
    f, lam, _ = _start(eq)
    s, m, eps = eq.context[1], f.shape[1], 1e-3
    s.copy_((torch.arange(n) % 2).double())
    f.mul_((10 ** uniform(g, 0, 6, n) / length(f))[:, None])
    moves = torch.linalg.vector_norm(iterates(eq, f, 500).diff(dim=0), dim=2)
    largest = torch.full((n,), K * math.sqrt(m), dtype=torch.float64)  # of ||A tanh(f)||, whatever f
    reached = torch.where(s == 1, largest, K * length(f))
    measured = (moves < eps).double().argmax(0)
    return bounds(steps_needed(largest, lam, K, eps), steps_needed(reached, lam, K, eps), measured, evals=500 * n)


def strict(n: int, g: torch.Generator) -> Trials:
    """||u_j - u*|| against k / (1 - k) ||u_j - u_{j-1}||; the first is T = .2 z, f = 0, started at its fixed point."""
    eq = equations(n, g)
    f, lam, _ = _start(eq)
    f[0] = 0.0
    j, rate = torch.randint(1, 10, (n,), generator=g), lam.abs() * K
    u = iterates(eq, f, 1000)
    away, moved = (length(u[j, torch.arange(n)] - v) for v in (u[-1], u[j - 1, torch.arange(n)]))
    return bounds(rate / (1 - rate) * moved, after_step(moved, rate), away, strict=True, evals=1000 * n)


def in_float32(n: int, g: torch.Generator, m: int = 8, steps: int = 15_000) -> Trials:
    """The same in float32 at rate .999: x = A x + f with symmetric A, when rounding is all that is left."""
    Q = torch.linalg.qr(normal(g, n, m, m))[0]
    values = torch.cat((torch.full((n, 1), 0.999), uniform(g, -0.9, 0.9, n, m - 1)), 1)
    A, f = ((Q * values[:, None]) @ Q.mT).float(), normal(g, n, m).float()
    eq = Equation(lambda x, A: (A @ x[:, :, None])[:, :, 0], f, context=(A,))
    k = torch.linalg.matrix_norm(A.double(), ord=2) * (1 + 1e-12)
    exact = torch.linalg.solve(_eye(m) - A.double(), f.double())
    u = _late(eq, exact.float() + normal(g, n, m).float(), steps)
    away, moved = length(u[-1].double() - exact), length(u[-1].double() - u[-2].double())
    delta = _UNITS * torch.finfo(torch.float32).eps * math.sqrt(m) * (length(u[-1]) + length(u[-2])).double()
    proof = banach(eq, u[-1], bound=float(k.max()))
    lost = ~proof.proved | ~(away <= proof.radius)
    return bounds(k / (1 - k) * moved, after_step(moved, k, delta), away, strict=True, evals=steps * n).but(lost)


def _late(eq: Equation, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The last two iterates."""
    before = x
    for _ in range(steps):
        before, x = x, eq.image(x)  # pyright: ignore[reportAssignmentType, reportArgumentType]
    return before, x


def convex(n: int, g: torch.Generator) -> Trials:
    """T = a tanh(s x) on [-2, -1] and [1, 2]: |T(x) - T(y)| / |x - y| against sup |T'| there and on [-2, 2]."""
    a, s = uniform(g, 0.1, 2, n), uniform(g, 2, 10, n)
    eq = Equation(lambda x, a, s: a[:, None] * torch.tanh(s[:, None] * x), context=(a, s))
    x, y = (uniform(g, 1, 2, n, 1) * sign for sign in (1, 1 - 2 * torch.randint(2, (n, 1), generator=g)))
    ratio = length(eq.image(x) - eq.image(y)) / length(x - y)  # pyright: ignore[reportOperatorIssue, reportArgumentType]
    there = slopes(eq, torch.ones(n, 1, dtype=torch.float64))  # |T'| falls with |x|
    whole = traced(eq, torch.zeros(n, 1, dtype=torch.float64), radius=2.0).bound.two
    return bounds(there, whole, ratio, evals=2 * n)


def cube(n: int, g: torch.Generator) -> Trials:
    """T(y) = y^3 with lam M = lam 3 (|f| + .1)^2 < 1 on B(f, .1): how far the iterates get from f."""
    r, steps = 0.1, 300
    f = uniform(g, -1.5, 1.5, n, 1)
    lam = uniform(g, 0, 1, n) / (3 * (f[:, 0].abs() + r) ** 2)
    f[0], lam[0] = 0.9, 0.3
    f[1:2], lam[1:2] = 0.1, 0.3
    eq = Equation(lambda y: y**3, f, lam)
    y = iterates(eq, f, steps)[:, :, 0]
    far = (y - f[:, 0]).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).amax(0)
    proof = ball(eq, f, r)
    claim = torch.where(proof.proved, r, torch.inf).double()
    missed = proof.proved & ~((y[-1] - f[:, 0]).abs() <= proof.radius * (1 + SLACK))
    label = {"x_label": "iterations", "y_label": "|y|", "log_y": True}
    name = lambda i: "certified" if bool(proof.proved[i]) else "refused"  # noqa: E731
    lines = {name(i): curve(range(8), y[:8, i].abs().tolist(), group=name(i), **label) for i in range(min(n, 2))}
    found = bounds(torch.full_like(claim, r), claim, far, evals=steps * n, curves=lines).but(missed)
    return replace(found, printed_fails=far.isinf())  # that they leave the ball is held against it only if for good


def volume(n: int, g: torch.Generator) -> Trials:
    """T(y)(t) = int G(t, u, y(u)) du on a domain of some length: constants in the sup norm against that of G."""
    return together([_integral(i == 0, g) for i in range(n)])


def _integral(first: bool, g: torch.Generator, points: int = 16) -> Trials:
    """G = q g(t, u) tanh y with |g| <= 1; the first is q = .5, g = 1 on a domain of length 5."""
    q, span = (0.5, 5.0) if first else uniform(g, 0.1, 0.9, 1).tolist() + uniform(g, 0.2, 10, 1).tolist()
    kernel = torch.ones(points, points, dtype=torch.float64) if first else uniform(g, -1, 1, points, points)
    weights = span / points * q * kernel  # the midpoint rule
    T = lambda y: torch.tanh(y) @ weights.T  # noqa: E731
    y = 0.1 * normal(g, 8, points)
    y[0] = 0.0
    ratio = (T(y[1:]) - T(y[:-1])).abs().amax(1) / (y[1:] - y[:-1]).abs().amax(1)
    flat = T(torch.full((1, points), 1e-6, dtype=torch.float64)).abs().amax() / 1e-6
    corrected = lipschitz_upper(T, example=(y[:1],), norm="sup")
    measured = torch.maximum(ratio.amax(), flat)[None]
    return bounds(single(q), single(corrected), measured, evals=len(y) + 1).but(
        single(corrected) > q * span * (1 + SLACK)
    )


STATEMENTS = {
    "T1 step": Statement(
        "Theorem 1 bounds the step n by (|lam| k)^n ||T(f)||; the factor |lam| is lost: T = .2 z, lam = 4, f = 1 takes "
        "a first step of .8, not .2.",
        step,
    ),
    "T1 count": Statement(
        "Its count of iterations lacks the same factor: for T = .2 z, lam = 4, f = 1, eps = .5 it asks for 0, and 3 "
        "are needed; steps_needed has it.",
        count,
    ),
    "T1 distance": Statement(
        "So does its distance; right is ||y_n - y*|| <= (|lam| k)^n / (1 - |lam| k) |lam| ||T(f)||, an equality for "
        "T = .2 z, lam = 4, f = 1.",
        distance,
    ),
    "C1 existence": Statement(
        "Corollary 1 is right where |lam| k < 1, and says nothing beyond: x + 1, with |lam| k = 1, has no fixed point "
        "and is refused.",
        existence,
        wrong=False,
    ),
    "C2 uniform in f": Statement(
        "Corollary 2 wants one count for all f; that holds where the range of T is bounded, while T = A z needs more "
        "iterations the larger f is.",
        uniform_in_f,
    ),
    "T2 strict": Statement(
        "Theorem 2 (Banach) has < where <= is right: it fails at the fixed point, where both sides are 0 "
        "(4.9e-324 is 0 rounded up).",
        strict,
    ),
    "T2 in float32": Statement(
        "In floating point it lacks delta / (1 - k) for an evaluation that is off by delta: in float32 at rate .999 "
        "iterates that no longer move are still away from the fixed point.",
        in_float32,
    ),
    "P1 convex set": Statement(
        "Lemma 1 and Proposition 1 take sup ||T'|| over a set, which must be convex: on [-2, -1] and [1, 2] tanh(s x) "
        "is flat, yet jumps from one part to the other.",
        convex,
    ),
    "T3 ball": Statement(
        "Theorem 3 wants |lam| M < 1 on B(f, r) alone: for T = y^3, lam = .3, f = .9 that is .9, and the iterates run "
        "away; |lam| ||T(f)|| <= (1 - |lam| M) r is needed too, and certify.ball refuses without it.",
        cube,
    ),
    "B4 volume": Statement(
        "B.4 takes an integral operator for a contraction when its kernel is one; the volume of the domain is a "
        "factor: a kernel of constant .5 on a domain of length 5 gives 2.5.",
        volume,
        costly=True,
    ),
}
