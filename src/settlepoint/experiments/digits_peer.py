"""torchdeq on the equilibrium layer of the digits experiment, with its stop made equal to ours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from settlepoint import Tolerance

Cell = Callable[..., Tensor]


class PeerSettle(nn.Module):
    """The fixed point of operator(z, u) as torchdeq's own DEQ finds and differentiates it.

    Set equal to ours: Picard from 0 to the absolute tolerance of stop; gradients by implicit differentiation (ift=True;
    its default is a one-step gradient), the backward equation by Picard to the relative tolerance backward_rtol
    (its Anderson, whose ridge is absolute, does not reach that and takes all the steps it is given).
    """

    def __init__(self, operator: Cell, stop: Tolerance, backward_rtol: float):
        super().__init__()
        from torchdeq import get_deq

        self.operator = operator
        self.deq = get_deq(
            core="sliced", ift=True, f_solver="fixed_point_iter", f_max_iter=stop.max_steps, f_tol=stop.atol,
            f_stop_mode="abs", b_solver="fixed_point_iter", b_max_iter=200, b_tol=backward_rtol, b_stop_mode="rel",
        )  # fmt: skip

    def forward(self, u: Tensor) -> Tensor:
        found, _ = self.deq(lambda z: self.operator(z, u), torch.zeros_like(u))
        return found[-1]


def peer_solve(operator: Cell, u: Tensor, stop: Tolerance) -> tuple[Tensor, int]:
    """The whole batch by `torchdeq.solver.fixed_point_iter`, and the number of calls of the operator.

    stop_mode="abs" and tol=atol: it ends when the largest residual of the batch is below tol; nothing relative ends it.
    """
    from torchdeq.solver import get_solver

    calls = 0

    def counted(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return operator(z, u)

    picard = get_solver("fixed_point_iter")
    z, _, _ = picard(counted, torch.zeros_like(u), max_iter=stop.max_steps, tol=stop.atol, stop_mode="abs")
    return z, calls
