"""Experiment: a claim, the cells that test it, and how its results are shown. The contract of this room.

One file an experiment: a subclass of `Experiment` and its subclasses of `Scale`, and at the end of the module
`EXPERIMENT = Digits()`. The name of the module goes into the table of `experiments/__init__.py`; nothing else is
needed for `settle list`, `settle run`, `--resume` and the report.

    @dataclass(frozen=True, kw_only=True)
    class DigitsScale(Scale):
        units: Annotated[int, "units of the equilibrium layer"] = 100

    class Digits(Experiment):
        id = "digits"
        title = "Equilibrium classifier on digits"
        claim = "A settled layer classifies as well as a deep one, and each sample stops on its own."
        source = "Bai, Kolter and Koltun (2019)"
        scales = {"smoke": DigitsScale(seeds=1, units=20), "cpu": DigitsScale(seeds=3), "paper": DigitsScale(seeds=5)}
        tables = (Table("Accuracy", (Column("accuracy", "test accuracy", "%", fmt=".1f", paper={"implicit": 97.2}),)),)
        figures = (Figure("Convergence", ("residual",), "Residual against evaluations."),)

        def cells(self, scale): return ("implicit", "unrolled")
        def run(self, cell, seed, context): return outcome({"accuracy": 97.0, "evals": 812}, {"residual": curve(...)})
        def checks(self, results): return (Check.at_least("accuracy", results.mean("implicit", "accuracy"), 96.0),)

    EXPERIMENT = Digits()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from settlepoint.experiments.results import Check, Results, above_trivial
from settlepoint.experiments.scale import Context, Scale
from settlepoint.experiments.show import Column, Figure, Table, curve, outcome, pictures

__all__ = [
    "Check",
    "Column",
    "Context",
    "Experiment",
    "Figure",
    "Results",
    "Scale",
    "Table",
    "above_trivial",
    "curve",
    "outcome",
    "pictures",
]


class Experiment(ABC):
    """A stateless value: what is claimed, at which scales, in which cells, and what the results must show.

    id: name on the command line. claim: one sentence. source: the paper, table or issue it belongs to.
    scales: "smoke" (seconds), "cpu" (minutes on two cores), "paper" (the published size); every size and step count
    lives there. needs: called once before the first cell, to load data and packages, so that a missing one is told once
    and leaves no run folder. scaled_down: scale name to one sentence on what is smaller than in the source, shown in
    the report. together: the seeds of a cell run at once, by `run_together`. selection:
    the experiment that `settle run ID --select` runs, which chooses settings that `recorded` then holds.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    source: ClassVar[str]
    scales: ClassVar[Mapping[str, Any]]
    scaled_down: ClassVar[Mapping[str, str]] = {}
    needs: ClassVar[Sequence[Callable[[Context], object]]] = ()
    tables: ClassVar[Sequence[Table]] = ()
    figures: ClassVar[Sequence[Figure]] = ()
    together: ClassVar[bool] = False
    selection: ClassVar[Experiment | None] = None

    @abstractmethod
    def cells(self, scale: Any) -> Sequence[str]:
        """The names of the cells at this scale, in the order in which they run and are shown."""

    @abstractmethod
    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        """One cell for one seed: `outcome(metrics, curves, notes)`.

        seed counts 0, 1, 2, ...; make generators from names, `runs.generator_from(self.id, "data", seed)`, and initial
        weights inside `runs.seeded(...)`. Before each call the runner seeds torch's global generator from (id, cell,
        seed), so that the order of cells, `--jobs` and `--resume` change no number. The metric named "evals" (operator
        evaluations) and the CPU seconds are shown in every table. An exception fails this cell and seed only.
        """

    def run_together(self, cell: str, seeds: Sequence[int], context: Context) -> Sequence[Mapping[str, Any]]:
        """All seeds of a cell at once, one outcome each, where `together` is True: seeds trained side by side."""
        return [self.run(cell, seed, context) for seed in seeds]

    def recorded(self, scale: Any) -> Mapping[str, Any]:
        """What was decided before the run and stands in its spec: the outcome and the evidence of a selection."""
        return {}

    def artifacts(self, results: Results) -> Mapping[str, Any]:
        """Files for the folder of a complete run beside the usual ones: name to what JSON can hold."""
        return {}

    @abstractmethod
    def checks(self, results: Results) -> Sequence[Check]:
        """What the results must show at `results.scale_name`; a missing cell measures nan and so fails its check.

        Compare every trained cell with its trivial predictor by `above_trivial`.
        """
