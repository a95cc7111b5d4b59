"""The first layer of a graph model: features that are mostly zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SparseLinear(nn.Module):
    """y = dropout(x) W^T + b for x dense or sparse (N, inputs); of sparse x only what is not zero is worked on.

    dropout: the share of features that is set to 0 in training. The weights are those of nn.Linear.
    """

    def __init__(self, inputs: int, outputs: int, *, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.linear, self.dropout = nn.Linear(inputs, outputs, bias=bias), dropout

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_sparse:
            return self.linear(nn.functional.dropout(x, self.dropout, self.training))
        y = torch.sparse.mm(self._dropped(x), self.linear.weight.T)
        return y if self.linear.bias is None else y + self.linear.bias

    def _dropped(self, x: Tensor) -> Tensor:
        if not (self.training and self.dropout):
            return x
        x = x.coalesce()
        kept = nn.functional.dropout(x.values(), self.dropout)
        return torch.sparse_coo_tensor(x.indices(), kept, x.shape, is_coalesced=True, check_invariants=False)
