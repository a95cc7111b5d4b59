"""Run folders: one line a finished cell and seed, resume, locks, engines, seeds."""

from settlepoint.runs.record import Record
from settlepoint.runs.seeds import generator_from, seed_from, seeded

__all__ = ["Record", "generator_from", "seed_from", "seeded"]
