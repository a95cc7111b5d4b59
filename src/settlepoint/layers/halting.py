"""The loop body of IterGNN: a convolution, and how sure each graph is that it may end here."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.blocks import Blocks
from settlepoint.layers.cut import Cut
from settlepoint.layers.normalised import Indexed

State = tuple[Tensor, Tensor, Tensor]

SPENT = 1e-7
"""The confidence left over below which a graph has ended."""


class Halting(nn.Module):
    """(h, y, l) -> (h', (1 - d) y + l c h', (1 - d) l (1 - c)),  h' = conv(h),  c = sigmoid(s . max_i h'_i + b)

    (Tang et al. 2020), c one number a graph from the largest entries over its nodes. h, y: (G, length, h); l: (G, 1),
    the confidence left over. decay: d. ahead: c is read from h instead of h'. copies: networks side by side, each with
    a confidence of its own: h is copies * hidden wide, and l (G, copies).

    A graph with l <= 1e-7 stays as it is, all of its state: its residual is 0 from there on, and what it would still
    have added is at most 1e-7 of h.
    """

    def __init__(self, conv: nn.Module, hidden: int, *, decay: float = 0.0, ahead: bool = False, copies: int = 1):
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.conv, self.score = conv, Blocks(hidden, 1, copies)
        self.decay, self.ahead, self._cut = decay, ahead, Cut()

    def extra_repr(self) -> str:
        return f"decay={self.decay}, ahead={self.ahead}"

    def forward(self, state: State, rows: Tensor, graphs: Indexed) -> State:
        h, y, left = state
        here, ended = self._cut(rows, graphs), left <= SPENT
        nodes = here.nodes(h)
        moved = self.conv(nodes, here.edges)
        c = self.score(largest(nodes if self.ahead else moved, here)).sigmoid()
        new = torch.where(_spread(ended, h), h, here.table(moved))
        kept, share = 1 - self.decay * (~ended).to(left.dtype), torch.where(ended, 0.0, left * c)
        y = _spread(kept, y) * y if self.decay else y
        return new, torch.addcmul(y, _spread(share, new), new), torch.where(ended, left, kept * left * (1 - c))


def _spread(one: Tensor, h: Tensor) -> Tensor:  # (G, copies) -> (G, 1, copies * hidden) or what broadcasts to it
    """One number a graph and copy, beside each of its features."""
    copies = one.shape[1]
    return one[:, None] if copies == 1 else one.repeat_interleave(h.shape[2] // copies, 1)[:, None]


def largest(x: Tensor, graphs: Indexed) -> Tensor:  # (N, h) -> (count, h)
    """The largest entry of every feature over the nodes of each graph; 0 for a graph without nodes."""
    zeros = x.new_zeros(graphs.count, x.shape[1])
    return zeros.scatter_reduce(0, graphs.index[:, None].expand_as(x), x, "amax", include_self=False)
