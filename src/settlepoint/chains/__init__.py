"""What iterates along a chain: triangular fixed points, parallel sampling, diffusion, recycling, decoding."""

from settlepoint.chains.chain import Chain
from settlepoint.chains.decoded import Decoded
from settlepoint.chains.decoding import jacobi_decode
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.jacobi import jacobi_sample
from settlepoint.chains.reverse_step import ClippingWarning, ReverseStep
from settlepoint.chains.sampling import parallel_sample, sample_pipeline, sampling_chain
from settlepoint.chains.sweeps import Sweeps
from settlepoint.chains.swept import Swept

__all__ = [
    "Chain",
    "ClippingWarning",
    "Decoded",
    "ExactScore",
    "ReverseStep",
    "Sweeps",
    "Swept",
    "jacobi_decode",
    "jacobi_sample",
    "parallel_sample",
    "sample_pipeline",
    "sampling_chain",
]
