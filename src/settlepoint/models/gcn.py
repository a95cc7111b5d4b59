"""The two-layer graph networks that graph models are measured against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from settlepoint.layers.blocks import Blocks
from settlepoint.layers.graph_attention import SparseAttention
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.masks import CopiedDropout
from settlepoint.layers.pyg import pyg
from settlepoint.layers.transport import transported
from settlepoint.models.graphs import Graphs


class GCN(nn.Module):
    """y = A relu(A x W) V + c        (Kipf and Welling 2017), A the normalised adjacency with self-loops

    x: (N, features), dense or sparse. dropout: of the features and of the hidden layer, in training; `inputs` that of
    the features, where it differs. normalize: False when the edges of the graphs are A itself, see layers.adjacency.
    center: subtract from x W its mean over the nodes of each graph. copies: see models.PIGN.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        classes: int,
        *,
        dropout: float = 0.5,
        inputs: float | None = None,
        normalize: bool = True,
        center: bool = False,
        copies: int = 1,
    ):
        super().__init__()
        conv, width = pyg().GCNConv, copies * hidden
        self.encoder = _encoder(features, width, dropout if inputs is None else inputs, copies)
        self.first = transported(conv(width, width, normalize=normalize), "identity")
        self.second = conv(width, copies * classes, normalize=normalize)
        self.second.lin = Blocks(hidden, classes, copies, bias=False)
        nn.init.xavier_uniform_(self.second.lin.weight)
        self.dropout, self.center = CopiedDropout(dropout, copies), center

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        u = self.encoder(x)
        h = self.first(graphs.centred(u) if self.center else u, graphs.edges).relu()
        return self.second(self.dropout(h), graphs.edges)


class GAT(nn.Module):
    """Two layers of attention, `heads` times `hidden` features joined, then one head      (Velickovic et al. 2018)

    dropout: of the hidden layer; attention: of the attention weights, in training. The rest as GCN; edges may be a
    sparse CSR matrix, whose entries are the links, loops among them.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        classes: int,
        *,
        heads: int = 8,
        dropout: float = 0.6,
        inputs: float | None = None,
        attention: float = 0.6,
        center: bool = False,
        copies: int = 1,
    ):
        super().__init__()
        conv, width = pyg().GATConv, heads * hidden
        first = conv(copies * width, hidden, copies * heads, dropout=attention)
        second = conv(copies * width, classes, copies, dropout=attention)
        self.encoder = _encoder(features, copies * width, dropout if inputs is None else inputs, copies)
        second.lin = Blocks(width, classes, copies, bias=False)
        nn.init.xavier_uniform_(second.lin.weight)
        self.first, self.second = (
            SparseAttention(transported(first, "identity"), copies),
            SparseAttention(second, copies),
        )
        self.dropout, self.center = CopiedDropout(dropout, copies), center

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        u = self.encoder(x)
        h = self.first(graphs.centred(u) if self.center else u, graphs.edges)
        return self.second(self.dropout(nn.functional.elu(h)), graphs.edges)


class DeepGCN(nn.Module):
    """y = D h_K,  h_k = a h_{k-1} + (1 - a) dropout(relu(conv_k(h_{k-1}))),  h_0 = E x

    The published PIGN with K convolutions of their own instead of one: the untied control of the same depth. With
    damping a = 0 a plain deep GCN.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        layers: int,
        *,
        damping: float = 0.7,
        dropout: float = 0.5,
        inputs: float = 0.0,
        normalize: bool = True,
        center: bool = False,
        copies: int = 1,
    ):
        super().__init__()
        features, hidden, classes = channels
        width = copies * hidden
        self.encoder = SparseLinear(features, width, dropout=inputs, copies=copies)
        self.convs = nn.ModuleList(pyg().GCNConv(width, width, normalize=normalize) for _ in range(layers))
        for conv in self.convs:
            conv.lin = Blocks(hidden, hidden, copies, bias=False)
            nn.init.xavier_uniform_(conv.lin.weight)
        self.decoder, self.dropout = Blocks(hidden, classes, copies), CopiedDropout(dropout, copies)
        self.damping, self.center = damping, center

    def forward(self, x: Tensor, graphs: Graphs) -> Tensor:
        u = self.encoder(x)
        h = graphs.centred(u) if self.center else u
        for conv in self.convs:
            h = torch.lerp(self.dropout(conv(h, graphs.edges).relu()), h, self.damping)
        return self.decoder(h)


def _encoder(features: int, width: int, dropout: float, copies: int) -> SparseLinear:
    encoder = SparseLinear(features, width, dropout=dropout, bias=False, copies=copies)
    nn.init.xavier_uniform_(encoder.linear.weight)  # as the convolutions' own weight
    return encoder
