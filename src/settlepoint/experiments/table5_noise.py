"""table5-noise: accuracy against the share of noisy features, over draws, and where noise leaves no trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated, Any, Literal, cast

from settlepoint.experiments.citations import Citations, Kind, majority
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    curve,
    outcome,
)
from settlepoint.experiments.table5_models import ROWS
from settlepoint.experiments.table5_select import known, selected, telling
from settlepoint.experiments.table5_training import choice, trained

MODEL, CENTRED = "pign-gcn settled", "gcn centred"
KINDS: tuple[Kind, ...] = ("drop-in", "flips")


@dataclass(frozen=True, kw_only=True)
class NoiseScale(Scale):
    """Sizes of the sweep."""

    hidden: Annotated[int, "features a node inside the loop"] = 16
    epochs: Annotated[int, "steps of Adam on the whole graph"] = 200
    models: Annotated[tuple[str, ...], "rows of table5 that are swept"] = ("mlp", "sgc", "gcn", CENTRED, MODEL)
    levels: Annotated[tuple[float, ...], "shares of the features that get noise"] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    starts: Annotated[int, "trainings a draw of the noise, side by side"] = 3
    graph: Annotated[str, "Cora or CiteSeer"] = "Cora"
    choices: Annotated[str, "choices.json of a selection of your own; the recorded one when empty"] = ""


class Table5Noise(Experiment):
    """One seed is one draw of the noise; the settings are those chosen for table5 at share 0 and, above, at .5."""

    id = "table5-noise"
    title = "Noise on Cora: level, draw and trace"
    claim = (
        "The settled PIGN keeps most of its accuracy at every level of drop-in noise, whatever the draw; when features "
        "are flipped before they are normalised, so that nothing can be subtracted, the lead over a GCN is another one."
    )
    source = "Operator Learning Meets Numerical Analysis, Table 5 (one level, one draw)"
    scales = {
        "smoke": NoiseScale(seeds=1, hidden=8, epochs=5, models=("sgc", MODEL), levels=(0.0, 0.5), starts=2),
        "cpu": NoiseScale(seeds=3),
        "paper": NoiseScale(seeds=10, hidden=64, starts=10),
    }
    scaled_down = {"smoke": "two rows, two levels, 5 epochs, one draw", "cpu": "3 draws of 3 trainings, 16 hidden"}
    needs = (lambda context: Citations(context.scale.graph).task(context),)
    tables = tuple(
        Table(
            title,
            tuple(Column(f"{kind} {level:g}", f"{level:g}", "%", ".1f") for level in NoiseScale().levels),
            caption=caption,
            command="settle run table5-noise --scale {scale} --seeds {seeds} --set \"models={cell}\"",
        )
        for kind, title, caption in (
            ("drop-in", "Test accuracy by share of features raised by 1",
             "Mean over the trainings of a draw, then over draws; ± is over draws. Chosen on validation as in table5."),
            ("flips", "Test accuracy by share of words turned over",
             "0 for 1 and 1 for 0 before the rows are normalised; at .5 no feature tells anything."),
        )
    )  # fmt: skip
    figures = tuple(
        Figure(f"{title}", (kind,), f"Test accuracy against the share of noisy features, {title.lower()}.")
        for kind, title in (("drop-in", "Raised by 1"), ("flips", "Turned over"))
    )

    def cells(self, scale: NoiseScale) -> Sequence[str]:
        known("models", scale.models, ROWS)
        known("graph", (scale.graph,), ("Cora", "CiteSeer"))
        return ("majority class", *scale.models)

    def recorded(self, scale: NoiseScale) -> Mapping[str, Any]:
        return selected(scale.choices)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        levels, metrics, curves = context.scale.levels, {}, {}
        for kind in KINDS:
            scores = [_score(cell, _wanted(context, level, seed, kind), context) for level in levels]
            metrics |= {f"{kind} {level:g}": score for level, score in zip(levels, scores, strict=True)}
            curves[kind] = curve(levels, scores, x_label="share of features", y_label="test accuracy (%)")
        return outcome(metrics, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        mean, scale, checks = results.mean, results.scale, []
        for level in scale.levels if {MODEL, CENTRED} <= set(scale.models) else ():
            name, ours = f"drop-in {level:g}", mean(MODEL, f"drop-in {level:g}")
            floor = mean("majority class", name)
            checks.append(Check.at_least(f"{MODEL} over the majority class at {level:g} (points)", ours - floor, 10.0))
            if level >= 0.5:
                lead = ours - mean(CENTRED, name)
                checks.append(Check.at_least(f"{MODEL} over {CENTRED} at {level:g} (points)", lead, 8.0))
        return checks


def _wanted(context: Context, level: float, seed: int, kind: Kind) -> Citations:
    graph = cast(Literal["Cora", "CiteSeer"], context.scale.graph)
    return Citations(graph, level, mask=1 + seed if level else 0, kind=kind if level else "drop-in")


def _score(cell: str, wanted: Citations, context: Context) -> float:
    """Mean test accuracy of the trainings on one draw."""
    if cell == "majority class":
        return majority(wanted.task(context))
    column = wanted.name.lower() + ("-50" if wanted.share else "")
    settings = choice(selected(context.scale.choices)["choices"], ROWS[cell], cell, column)
    told = telling(context, f"{wanted.kind} {wanted.share:g}")
    _, histories = trained(cell, ROWS[cell], settings, range(context.scale.starts), wanted, told)
    return fmean(history.test[history.chosen] for history in histories)


EXPERIMENT = Table5Noise()
