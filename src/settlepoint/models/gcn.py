"""The graph convolutional network that graph models are measured against."""

from __future__ import annotations

from torch import Tensor, nn

from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.pyg import pyg
from settlepoint.layers.transport import transported
from settlepoint.models.graphs import Graphs


class GCN(nn.Module):
    """y = A relu(A x W) V + c        (Kipf and Welling 2017), A the normalised adjacency with self-loops

    x: (N, features), dense or sparse. dropout: of the features and of the hidden layer, in training. normalize: False
    when the edges of the graphs are A itself, see layers.adjacency.
    """

    def __init__(self, features: int, hidden: int, classes: int, *, dropout: float = 0.5, normalize: bool = True):
        super().__init__()
        conv = pyg().GCNConv
        self.encoder = SparseLinear(features, hidden, dropout=dropout, bias=False)
        self.first = transported(conv(hidden, hidden, normalize=normalize), "identity")
        self.second = conv(hidden, classes, normalize=normalize)
        nn.init.xavier_uniform_(self.encoder.linear.weight)  # as GCNConv's own weight
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        h = self.first(self.encoder(x), graphs.edges).relu()
        return self.second(self.dropout(h), graphs.edges)
