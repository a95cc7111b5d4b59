"""What iterates along a chain or in cycles, as a user's tool."""

from settlepoint.chains.cycles import Cycle, Track
from settlepoint.chains.esmfold import EsmRecycle, Taps, esm_taps, esmfold
from settlepoint.chains.pdb import Chain, PdbError, folder, read
from settlepoint.chains.recycling import Recycled, RecycleTracer, recycled
from settlepoint.chains.refinement import Refinement
from settlepoint.chains.structures import Superposition, gdt_ts, kabsch
from settlepoint.chains.trace_metrics import TraceMetrics, average, joined, min_max, trace_metrics

__all__ = [
    "Chain",
    "Cycle",
    "EsmRecycle",
    "PdbError",
    "RecycleTracer",
    "Recycled",
    "Refinement",
    "Superposition",
    "Taps",
    "TraceMetrics",
    "Track",
    "average",
    "esm_taps",
    "esmfold",
    "folder",
    "gdt_ts",
    "joined",
    "kabsch",
    "min_max",
    "read",
    "recycled",
    "trace_metrics",
]
