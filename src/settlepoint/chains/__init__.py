"""What iterates along a chain: triangular fixed points, parallel sampling, diffusion, recycling, decoding."""

from settlepoint.chains.chain import Chain
from settlepoint.chains.cycles import Cycle, Track
from settlepoint.chains.decoded import Decoded
from settlepoint.chains.decoding import jacobi_decode
from settlepoint.chains.esmfold import EsmRecycle, Taps, esm_taps, esmfold
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.jacobi import jacobi_sample
from settlepoint.chains.pdb import Chain, PdbError, folder, read
from settlepoint.chains.recycling import RecycleTracer, Recycled, recycled
from settlepoint.chains.refinement import Refinement
from settlepoint.chains.reverse_step import ClippingWarning, ReverseStep
from settlepoint.chains.sampling import parallel_sample, sample_pipeline, sampling_chain
from settlepoint.chains.structures import Superposition, gdt_ts, kabsch
from settlepoint.chains.sweeps import Sweeps
from settlepoint.chains.swept import Swept
from settlepoint.chains.trace_metrics import TraceMetrics, average, joined, min_max, trace_metrics

__all__ = [
    "Chain",
    "ClippingWarning",
    "Cycle",
    "Decoded",
    "EsmRecycle",
    "ExactScore",
    "PdbError",
    "RecycleTracer",
    "Recycled",
    "Refinement",
    "ReverseStep",
    "Superposition",
    "Sweeps",
    "Swept",
    "Taps",
    "TraceMetrics",
    "Track",
    "average",
    "esm_taps",
    "esmfold",
    "folder",
    "gdt_ts",
    "jacobi_decode",
    "jacobi_sample",
    "joined",
    "kabsch",
    "min_max",
    "parallel_sample",
    "read",
    "recycled",
    "sample_pipeline",
    "sampling_chain",
    "trace_metrics",
]
