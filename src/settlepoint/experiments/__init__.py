"""The experiments by name; a module is imported only when its experiment is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from settlepoint.experiments.experiment import Experiment

MODULES = {
    "digits": "settlepoint.experiments.digits",
    "solvers": "settlepoint.experiments.solvers",
    "pign-cora": "settlepoint.experiments.pign_cora",
    "bench": "settlepoint.experiments.bench",
}
"""Experiment id to the module that holds it as EXPERIMENT. One line an experiment."""

DEMO = (("digits", "smoke"), ("solvers", "smoke"))
"""What `settle demo` runs: (experiment, scale)."""


def load(name: str, modules: Mapping[str, str] = MODULES) -> Experiment:
    """The experiment of that id. Raises ValueError, naming the valid ids, when there is none."""
    if name not in modules:
        raise ValueError(f"no experiment {name!r}; the experiments are {', '.join(modules)}")
    return import_module(modules[name]).EXPERIMENT


__all__ = ["DEMO", "MODULES", "Experiment", "load"]
