"""Network blocks that know no iteration."""

from settlepoint.layers.activated import Activated
from settlepoint.layers.adjacency import adjacency
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.linear import linear
from settlepoint.layers.propagation import Propagation
from settlepoint.layers.pyg import pyg
from settlepoint.layers.spectral import clipped
from settlepoint.layers.tanh_cell import TanhCell
from settlepoint.layers.transport import Mixed, transported

__all__ = [
    "Activated",
    "Mixed",
    "Propagation",
    "SparseLinear",
    "TanhCell",
    "adjacency",
    "clipped",
    "linear",
    "pyg",
    "transported",
]
