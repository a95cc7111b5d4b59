"""What iterates along a chain: triangular fixed points, parallel sampling, recycling, decoding."""

from settlepoint.chains.chain import Chain
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.sweeps import Sweeps
from settlepoint.chains.swept import Swept

__all__ = [
    "Chain",
    "ExactScore",
    "Sweeps",
    "Swept",
]
