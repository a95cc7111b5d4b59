"""What iterates along a chain: triangular fixed points, parallel sampling, recycling, decoding."""

from settlepoint.chains.chain import Chain
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.reverse_step import ClippingWarning, ReverseStep
from settlepoint.chains.sampling import parallel_sample, sample_pipeline, sampling_chain
from settlepoint.chains.sweeps import Sweeps
from settlepoint.chains.swept import Swept

__all__ = [
    "Chain",
    "ClippingWarning",
    "ExactScore",
    "ReverseStep",
    "Sweeps",
    "Swept",
    "parallel_sample",
    "sample_pipeline",
    "sampling_chain",
]
