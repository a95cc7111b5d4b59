"""Network blocks that know no iteration."""

from settlepoint.layers.activated import Activated
from settlepoint.layers.adjacency import adjacency
from settlepoint.layers.attention import CubicAttention, L2Attention, l2_attention
from settlepoint.layers.blocks import Blocks
from settlepoint.layers.carrying import Carrying
from settlepoint.layers.cut import Cut
from settlepoint.layers.fourier import FourierLayer, SpectralConvolution
from settlepoint.layers.fourier_cell import FourierCell
from settlepoint.layers.frame import Frame
from settlepoint.layers.galerkin import GalerkinAttention, GalerkinBlock
from settlepoint.layers.graph_attention import SparseAttention, attended
from settlepoint.layers.halting import Halting
from settlepoint.layers.held import HeldBatchNorm, HeldDropout, release
from settlepoint.layers.inputs import SparseLinear
from settlepoint.layers.integral import IntegralOperator, MemoryOperator, joined
from settlepoint.layers.linear import linear
from settlepoint.layers.masked_convolution import MaskedConvolution
from settlepoint.layers.masks import CopiedDropout
from settlepoint.layers.normalised import Normalised
from settlepoint.layers.patches import Patches
from settlepoint.layers.path import Featured, Links, PathConv
from settlepoint.layers.propagation import Propagation
from settlepoint.layers.pyg import pyg
from settlepoint.layers.quadrature import Quadrature, RandomNodes, gauss_legendre, trapezoidal, weighted_nodes
from settlepoint.layers.rate import Rate
from settlepoint.layers.row_norm import RowBounded, rows_projected
from settlepoint.layers.spectral import clipped
from settlepoint.layers.tanh_cell import TanhCell
from settlepoint.layers.transformer import SelfAttention, TransformerBlock
from settlepoint.layers.transport import Mixed, transported
from settlepoint.layers.weighted import Weighted, incoming_softmax

__all__ = [
    "Activated",
    "Blocks",
    "Carrying",
    "CopiedDropout",
    "CubicAttention",
    "Cut",
    "Featured",
    "FourierCell",
    "FourierLayer",
    "Frame",
    "GalerkinAttention",
    "GalerkinBlock",
    "Halting",
    "HeldBatchNorm",
    "HeldDropout",
    "IntegralOperator",
    "L2Attention",
    "Links",
    "MaskedConvolution",
    "MemoryOperator",
    "Mixed",
    "Normalised",
    "Patches",
    "PathConv",
    "Propagation",
    "Quadrature",
    "RandomNodes",
    "Rate",
    "RowBounded",
    "SelfAttention",
    "SparseAttention",
    "SparseLinear",
    "SpectralConvolution",
    "TanhCell",
    "TransformerBlock",
    "Weighted",
    "adjacency",
    "attended",
    "clipped",
    "gauss_legendre",
    "incoming_softmax",
    "joined",
    "l2_attention",
    "linear",
    "pyg",
    "release",
    "rows_projected",
    "transported",
    "trapezoidal",
    "weighted_nodes",
]
