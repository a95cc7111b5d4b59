"""`certificate`: the strongest claim that can be made on a solution, and why the others cannot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.certify.ball import ball
from settlepoint.certify.banach import banach
from settlepoint.certify.certificate import Certificate, refused, strongest
from settlepoint.certify.comparison import perron
from settlepoint.certify.graph import graph
from settlepoint.certify.kantorovich import kantorovich
from settlepoint.certify.krylov import newton_krylov
from settlepoint.certify.point import detached
from settlepoint.equation import Equation
from settlepoint.solution import Solution
from settlepoint.spaces import State

METHODS = {
    "banach": banach,
    "graph": graph,
    "perron": perron,
    "ball": ball,
    "kantorovich": kantorovich,
    "newton-krylov": newton_krylov,
}
"""The certificates that need nothing but the equation and the value."""

_WIDE = 1024  # side of a dense matrix beyond which its norm takes longer than many a solve


def certificate(eq: Equation, solution: Solution | State, method: str = "auto") -> Certificate:
    """How far a fixed point can be from the value of a solution, row by row.

    method: "banach" (a constant for the whole space in the 2-norm), "graph" (the same in the best of three norms),
    "perron" (entry by entry), "ball" (a contraction on a ball around the value), "kantorovich" (a proof at the point,
    whatever the norms), "newton-krylov" (an estimate for any size), or "auto": every proof that applies, the smallest
    radius of each row, and the estimate where there is no proof. reason says what the claim rests on, and why others
    were refused. Certificates that need something from you have functions of their own: `thomson`, `bielecki`. The
    solution is not changed; damping and solver play no part, since the true residual P(x) - x is measured anew.

        >>> import torch, settlepoint as sp
        >>> from settlepoint import certify
        >>> from settlepoint.layers import TanhCell
        >>> generator = torch.Generator().manual_seed(0)
        >>> cell = TanhCell(8, gain=1.2, generator=generator, dtype=torch.float64)
        >>> eq = sp.Equation(cell, context=(torch.randn(3, 8, generator=generator, dtype=torch.float64),))
        >>> with torch.no_grad():
        ...     sol = sp.solve(eq, torch.zeros(3, 8, dtype=torch.float64), sp.NewtonKrylov(), sp.Tolerance(1e-10))
        >>> found = certify.certificate(eq, sol)
        >>> found.counts(), set(found.method), bool((found.radius < 1e-8).all())
        ({'proved': 3}, {'kantorovich'}, True)
    """
    if method != "auto" and method not in METHODS:
        raise ValueError(f"method must be 'auto' or one of {', '.join(METHODS)}, got {method!r}")
    if not isinstance(eq, Equation):
        raise TypeError(f"eq must be an Equation, got {type(eq).__name__}")
    value = solution.value if isinstance(solution, Solution) else solution
    if not isinstance(value, Tensor | tuple):
        raise TypeError(f"solution must be a Solution, a tensor or a tuple of tensors, got {type(value).__name__}")
    x = detached(value)
    with torch.no_grad():
        return METHODS[method](eq, x) if method != "auto" else _strongest(eq, x)


def _strongest(eq: Equation, x: State) -> Certificate:
    """Cheap proofs first; a Jacobian only where rows are left without one."""
    found: list[Certificate] = []
    layout = eq.at(x).layout
    assert layout is not None
    if _wide(eq) and layout.rows:
        like = x[0] if isinstance(x, tuple) else x
        why = f"a matrix of more than {_WIDE} rows, whose norm takes longer than a solve; ask for method='graph'"
        found.append(refused(layout.rows, like.new_zeros(0), why, "graph"))
    else:
        found += [graph(eq, x), perron(eq, x)]
    for method in (kantorovich, *(() if _wide(eq) else (ball,)), newton_krylov):
        if found[-1].proved.all() or strongest(found).proved.all():
            break
        found.append(method(eq, x))
    return strongest(found)


def _wide(eq: Equation) -> bool:
    if not isinstance(eq.operator, nn.Module):
        return False
    return any(p.ndim >= 2 and min(p.shape[0], p[0].numel()) > _WIDE for p in eq.operator.parameters())
