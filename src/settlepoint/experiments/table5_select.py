"""table5 --select: the settings of every row of Table 5, chosen on validation accuracy by one budget."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from settlepoint.experiments.citations import SETS
from settlepoint.experiments.experiment import Check, Column, Context, Experiment, Results, Scale, Table, outcome
from settlepoint.experiments.scale import UsageError
from settlepoint.experiments.table5_models import ROWS
from settlepoint.experiments.table5_training import trained

CHOOSE = tuple(name for name, row in ROWS.items() if row.own is not None)
APART = " @ "
"""Between the row and the column in the name of a cell."""


@dataclass(frozen=True, kw_only=True)
class SelectScale(Scale):
    """Sizes of the selection."""

    hidden: Annotated[int, "features a node inside the loop"] = 16
    epochs: Annotated[int, "steps of Adam on the whole graph"] = 200
    models: Annotated[tuple[str, ...], "rows that choose"] = CHOOSE
    datasets: Annotated[tuple[str, ...], "columns they choose for"] = tuple(SETS)


class Table5Selection(Experiment):
    """Every candidate of every row trained on seeds that the table does not use; no test accuracy is looked at."""

    id = "table5-select"
    title = "The settings of Table 5"
    claim = "Every row that chooses chose among as many candidates, by the mean validation accuracy of the same seeds."
    source = "Operator Learning Meets Numerical Analysis, Table 5"
    scales = {
        "smoke": SelectScale(seeds=1, hidden=8, epochs=3, models=("sgc", "pign-gcn settled"), datasets=("cora",)),
        "cpu": SelectScale(seeds=2),
        "paper": SelectScale(seeds=5, hidden=64),
    }
    scaled_down = {"smoke": "two rows, clean Cora, 3 epochs, one seed", "cpu": "2 seeds a candidate"}
    needs = (lambda context: [SETS[name].task(context) for name in context.scale.datasets],)
    together = True
    tables = (
        Table(
            "Validation accuracy of the candidates",
            (
                Column("best", "Best of the means", "%", ".1f"),
                Column("worst", "Worst of the means", "%", ".1f"),
                Column("chosen", "Candidate", fmt=".0f"),
                Column("candidates", "Candidates", fmt=".0f"),
            ),
            caption="Mean over the seeds of the best validation accuracy of each run; ties go to the lower mean "
            "validation loss at that epoch. choices.json holds the settings and every candidate beside them.",
        ),
    )

    def cells(self, scale: SelectScale) -> Sequence[str]:
        known("models", scale.models, CHOOSE)
        known("datasets", scale.datasets, SETS)
        return [f"{model}{APART}{column}" for model in scale.models for column in scale.datasets]

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        return self.run_together(cell, [seed], context)[0]

    def run_together(self, cell: str, seeds: Sequence[int], context: Context) -> Sequence[Mapping[str, Any]]:
        name, column = cell.split(APART)
        row, drawn = ROWS[name], [f"select {seed}" for seed in seeds]
        found: list[dict[str, float]] = [{} for _ in seeds]
        for i, settings in enumerate(row.candidates):
            told = telling(context, f"candidate {i + 1} of {len(row.candidates)}")
            _, histories = trained(name, row, settings, drawn, SETS[column], told)
            for metrics, history in zip(found, histories, strict=True):
                metrics |= {f"val {i}": history.val[history.chosen], f"loss {i}": history.val_loss[history.chosen]}
        evidence = _evidence(row.candidates, found)
        best = evidence.index(max(evidence, key=_merit))
        vals = [candidate["validation"] for candidate in evidence]
        shown = {"best": vals[best], "worst": min(vals), "chosen": best, "candidates": len(vals)}
        return [outcome({**metrics, **shown}) for metrics in found]

    def artifacts(self, results: Results) -> Mapping[str, Any]:
        chosen: dict[str, dict[str, Any]] = {}
        for cell in results.cells:
            name, column = cell.split(APART)
            found = [record.metrics for record in results.of(cell)]
            evidence = _evidence(ROWS[name].candidates, found)
            chosen.setdefault(column, {})[name] = {**max(evidence, key=_merit), "candidates": evidence}
        command = f"settle run table5 --select --scale {results.scale_name} --seeds {results.scale.seeds}"
        return {"choices.json": {"command": command, "choices": chosen}}

    def checks(self, results: Results) -> Sequence[Check]:
        counts = {count for cell in results.cells for count in results.values(cell, "candidates")}
        return [Check.at_most("different numbers of candidates", len(counts), 1)]


def _evidence(candidates: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Every candidate with its mean validation accuracy and loss."""
    return [
        {
            "settings": dict(settings),
            "validation": fmean(metrics[f"val {i}"] for metrics in found),
            "loss": fmean(metrics[f"loss {i}"] for metrics in found),
        }
        for i, settings in enumerate(candidates)
    ]


def _merit(candidate: Mapping[str, Any]) -> tuple[float, float]:
    return candidate["validation"], -candidate["loss"]


def selected(path: str = "") -> Mapping[str, Any]:
    """A selection: that of a choices.json, or the recorded one. Raises UsageError for a file that is none."""
    return _selected(path)


@cache
def _selected(path: str) -> Mapping[str, Any]:
    try:
        text = Path(path).read_text("utf-8") if path else _RECORDED.read_text("utf-8")
        read = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"choices must be a choices.json of settle run table5 --select, got {path!r}: {error}"
        ) from None
    if not isinstance(read, dict) or not isinstance(read.get("choices"), dict):
        raise UsageError(f"choices must be a choices.json of settle run table5 --select, got {path!r}")
    return read


_RECORDED = files("settlepoint.experiments").joinpath("table5_choices.json")


def known(field: str, names: Collection[str], valid: Collection[str]) -> None:
    """Raise UsageError for a name that is not valid."""
    for name in names:
        if name not in valid:
            raise UsageError(f"{field} must be among {', '.join(valid)}, got {name!r}")


def telling(context: Context, where: str) -> Context:
    """The context with every progress text headed by where it comes from."""
    return replace(context, progress=lambda text: context.progress(f"{where}, {text}"))


SELECTION = Table5Selection()
EXPERIMENT = SELECTION
