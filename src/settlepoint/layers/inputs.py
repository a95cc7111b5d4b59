"""The first layer of a graph model: features that are mostly zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.masks import CopiedDropout, mask
from settlepoint.layers.sparse import PlacesOf, spread


class SparseLinear(nn.Module):
    """y = dropout(x) W^T + b for x dense or sparse (N, inputs); of sparse x only what is not zero is worked on.

    dropout: the share of features that is set to 0 in training. The weights are those of nn.Linear. copies: networks
    side by side that see the same x, outputs of all of them together, each with masks of its own. Sparse x is data,
    COO or CSR: no gradient goes to it.
    """

    def __init__(self, inputs: int, outputs: int, *, dropout: float = 0.0, bias: bool = True, copies: int = 1):
        super().__init__()
        if outputs % copies:
            raise ValueError(f"outputs must be a multiple of copies, got {outputs} and {copies}")
        self.linear, self.drop = nn.Linear(inputs, outputs, bias=bias), CopiedDropout(0.0, copies)
        self.dropout, self._places = dropout, PlacesOf()

    @property
    def dropout(self) -> float:
        """The share of features dropped in training."""
        return self.drop.p

    @dropout.setter
    def dropout(self, p: float) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {p}")
        self.drop.p = p

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"

    def forward(self, x: Tensor) -> Tensor:
        y = self._sparse(x) if x.layout != torch.strided else self._dense(x)
        return y if self.linear.bias is None else y + self.linear.bias

    def _dense(self, x: Tensor) -> Tensor:
        if not self._drops:
            return x @ self.linear.weight.T
        parts = zip(self.drop.streams, self.linear.weight.chunk(self.drop.copies), strict=True)
        return torch.cat([(x * mask(x, self.dropout, stream)) @ weight.T for stream, weight in parts], 1)

    def _sparse(self, x: Tensor) -> Tensor:
        x = x.coalesce() if x.is_sparse else x
        places, values, copies = self._places(x), x.values()[:, None], self.drop.copies
        if not self._drops:
            return spread(values, self.linear.weight.T[:, None], places)[:, 0]
        seen = torch.cat([values * mask(values, self.dropout, stream) for stream in self.drop.streams], 1)
        return spread(seen, self.linear.weight.view(copies, -1, x.shape[1]).permute(2, 0, 1), places).flatten(1)

    @property
    def _drops(self) -> bool:
        return self.training and self.dropout > 0
