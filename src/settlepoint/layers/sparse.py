"""A linear layer on sparse rows, with dropout of single entries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.linear import linear


class SparseLinear(nn.Module):
    """y = drop(x) W^T + b for a sparse x (N, inputs), as bags of words are; its cost is that of the entries there are.

    dropout: share of the non-zero entries left out in training, the others scaled up. generator: draws the weights.
    """

    def __init__(self, inputs: int, outputs: int, *, dropout: float = 0.0, generator: torch.Generator | None = None):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        self.linear, self.dropout = linear(inputs, outputs, generator=generator), dropout

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_sparse:
            raise ValueError(f"x must be a sparse COO tensor, got layout {x.layout}; use x.to_sparse()")
        values = nn.functional.dropout(x.values(), self.dropout, self.training)
        kept = torch.sparse_coo_tensor(x.indices(), values, x.shape, is_coalesced=True, check_invariants=False)
        return torch.sparse.mm(kept, self.linear.weight.mT) + self.linear.bias
