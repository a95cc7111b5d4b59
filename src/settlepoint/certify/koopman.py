"""The rate of iterates from the iterates alone: dynamic mode decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.spaces import State

_KEPT = 1e-6  # singular values below this share of the largest are noise


@torch.no_grad()
def koopman_rate(eq: Equation, x: State, steps: int = 10) -> Tensor:  # (R,)
    """The largest |eigenvalue| of a linear map through the differences of `steps` iterates of P from x.

    With d_k = x_{k+1} - x_k and X = [d_0 ... d_{m-1}] = U S V^T, Y = [d_1 ... d_m]: the eigenvalues of U^T Y V S^{-1}
    (Schmid 2010; a finite section of the Koopman operator). A diagnostic, not a bound: it sees the modes that the
    iterates excite. NaN in rows that no longer move.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 3:
        raise ValueError(f"steps must be an integer >= 3, got {steps!r}")
    bound = eq.at(x)
    assert bound.layout is not None
    z = bound.layout.flatten(x)
    moves = []
    for _ in range(steps):
        image = bound.flat(z)
        moves.append((image - z).double())
        z = image
    size = torch.linalg.vector_norm(moves[0], dim=1)
    if not z.shape[1]:
        return size + torch.nan
    still = ~(size > 1e3 * bound.layout.eps * (1 + bound.measure(z)))
    X, Y = torch.stack(moves[:-1], 2).nan_to_num(), torch.stack(moves[1:], 2).nan_to_num()
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    noise = 10 * bound.layout.eps * (1 + bound.measure(z)) / size.clamp(min=1e-300)
    kept = noise.nan_to_num(1.0).clamp(min=_KEPT)[:, None]
    inverse = torch.where(S > kept * S[:, :1], 1 / S.clamp(min=1e-300), 0.0)
    rate = torch.linalg.eigvals(U.mT @ Y @ Vh.mT * inverse[:, None]).abs().amax(1)
    return torch.where(still | ~torch.isfinite(size), torch.nan, rate)
