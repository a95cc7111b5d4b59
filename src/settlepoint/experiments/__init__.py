"""The experiments by name; a module is imported only when its experiment is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from settlepoint.experiments.experiment import Experiment
from settlepoint.experiments.scale import UsageError

MODULES = {
    "digits": "settlepoint.experiments.digits",
    "check-digits": "settlepoint.experiments.check_digits",
    "solvers": "settlepoint.experiments.solvers",
    "pign-cora": "settlepoint.experiments.pign_cora",
    "certificates": "settlepoint.experiments.certificates",
    "r2n2-nonlinear": "settlepoint.experiments.r2n2_nonlinear",
    "r2n2-ivp": "settlepoint.experiments.r2n2_ivp",
    "r2n2-linear": "settlepoint.experiments.r2n2_linear",
    "r2n2-linear-extrapolation": "settlepoint.experiments.r2n2_extrapolation",
    "r2n2-iteration-weights": "settlepoint.experiments.r2n2_iteration_weights",
    "r2n2-networks": "settlepoint.experiments.r2n2_networks",
    "r2n2-inverse": "settlepoint.experiments.r2n2_inverse",
    "r2n2-adaptive": "settlepoint.experiments.r2n2_adaptive",
    "r2n2-classes": "settlepoint.experiments.r2n2_classes",
    "from-scipy": "settlepoint.experiments.from_scipy",
    "theory": "settlepoint.experiments.theory",
    "tune": "settlepoint.experiments.tuning",
    "table5": "settlepoint.experiments.table5",
    "table5-noise": "settlepoint.experiments.table5_noise",
    "pign-iterations": "settlepoint.experiments.pign_iterations",
    "table1": "settlepoint.experiments.table1",
    "table1-camvid": "settlepoint.experiments.table1_camvid",
    "table2": "settlepoint.experiments.table2",
    "table2-settled": "settlepoint.experiments.table2_settled",
    "table3": "settlepoint.experiments.table3",
    "table3-settled": "settlepoint.experiments.table3_settled",
    "table4": "settlepoint.experiments.table4",
    "table1-rwsp": "settlepoint.experiments.table1_rwsp",
    "shortest-path": "settlepoint.experiments.shortest_path",
    "graph-value-iteration": "settlepoint.experiments.graph_value_iteration",
    "fno-deq-darcy": "settlepoint.experiments.fno_deq_darcy",
    "nie": "settlepoint.experiments.nie",
    "nide": "settlepoint.experiments.nide",
    "parallel-sampling": "settlepoint.experiments.parallel_sampling",
    "jacobi": "settlepoint.experiments.jacobi",
    "jacobi-consistency": "settlepoint.experiments.jacobi_consistency",
    "pixelcnn": "settlepoint.experiments.pixelcnn",
    "recycling": "settlepoint.experiments.recycling",
    "ddpm-schedule": "settlepoint.experiments.ddpm_schedule",
    "ddpm": "settlepoint.experiments.ddpm",
    "fixed-point-diffusion": "settlepoint.experiments.fixed_point_diffusion",
    "vae": "settlepoint.experiments.vae",
    "smld": "settlepoint.experiments.smld",
    "bench": "settlepoint.experiments.bench",
}
"""Experiment id to the module that holds it as EXPERIMENT. One line an experiment."""

DEMO = (("tune", "smoke"), ("digits", "smoke"), ("check-digits", "smoke"), ("solvers", "smoke"))
"""What `settle demo` runs: (experiment, scale)."""


@dataclass(frozen=True)
class Registry:
    """The experiments that a program knows.

    modules: id to module. demo: what a first look runs. aside: ids that "all" leaves out.
    """

    modules: Mapping[str, str] = field(default_factory=lambda: MODULES)
    demo: Sequence[tuple[str, str]] = DEMO
    aside: Sequence[str] = ("bench",)

    def load(self, name: str) -> Experiment:
        """The experiment of that id. Raises UsageError, naming the valid ids or the package that is missing."""
        if name not in self.modules:
            raise UsageError(f"no experiment {name!r}; the experiments are {', '.join(self.modules)}")
        try:
            return import_module(self.modules[name]).EXPERIMENT
        except ModuleNotFoundError as error:
            advice = 'pip install "settlepoint[data,graphs,chains,peers]" brings what the experiments need'
            raise UsageError(f"{name} needs the package {error.name!r}, which is not installed; {advice}") from None

    def load_all(self, name: str) -> list[Experiment]:
        """The experiment of that id; with "all", every one but those set aside."""
        if name != "all":
            return [self.load(name)]
        return [self.load(key) for key in self.modules if key not in self.aside]


REGISTRY = Registry()

__all__ = ["DEMO", "MODULES", "REGISTRY", "Experiment", "Registry", "UsageError"]
