"""Network blocks that know no iteration."""

from settlepoint.layers.linear import linear
from settlepoint.layers.spectral import clipped
from settlepoint.layers.tanh_cell import TanhCell

__all__ = ["TanhCell", "clipped", "linear"]
