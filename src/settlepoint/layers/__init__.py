"""Network blocks that know no iteration."""

from settlepoint.layers.activated import Activated
from settlepoint.layers.adjacency import adjacency
from settlepoint.layers.attention import CubicAttention, L2Attention, l2_attention
from settlepoint.layers.held import HeldBatchNorm, HeldDropout, release
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.linear import linear
from settlepoint.layers.propagation import Propagation
from settlepoint.layers.pyg import pyg
from settlepoint.layers.spectral import clipped
from settlepoint.layers.tanh_cell import TanhCell
from settlepoint.layers.transport import Mixed, transported

__all__ = [
    "Activated",
    "CubicAttention",
    "HeldBatchNorm",
    "HeldDropout",
    "L2Attention",
    "Mixed",
    "Propagation",
    "SparseLinear",
    "TanhCell",
    "adjacency",
    "clipped",
    "l2_attention",
    "linear",
    "pyg",
    "release",
    "transported",
]
