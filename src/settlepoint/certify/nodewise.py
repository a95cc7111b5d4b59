"""Contractions node by node: functions on an interval, known at the nodes of a quadrature."""

from __future__ import annotations

import torch
from torch import Tensor

from settlepoint.certify.certificate import Certificate, Refused, claimed
from settlepoint.certify.comparison import least_error
from settlepoint.certify.norms import perron_bound
from settlepoint.certify.point import Point, attempt
from settlepoint.certify.rounding import outward
from settlepoint.equation import Equation
from settlepoint.spaces import State


def nodewise(eq: Equation, x: State, table: Tensor) -> Certificate:
    """|x_i - x*_i| <= e_i for every e with N e + |P(x) - x| <= e, where the Perron root of N is below 1.

    x: (R, n, d), values at n nodes, each measured in the 2-norm of its d components. table: N (n, n), nonnegative, with
    |P(a) - P(b)|_i <= sum_j N_ij |a - b|_j for all a, b, taken as proved; models.NIE.table and models.NIDE.table make
    it of Lipschitz constants. For a Fredholm equation its root is Lip_y h + vol Lip_y G. For a Volterra equation the
    Perron vector plays the part of exp(beta t) in the norm of Bielecki (1956), and the root shrinks with the panels of
    the quadrature, however large the constant. Claims existence and uniqueness everywhere, and a radius in the norm of
    the space, for the equation on the nodes: what the quadrature misses is not in it. Raises ValueError for a state
    that is not (R, n, d), and for a table with negative entries or of another size.
    """
    N = _given(table, x)

    def claim(here: Point) -> Certificate:
        root, weights = perron_bound(N)
        count, width = x.shape[1:]  # pyright: ignore[reportAttributeAccessIssue]
        moved = torch.linalg.vector_norm((here.image - here.z).double().reshape(-1, count, width), dim=2)
        gap = moved + (here.rounding / _least_weight(here) ** 0.5)[:, None]
        error = least_error(N, gap, weights, root)
        spread = torch.nn.functional.pad(error[:, :, None], (0, width - 1)).flatten(1)
        radius = outward(here.eq.measure(spread), 4 * len(N))
        rate = torch.full_like(radius, root)
        text = f"the Perron root of the table of the nodes is {root:.6g}"
        holds = (rate < 1) & torch.isfinite(radius)
        texts = (f"{text}, for all x", here.lacks(f"{text}, not below 1"))
        return claimed(holds, radius, rate, torch.full_like(radius, torch.inf), texts, "nodewise")

    return attempt("nodewise", eq, x, claim)


def _given(table: Tensor, x: State) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim != 3:
        raise ValueError(f"x must be one tensor (R, n, d), got {tuple(x.shape) if isinstance(x, Tensor) else type(x)}")
    if tuple(table.shape) != (x.shape[1], x.shape[1]) or not bool((table >= 0).all()):
        raise ValueError(f"table must be a nonnegative matrix of {x.shape[1]} rows, got {tuple(table.shape)}")
    return table.detach().to(x.device, torch.float64)


def _least_weight(here: Point) -> float:
    """The smallest weight of the norm; raises `Refused` where the components of a node have several."""
    layout = here.eq.layout
    assert layout is not None
    if layout.weights is None:
        return 1.0
    by_node = layout.weights.reshape(layout.trailing[0])
    if not bool((by_node == by_node[:, :1]).all()):
        raise Refused("the components of a node have different weights in the norm")
    return float(by_node.min())
