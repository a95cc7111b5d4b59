"""Ways to build and train PIGN and transformers of fields: as they were published, and so that they settle."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from settlepoint.layers import Activated, Blocks, SparseAttention, SparseLinear, pyg, transported
from settlepoint.layers.propagation import Injection
from settlepoint.models import PIGN, FieldTransformer
from settlepoint.models.field_transformer import Kind
from settlepoint.solvers import Picard
from settlepoint.stop import FixedSteps
from settlepoint.training.nodes import NodeRecipe
from settlepoint.training.settled import AllIterates

Channels = tuple[int, int, int]
Backbone = Literal["gcn", "gat"]


def published(
    channels: Channels,
    *,
    steps: int = 10,
    dropout: float = 0.5,
    normalize: bool = True,
    backbone: Backbone = "gcn",
    copies: int = 1,
) -> PIGN:
    """PIGN as its code has it: h = .7 h + .3 dropout(relu(conv(h))), no injection, learned transport.

    channels: (features, hidden, classes). normalize: False when the edges of the graphs are the matrix A itself, see
    layers.adjacency. backbone: GCNConv, or GATConv with one head. copies: see models.PIGN.
    """
    body = Activated(convolution(backbone, channels[1], copies, normalize=normalize, bias=True), dropout, copies=copies)
    solver, stop = Picard(damping=0.7), FixedSteps(steps)
    return PIGN(body, channels, injection=0, transport="learned", solver=solver, stop=stop, copies=copies)


def settled(
    channels: Channels,
    *,
    steps: int = 10,
    dropout: float = 0.5,
    injection: Injection = 0.1,
    damping: float = 0.0,
    center: bool = False,
    normalize: bool = True,
    backbone: Backbone = "gcn",
    copies: int = 1,
) -> PIGN:
    """PIGN so that it settles: h = .9 A h + .1 u, identity transport; A does not expand, so it does.

    For clean features. With noise on them: injection 0, damping .3, 20 steps, center, no dropout, weight decay 5e-2.
    dropout: of the features. With a linear encoder and decoder the model on GCNConv is linear in the features: what it
    learns is which features speak for a class, the iteration spreads them over the graph. The rest as `published`.
    """
    features, hidden, _ = channels
    conv = convolution(backbone, hidden, copies, normalize=normalize, bias=False, transport="identity")
    encoder = SparseLinear(features, copies * hidden, dropout=dropout, copies=copies)
    return PIGN(
        conv, channels, injection=injection, transport="learned", center=center, solver=Picard(damping=damping),
        stop=FixedSteps(steps), encoder=encoder, copies=copies,
    )  # fmt: skip


def recipe(epochs: int = 200, lr: float = 0.01, weight_decay: float = 5e-4) -> NodeRecipe:
    """lr .01 and weight decay 5e-4 with Adam, for both presets and for the GCN beside them."""
    return NodeRecipe(epochs=epochs, lr=lr, weight_decay=weight_decay)


def convolution(
    backbone: Backbone,
    hidden: int,
    copies: int,
    *,
    normalize: bool,
    bias: bool,
    transport: Literal["identity", "learned"] = "learned",
) -> nn.Module:
    """A GCNConv, or a GATConv with one head, of `copies` networks side by side; the rest as `published`."""
    width = copies * hidden
    if backbone == "gcn":
        conv = pyg().GCNConv(width, width, bias=bias, normalize=normalize)
    elif backbone == "gat":
        conv = pyg().GATConv(width, hidden, copies, bias=bias)
    else:
        raise ValueError(f"backbone must be 'gcn' or 'gat', got {backbone!r}")
    if transport == "learned":
        conv.lin = Blocks(hidden, hidden, copies, bias=False)
        nn.init.xavier_uniform_(conv.lin.weight)
    conv = transported(conv, transport)
    return SparseAttention(conv, copies) if backbone == "gat" else conv


def published_transformer(
    frames: tuple[int, int],
    grid: tuple[int, int],
    *,
    steps: int = 3,
    patch: tuple[int, ...] = (4, 4),
    kind: Kind = "vit",
) -> FieldTransformer:
    """A FieldTransformer as the paper's Algorithm 2 has it: `steps` of x <- (x + T(x) + f) / 2, to fit on the last."""
    solver, stop = Picard(damping=0.5), FixedSteps(steps)
    return FieldTransformer(frames, grid, 48, patch=patch, kind=kind, form="picard", solver=solver, stop=stop)


def settled_transformer(
    frames: tuple[int, int], grid: tuple[int, int], *, patch: tuple[int, ...] = (4, 4), kind: Kind = "vit"
) -> FieldTransformer:
    """A FieldTransformer of which any number of iterations is right once it is fitted by `settling()`

    x <- (x + T(x, f)) / 2, eight steps. In `settle run table2-settled`, at a rate of 5e-3 that rises over 100 steps,
    its error falls along 8 iterations and stays to 24.
    """
    solver, stop = Picard(damping=0.5), FixedSteps(8)
    return FieldTransformer(frames, grid, 48, patch=patch, kind=kind, form="input", solver=solver, stop=stop)


def settling(generator: torch.Generator | None = None) -> AllIterates:
    """The loss on all of 6 to 8 iterates, the k-th weighed by k^3, half of the time up to 8 iterations further on."""
    return AllIterates(counts=(6, 8), ahead=8, growth=3.0, generator=generator or torch.Generator())
