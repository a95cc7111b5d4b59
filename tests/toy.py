"""A tiny experiment for the tests of the program: contractions of three rates, and cells that misbehave on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    above_trivial,
    curve,
    outcome,
)


@dataclass(frozen=True, kw_only=True)
class ToyScale(Scale):
    """Sizes of the toy."""

    steps: Annotated[int, "Picard steps of each cell"] = 12
    noise: Annotated[float, "spread of the starting point"] = 0.1
    rates: Annotated[tuple[float, ...], "contraction rate of each cell"] = (0.3, 0.6, 0.9)
    raises: Annotated[str, "cell that raises"] = ""
    interrupts: Annotated[str, "cell during which the user presses Ctrl-C"] = ""
    target: Annotated[float, "accuracy that is promised"] = 50.0


class Toy(Experiment):
    """x = rate * x from a random start."""

    id = "toy"
    title = "A toy"
    claim = "A contraction settles at its rate."
    source = "the tests"
    scales = {"smoke": ToyScale(seeds=2), "cpu": ToyScale(seeds=3, steps=30)}
    scaled_down = {"smoke": "12 steps instead of 30"}
    tables = (
        Table(
            "What the toy measures",
            (
                Column("accuracy", "Accuracy", "%", fmt=".1f", paper={"rate 0.3": 91.0, "rate 0.6": "88.0 ± 0.4"}),
                Column("residual", "Final residual", fmt=".2e", better="low"),
            ),
            caption="Means over the seeds.",
        ),
    )
    figures = (
        Figure("Convergence", ("residual",), "Residual (2-norm) against operator evaluations."),
        Figure("Accuracy by cell", ("accuracy",), "Bars are means.", kind="bars"),
        Figure("Never measured", ("nothing",), "No cell has this curve."),
    )

    def cells(self, scale: ToyScale) -> Sequence[str]:
        return [f"rate {rate:g}" for rate in scale.rates]

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale = context.scale
        if cell == scale.interrupts:
            raise KeyboardInterrupt
        if cell == scale.raises:
            raise ArithmeticError("this cell was asked to raise")
        context.progress("one step")
        rate = float(cell.split()[1])
        start = 1.0 + scale.noise * float(torch.rand(()))
        residuals = [start * (1 - rate) * rate**k for k in range(scale.steps)]
        metrics = {"accuracy": 90.0 + start, "residual": residuals[-1], "evals": scale.steps, "never": float("inf")}
        evals = range(1, scale.steps + 1)
        return outcome(metrics, {"residual": curve(evals, residuals, log_y=True)}, ["a <note> of the toy"])

    def checks(self, results: Results) -> Sequence[Check]:
        accuracy = results.mean("rate 0.3", "accuracy")
        claim = Check.at_least("accuracy at rate 0.3", accuracy, results.scale.target)
        return [claim, *above_trivial(results, "accuracy", 10.0, predictor="majority class")]


EXPERIMENT = Toy()
