"""Lemma 2 and A.2 of Operator Learning Meets Numerical Analysis, attention, residual blocks, and estimates of norms."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from settlepoint.certify import (
    Refused,
    convolution_norm,
    lipschitz_estimate,
    lipschitz_upper,
    spectral_norm,
    spectral_radius,
    traced,
)
from settlepoint.equation import Equation
from settlepoint.experiments.show import curve
from settlepoint.experiments.theory_trials import (
    Statement,
    Trials,
    bounds,
    length,
    normal,
    single,
    sized,
    slopes,
    together,
    uniform,
    values,
)

_BALLS = 10  # of each draw of weights


def cubic(y: Tensor, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:  # (N, n, d)
    """T(y) = (y Q) (y K)^T (y V), attention without soft-max."""
    return (y @ Q) @ (y @ K).mT @ (y @ V)


def cubic_derivative(y: Tensor, h: Tensor, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """T'(y) h = (h Q)(y K)^T (y V) + (y Q)(h K)^T (y V) + (y Q)(y K)^T (h V)        (Lemma 2)"""
    q, k, v = y @ Q, y @ K, y @ V
    return (h @ Q) @ k.mT @ v + q @ (h @ K).mT @ v + q @ k.mT @ (h @ V)


def _weights(g: torch.Generator, first: bool) -> tuple[int, list[Tensor]]:
    """Tokens, and three matrices; the first are those of T = y^3."""
    if first:
        return 1, [torch.ones(1, 1, dtype=torch.float64)] * 3
    return 3, [normal(g, 2, 2) for _ in range(3)]


def _drawn(n: int, g: torch.Generator, one: Callable[[int, list[Tensor], int, torch.Generator], Trials]) -> Trials:
    """n instances in draws of some 10 balls; the first draw is T = y^3."""
    return together([one(*_weights(g, i == 0), min(_BALLS, n), g) for i in range(max(1, n // _BALLS))])


def _balls(n: int, tokens: int, d: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres f and radii r; the first is B(.9, .1) for one entry."""
    f, r = normal(g, n, tokens, d), 10 ** uniform(g, -1, 0.3, n)
    if tokens * d == 1:
        f[0], r[0] = 0.9, 0.1
    return f, r


def _steepest(eq: Equation, f: Tensor, r: Tensor, g: torch.Generator, points: int = 4) -> Tensor:  # (N,)
    """The largest ||T'|| seen at points of B(f, r): the one farthest out, and some at random."""
    found = slopes(eq, f * (1 + r / length(f))[:, None, None])
    for _ in range(points):
        d = normal(g, *f.shape)
        found = torch.maximum(found, slopes(eq, f + d * (r / length(d))[:, None, None]))
    return found


def _sizes(weights: list[Tensor]) -> float:
    return math.prod(spectral_norm(w) for w in weights)


def on_balls(n: int, g: torch.Generator) -> Trials:
    """sup ||T'|| on B(f, r) against 3 r^2 ||Q|| ||K|| ||V|| and 3 (||f|| + r)^2 ||Q|| ||K|| ||V||."""

    def one(tokens: int, weights: list[Tensor], count: int, g: torch.Generator) -> Trials:
        f, r = _balls(count, tokens, len(weights[0]), g)
        seen = _steepest(Equation(lambda y: cubic(y, *weights)), f, r, g)
        size = 3 * _sizes(weights)
        return bounds(size * r**2, size * (length(f) + r) ** 2, seen, evals=5 * f[0].numel() * count)

    return _drawn(n, g, one)


def by_torch(n: int, g: torch.Generator) -> Trials:
    """3 (||f|| + r)^2 ||Q|| ||K|| ||V|| beside what certify works out of the code of T."""

    def one(tokens: int, weights: list[Tensor], count: int, g: torch.Generator) -> Trials:
        f, r = _balls(count, tokens, len(weights[0]), g)
        eq = Equation(lambda y: cubic(y, *weights))
        seen = _steepest(eq, f, r, g)
        generic = traced(eq, f, r).bound.two
        return bounds(3 * _sizes(weights) * (length(f) + r) ** 2, generic, seen, evals=(5 * f[0].numel() + 1) * count)

    return _drawn(n, g, one)


def derivative(n: int, g: torch.Generator) -> Trials:
    """||T'(y) h|| by the formula against a Jacobian-vector product."""

    def one(tokens: int, weights: list[Tensor], count: int, g: torch.Generator) -> Trials:
        y, h = normal(g, count, tokens, len(weights[0])), normal(g, count, tokens, len(weights[0]))
        exact = torch.func.jvp(lambda y: cubic(y, *weights), (y,), (h,))[1]
        formula = cubic_derivative(y, h, *weights)
        found = values(length(formula), length(formula), length(exact), 1e-12, evals=count)
        return found.but(length(formula - exact) > 1e-12 * length(exact))

    return _drawn(n, g, one)


def softmax(n: int, g: torch.Generator) -> Trials:
    """sup ||T'|| on ||x|| <= r against the bound of the unit ball and that of the ball, r from .1 to 30."""
    return together([_attention(g, min(_BALLS, n)) for _ in range(max(1, n // _BALLS))])


def _attention(g: torch.Generator, count: int, tokens: int = 3, d: int = 2) -> Trials:
    weights = [normal(g, d, d) for _ in range(3)]
    eq = Equation(lambda x: F.scaled_dot_product_attention(*(x @ w for w in weights)))
    r, centre = torch.logspace(-1, 1.5, count, dtype=torch.float64), torch.zeros(count, tokens, d, dtype=torch.float64)
    seen = torch.stack([slopes(eq, _out(g, r, tokens, d, i % 2 == 0)) for i in range(8)]).amax(0)
    unit, here = (traced(eq, centre, radius).bound.two for radius in (1.0, r))
    lines = {"largest ||T'|| seen": seen, "bound on the ball": here, "bound on the unit ball": unit.expand(count)}
    label = {"x_label": "radius of the ball", "y_label": "norm of the Jacobian", "log_y": True}
    curves = {name: curve(r.tolist(), v.tolist(), group=name, **label) for name, v in lines.items()}
    found = bounds(unit, here, seen, evals=8 * tokens * d * count, curves=curves)
    return found.but(torch.full((count,), not _refused(eq, centre[:1])))


def _out(g: torch.Generator, r: Tensor, tokens: int, d: int, rest: bool) -> Tensor:
    """Points of norm r; rest: the first token is 0, so that its soft-max spreads over the others at any r."""
    x = normal(g, len(r), tokens, d)
    if rest:
        x[:, 0] = 0.0
    return x * (r / length(x))[:, None, None]


def _refused(eq: Equation, x: Tensor) -> bool:
    """Whether no constant is claimed for the whole space."""
    try:
        return not bool(traced(eq, x).bound.two.isfinite().all())
    except Refused:
        return True


def residual(n: int, g: torch.Generator) -> Trials:
    """sup ||I + F'|| against L(F) < 1 and 1 + L(F), F = V tanh(W x)."""
    return together([_block(g) for _ in range(n)])


def _block(g: torch.Generator, m: int = 3) -> Trials:
    W, V = sized(normal(g, m, m), 1.0), sized(normal(g, m, m), uniform(g, 0.1, 0.95, 1)[0])
    block = lambda x: torch.tanh(x @ W.T) @ V.T  # noqa: E731
    whole = lambda x: x + block(x)  # noqa: E731
    x = torch.cat((torch.zeros(1, m, dtype=torch.float64), normal(g, 7, m)))
    seen = slopes(Equation(whole), x).amax()[None]
    alone, both = (single(lipschitz_upper(T, example=(x[:1],))) for T in (block, whole))
    return bounds(alone, both, seen, evals=8 * m).but(both < 1)


def batch_norm(n: int, g: torch.Generator) -> Trials:
    """||BN(W x)|| at evaluation against ||W|| and max |gamma / sqrt(var + eps)| ||W||."""
    return together([_normalised(g) for _ in range(n)])


def _normalised(g: torch.Generator, m: int = 4) -> Trials:
    W, mean, beta, gamma = sized(normal(g, m, m), 0.9), normal(g, m), normal(g, m), normal(g, m)
    var = 10 ** uniform(g, -2, 1, m)
    T = lambda x: F.batch_norm(x @ W.T, mean, var, gamma, beta)  # noqa: E731
    x = normal(g, 2, m)
    seen = slopes(Equation(T), x)[:1]
    return bounds(single(0.9), single(lipschitz_upper(T, example=(x[:1],))), seen, evals=m)


def kernel(n: int, g: torch.Generator) -> Trials:
    """||K|| of a convolution on 6 x 6 points against the norm of its flattened kernel and the bound of the operator."""
    return together([_convolution(g) for _ in range(n)])


def _convolution(g: torch.Generator, channels: int = 2, side: int = 6) -> Trials:
    K = normal(g, channels, channels, 3, 3)
    basis = torch.eye(channels * side**2, dtype=torch.float64).reshape(-1, channels, side, side)
    matrix = F.conv2d(basis, K, padding=1).flatten(1)
    norm = lambda A: torch.linalg.matrix_norm(A, ord=2)[None]  # noqa: E731
    return bounds(norm(K.flatten(1)), single(convolution_norm(K)), norm(matrix), evals=len(basis))


def power(n: int, g: torch.Generator, m: int = 16, steps: int = 5) -> Trials:
    """||W||_2 against 5 power iterations on W^T W and the bound by SVD."""
    W = normal(g, n, m, m)
    eq = Equation(lambda x, W: (W @ x[:, :, None])[:, :, 0], context=(W,))
    estimate = lipschitz_estimate(eq, normal(g, n, m), steps, generator=g)
    bound = torch.tensor([spectral_norm(w) for w in W], dtype=torch.float64)
    return bounds(estimate, bound, torch.linalg.matrix_norm(W, ord=2), evals=2 * steps * n)


def rayleigh(n: int, g: torch.Generator) -> Trials:
    """The spectral radius of two rotations, by a Rayleigh quotient after power iteration and by Arnoldi, to 1 %."""
    angle, size = uniform(g, math.pi / 6, 5 * math.pi / 6, n), uniform(g, 0.5, 1.5, n)
    angle[0], size[0] = math.pi / 2, 1.1
    J = torch.zeros(n, 4, 4, dtype=torch.float64)
    J[:, :2, :2], J[:, 2:, 2:] = _rotation(angle, size), _rotation(uniform(g, 0, math.pi, n), 0.5 * size)
    eq = Equation(lambda x, J: (J @ x[:, :, None])[:, :, 0], context=(J,))
    v = normal(g, n, 4)
    for _ in range(100):
        v = (J @ v[:, :, None])[:, :, 0]
        v = v / length(v)[:, None]
    quotient = (v[:, None] @ J @ v[:, :, None])[:, 0, 0].abs()
    exact = torch.linalg.eigvals(J).abs().amax(1)
    return values(quotient, spectral_radius(eq, normal(g, n, 4), generator=g), exact, 0.01, evals=104 * n)


def _rotation(angle: Tensor, size: Tensor) -> Tensor:  # (N,) -> (N, 2, 2)
    c, s = size * angle.cos(), size * angle.sin()
    return torch.stack((torch.stack((c, -s), 1), torch.stack((s, c), 1)), 1)


STATEMENTS = {
    "L2 on B(f, r)": Statement(
        "Lemma 2 (cubic attention) gives M = 3 r^2 ||WQ|| ||WK|| ||WV||, which is right around 0; on the B(f, r) of "
        "Theorem 3 it is 3 (||f|| + r)^2: y^3 has slope 3 on B(.9, .1), not .03.",
        on_balls,
        costly=True,
    ),
    "L2 by certify": Statement(
        "The same constant by hand (as printed), beside what certify works out of the code of T: both hold.",
        by_torch,
        wrong=False,
        costly=True,
    ),
    "L2 derivative": Statement(
        "The derivative of cubic attention in Lemma 2 agrees with a Jacobian-vector product to 1e-12.",
        derivative,
        wrong=False,
    ),
    "soft-max": Statement(
        "Dot-product attention with soft-max has no global constant: the bound of the unit ball is broken further "
        "out, that of each ball holds, and the whole space is refused.",
        softmax,
        costly=True,
    ),
    "residual block": Statement(
        "That F contracts does not make x + F(x) contract: it has 1 + L(F), which is never below 1, so that this bound "
        "certifies no residual block.",
        residual,
        costly=True,
    ),
    "BatchNorm": Statement(
        "A layer with BatchNorm at evaluation has not the constant of its matrix but max |gamma / sqrt(var + eps)| "
        "times it.",
        batch_norm,
        costly=True,
    ),
    "A2 kernel": Statement(
        "For A.2 a convolution must be bounded as an operator: the norm of its flattened kernel, which torch's "
        "spectral_norm takes, is no bound.",
        kernel,
        costly=True,
    ),
    "power iteration": Statement(
        "Power iteration gives a lower bound of a norm, which certify calls estimated, never proved; 5 steps stay "
        "below the norm.",
        power,
    ),
    "Rayleigh": Statement(
        "A Rayleigh quotient is no spectral radius of a Jacobian that is not symmetric: for a rotation by 90 degrees "
        "times 1.1 it is 0; Arnoldi's method gives 1.1 (an estimate, within 1 %).",
        rayleigh,
    ),
}
