"""What iterates along a chain: triangular fixed points, parallel sampling, diffusion, recycling, decoding."""

from settlepoint.chains.ancestral import ancestral
from settlepoint.chains.carried import Carried, step_budget
from settlepoint.chains.chain import Chain
from settlepoint.chains.cycles import Cycle, Track
from settlepoint.chains.decoded import Decoded
from settlepoint.chains.decoding import jacobi_decode
from settlepoint.chains.esmfold import EsmRecycle, Taps, esm_taps, esmfold
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.jacobi import jacobi_sample
from settlepoint.chains.langevin import Annealing, Denoised, langevin, noise_ladder
from settlepoint.chains.pdb import PdbError, Residues, read_folder, read_pdb
from settlepoint.chains.recycling import Recycled, RecycleTracer, recycled
from settlepoint.chains.refinement import Refinement
from settlepoint.chains.reverse_sde import printed_drift, reverse_drift, reversed_sde
from settlepoint.chains.reverse_step import ClippingWarning, ReverseStep
from settlepoint.chains.sampling import parallel_sample, sample_pipeline, sampling_chain
from settlepoint.chains.schedules import Schedule, linear_schedule
from settlepoint.chains.structures import Superposition, gdt_ts, kabsch
from settlepoint.chains.sweeps import Sweeps
from settlepoint.chains.swept import Swept
from settlepoint.chains.trace_metrics import TraceMetrics, average_curve, joined_metrics, min_max, trace_metrics
from settlepoint.chains.unet import UNet, unet

__all__ = [
    "Annealing",
    "Carried",
    "Chain",
    "ClippingWarning",
    "Cycle",
    "Decoded",
    "Denoised",
    "EsmRecycle",
    "ExactScore",
    "PdbError",
    "RecycleTracer",
    "Recycled",
    "Refinement",
    "Residues",
    "ReverseStep",
    "Schedule",
    "Superposition",
    "Sweeps",
    "Swept",
    "Taps",
    "TraceMetrics",
    "Track",
    "UNet",
    "ancestral",
    "average_curve",
    "esm_taps",
    "esmfold",
    "gdt_ts",
    "jacobi_decode",
    "jacobi_sample",
    "joined_metrics",
    "kabsch",
    "langevin",
    "linear_schedule",
    "min_max",
    "noise_ladder",
    "parallel_sample",
    "printed_drift",
    "read_folder",
    "read_pdb",
    "recycled",
    "reverse_drift",
    "reversed_sde",
    "sample_pipeline",
    "sampling_chain",
    "step_budget",
    "trace_metrics",
    "unet",
]
