"""Two ways to build and train PIGN with a GCN inside: as it was published, and so that it settles."""

from __future__ import annotations

from settlepoint.layers import Activated, pyg
from settlepoint.layers.propagation import Injection
from settlepoint.models import PIGN
from settlepoint.solvers import Picard
from settlepoint.stop import FixedSteps
from settlepoint.training.nodes import NodeRecipe

Channels = tuple[int, int, int]


def published(channels: Channels, *, steps: int = 10, dropout: float = 0.5, normalize: bool = True) -> PIGN:
    """PIGN-GCN as its code has it: h = .7 h + .3 dropout(relu(A h W)), no injection, learned transport.

    channels: (features, hidden, classes). normalize: False when the edges of the graphs are the matrix A itself, see
    layers.adjacency.
    """
    conv = pyg().GCNConv(channels[1], channels[1], normalize=normalize)
    body = Activated(conv, dropout)
    return PIGN(body, channels, injection=0, transport="learned", solver=Picard(damping=0.7), stop=FixedSteps(steps))


def settled(
    channels: Channels, *, steps: int = 10, dropout: float = 0.5, injection: Injection = 0.1, normalize: bool = True
) -> PIGN:
    """PIGN-GCN for clean features: h = .9 A h + .1 u, identity transport, undamped; A does not expand, so it settles.

    dropout: of the features. With a linear encoder and decoder the model is linear in the features: what it learns is
    which features speak for a class, the iteration spreads them over the graph.
    """
    conv = pyg().GCNConv(channels[1], channels[1], bias=False, normalize=normalize)
    model = PIGN(conv, channels, injection=injection, transport="identity", solver=Picard(), stop=FixedSteps(steps))
    model.encoder.dropout = dropout
    return model


def recipe(epochs: int = 200) -> NodeRecipe:
    """lr .01 and weight decay 5e-4 with Adam, for both presets and for the GCN beside them."""
    return NodeRecipe(epochs=epochs, lr=0.01, weight_decay=5e-4)
