"""Run folders: one line a finished cell and seed, resume, locks, engines, seeds."""

from settlepoint.runs.engines import Engine, Local, Ray
from settlepoint.runs.errors import MissingExtra, RunError, WriteError
from settlepoint.runs.execute import Mode, Ran, execute
from settlepoint.runs.folder import RunFolder
from settlepoint.runs.plan import Plan
from settlepoint.runs.record import Record, plain
from settlepoint.runs.seeds import generator_from, seed_from, seeded

__all__ = [
    "Engine",
    "Local",
    "MissingExtra",
    "Mode",
    "Plan",
    "Ran",
    "Ray",
    "Record",
    "RunError",
    "RunFolder",
    "WriteError",
    "execute",
    "generator_from",
    "plain",
    "seed_from",
    "seeded",
]
