"""What iterates along a chain: triangular fixed points, parallel sampling, recycling, decoding."""

from settlepoint.chains.exact_score import ExactScore

__all__ = [
    "ExactScore",
]
