"""`settle check` on the digits model: what a report of a trained equilibrium classifier says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from settlepoint.certify import Subject
from settlepoint.data import digits
from settlepoint.experiments.checking import Examination, examine
from settlepoint.experiments.checkup import advice, curves, sentence
from settlepoint.experiments.digits import DigitsScale, trained
from settlepoint.experiments.experiment import Check, Column, Context, Experiment, Figure, Results, Table, outcome
from settlepoint.training import accuracy, majority

CELLS = ("equilibrium", "unrolled")


class CheckDigits(Experiment):
    """Rows are models: solved until it settles in training, and unrolled for 30 steps."""

    id = "check-digits"
    title = "A trained model under examination"
    claim = "The equilibrium model on digits settles behind its depth, and every test image has a proved fixed point."
    source = "settle check, on the model of the experiment digits"
    needs: ClassVar = (lambda context: digits(),)
    scales: ClassVar = {
        "smoke": DigitsScale(seeds=1, epochs=6),
        "cpu": DigitsScale(seeds=3),
        "paper": DigitsScale(seeds=10),
    }
    scaled_down: ClassVar = {"smoke": "6 epochs instead of 40 and one seed"}
    tables: ClassVar = (
        Table(
            "397 test images",
            (
                Column("settling", "settling", fmt=".0f"),
                Column("proved", "proved", fmt=".0f"),
                Column("radius", "radius, median", fmt=".1e"),
                Column("rate", "rate, median", fmt=".3f"),
                Column("depth", "depth", fmt=".0f"),
                Column("score 1", "accuracy at the depth", "%", fmt=".2f"),
                Column("score 4", "at 4 times", "%", fmt=".2f"),
                Column("majority", "majority class", "%", fmt=".1f"),
                Column("own", "evaluations, own solver", fmt=".1f"),
                Column("best", "best solver", fmt=".1f"),
                Column("seconds", "examination", "CPU s", fmt=".1f"),
            ),
            caption="Verdicts behind the depth of training, certificates of the strongest method, rates from the "
            "trace; evaluations to a relative residual of 1e-9. The notes hold the sentence and the advice.",
        ),
    )
    figures: ClassVar = (
        Figure("Residuals from the start to four times the depth", ("residual median",), "Median over the images."),
        Figure("Accuracy behind the depth of training", ("score",), "On the test images."),
        Figure("Distance to a fixed point", ("radius",), "Radii of the certificates, sorted over the images."),
    )

    def cells(self, scale: DigitsScale) -> Sequence[str]:
        return CELLS

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        model, data, _ = trained(cell, seed, context)

        def score(y: Tensor) -> float:
            return accuracy(y, data.test_y)

        subject = Subject(model, (data.test_x,), score=score, name=f"Digits, {cell}")
        begin = time.process_time()
        found = examine(subject, rows=len(data.test_x), say=lambda what, done, of: context.progress(what))
        metrics = _metrics(found) | {"seconds": time.process_time() - begin}
        metrics["majority"] = majority(data.train_y, data.test_y)
        drawn = {n: {**c, "group": cell} for n, c in curves(found).items()}
        return outcome(metrics, drawn, [sentence(found), advice(found)])

    def checks(self, results: Results) -> Sequence[Check]:
        mean = lambda metric: results.mean("equilibrium", metric)  # noqa: E731
        return [
            Check.at_least("equilibrium: images that settle", mean("settling"), 397),
            Check.at_least("equilibrium: images with a proof", mean("proved"), 397),
            Check.at_most("median radius", mean("radius"), 1e-6),
            Check.at_least("accuracy kept at 4 times the depth", mean("score 4") - mean("score 1"), -0.5),
            Check.at_most("seconds an examination takes", mean("seconds"), 20),
        ]


def _metrics(found: Examination) -> dict[str, float]:
    own = next(r for r in found.race if r.name.startswith("own"))
    return {
        "settling": float(found.verdict.counts().get("settling", 0)),
        "proved": float(found.certificate.proved.sum()),
        "radius": float(found.certificate.radius.median()),
        "rate": float(found.verdict.rate.median()),
        "depth": float(found.verdict.depth),
        "score 1": found.verdict.scores[0],
        "score 4": found.verdict.scores[-1],
        "own": own.mean,
        "best": found.recommended.mean,
        "evals": float(torch.as_tensor(found.solution.evals).sum()),
    }


EXPERIMENT = CheckDigits()
