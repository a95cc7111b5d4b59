"""The papers' statements on random instances: as they are printed, as they are corrected, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch

from settlepoint.experiments import theory_banach, theory_beyond, theory_graphs, theory_networks
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    outcome,
)
from settlepoint.experiments.theory_trials import SLACK, Statement
from settlepoint.runs import generator_from

STATEMENTS: Mapping[str, Statement] = {
    **theory_banach.STATEMENTS,
    **theory_networks.STATEMENTS,
    **theory_graphs.STATEMENTS,
    **theory_beyond.STATEMENTS,
}
"""Cell to what it states, in the order of the papers."""


@dataclass(frozen=True, kw_only=True)
class TheoryScale(Scale):
    """How many random instances."""

    instances: Annotated[int, "random instances of a statement"] = 1000
    few: Annotated[int, "the same where each takes a bound, a graph or a solve of its own"] = 200


class Theory(Experiment):
    """Rows of the table are statements."""

    id = "theory"
    title = "Statements as printed, as corrected, and as measured"
    claim = (
        "Every statement holds in its corrected form on all random instances; where the printed form is wrong, it "
        "fails on some, the named counterexample among them."
    )
    source = "Operator Learning Meets Numerical Analysis, Theorems 1-4, A.2, B.4; R2N2, SM4; certify"
    scales: ClassVar = {
        "smoke": TheoryScale(instances=20, few=20),
        "cpu": TheoryScale(),
        "paper": TheoryScale(seeds=3, instances=5000, few=1000),
    }
    scaled_down: ClassVar = {"smoke": "20 random instances of a statement instead of 1000"}
    tables: ClassVar = (
        Table(
            "As printed, corrected, measured",
            (
                Column("printed", "as printed", fmt=".3g"),
                Column("corrected", "corrected", fmt=".3g"),
                Column("measured", "measured", fmt=".3g"),
                Column("printed fails", "printed fails", fmt=".0f"),
                Column("corrected fails", "corrected fails", fmt=".0f"),
                Column("instances", "instances", fmt=".0f"),
                Column("claims", "with a claim", fmt=".0f"),
                Column("used", "measured / corrected", fmt=".3g"),
            ),
            caption="T, C, L, P, A, B: theorem, corollary, lemma, proposition and appendices of Operator Learning "
            "Meets Numerical Analysis; where no paper states it, as printed is the shortcut that the row warns of. "
            "The first three columns show the first instance in which the printed form fails, the "
            "counterexample where one is named; where it never fails, the one in which the bound is closest. ∞: "
            "nothing is claimed, or the iterates run away. With a claim: instances for which the corrected form "
            "claims something. Measured / corrected: the largest share of a bound that is used, 0 for values and "
            "verdicts.",
        ),
    )
    figures: ClassVar = (
        Figure(
            "Bounds and the true distance",
            ("distance", "a priori", "a priori, as printed", "a posteriori"),
            "T = .2 diag(1, .8, .6) z, lam = 4, f = (1, 1, 1): the printed bound lies below the distance.",
            rows=("T1 distance",),
        ),
        Figure(
            "Theorem 3: |lam| M < 1 is not enough",
            ("refused", "certified"),
            "T = y^3, lam = .3, |lam| M < 1 on B(f, .1): f = .9 runs away and is refused, f = .1 is certified.",
            rows=("T3 ball",),
        ),
        Figure(
            "Soft-max attention",
            ("largest ||T'|| seen", "bound on the ball", "bound on the unit ball"),
            "The norm of the Jacobian grows with the ball: no constant holds everywhere.",
            rows=("soft-max",),
        ),
    )

    def cells(self, scale: TheoryScale) -> Sequence[str]:
        return tuple(STATEMENTS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        statement, scale = STATEMENTS[cell], context.scale
        context.progress(cell)
        with torch.no_grad():
            found = statement.trials(
                scale.few if statement.costly else scale.instances, generator_from(self.id, cell, seed)
            )
        return outcome(found.metrics(), found.curves, (statement.text,))

    def checks(self, results: Results) -> Sequence[Check]:
        each = [_judged(results, cell, statement) for cell, statement in STATEMENTS.items()]
        return [*each, _within(results), _claiming(results)]


def _judged(results: Results, cell: str, statement: Statement) -> Check:
    """The corrected form never fails, the printed one just where it is wrong; a missing cell, nan, does not pass."""
    printed, corrected = (results.mean(cell, f"{form} fails") for form in ("printed", "corrected"))
    passed = corrected == 0 and (printed >= 1 if statement.wrong else printed == 0)
    name, target = f"{cell}: fails as printed, as corrected", f"{'≥ 1' if statement.wrong else '0'}, 0"
    return Check(name, passed, f"{printed:g}, {corrected:g}", target, statement.text)


def _within(results: Results) -> Check:
    """measured <= corrected everywhere, to rounding."""
    used = [share for cell in STATEMENTS for share in results.values(cell, "used") or [float("nan")]]
    worst = float(torch.tensor(used, dtype=torch.float64).max())  # nan where one is missing
    return Check("measured / corrected, the largest", worst <= 1 + SLACK, worst, "≤ 1")


def _claiming(results: Results) -> Check:
    """A corrected form that never claims anything would hold too."""
    counts = [results.mean(cell, "claims") for cell in STATEMENTS]
    fewest = float(torch.tensor(counts, dtype=torch.float64).min())
    return Check.at_least("instances with a claim, the fewest of a statement", fewest, 1)


EXPERIMENT = Theory()
