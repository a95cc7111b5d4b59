"""Certificates: what can be proved of learned fixed points, at what cost, and whether any proof is ever wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from settlepoint.data import digits
from settlepoint.experiments import certified_models as models
from settlepoint.experiments.adversarial import KINDS, cases
from settlepoint.experiments.certified import METHODS, Found, tried
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
from settlepoint.experiments.pign_cora import cora
from settlepoint.runs import generator_from

GLOBAL = ("banach", "graph", "perron")
DIGITS = {f"{name}: {method}": (model, method) for name, model in
          (("digits", "equilibrium"), ("nonexpansive", "nonexpansive")) for method in METHODS}  # fmt: skip
LOCAL, BEST = "digits: kantorovich", "digits: auto"
GRAPHS = {"pign cora": "gcn", "gat cora": "gat"}
WIDE, LINEAR = "wide", "r2n2 linear"
DRAWN = ("close pair", "nearly singular", "rate .999", "norm 50", "float32", "not converged", "relu")
MODELS = (BEST, "nonexpansive: auto", WIDE, *GRAPHS)


@dataclass(frozen=True, kw_only=True)
class CertificateScale(Scale):
    """Sizes of the certificate experiment."""

    epochs: Annotated[int, "passes over the 1,400 training images"] = 40
    images: Annotated[int, "test images that are certified"] = 397
    cases: Annotated[int, "adversarial cases, the same number of every kind, rounded up"] = 2250
    rows: Annotated[int, "of them on one map"] = 8
    width: Annotated[int, "unknowns of the wide cell"] = 2000
    cora: Annotated[bool, "whether the graphs are tried, which needs the Planetoid data"] = True
    cora_epochs: Annotated[int, "steps of Adam on the graph"] = 60
    rhs: Annotated[int, "right-hand sides on which the learned linear solver is measured"] = 1000
    starts: Annotated[int, "starts of its training"] = 4
    repeats: Annotated[int, "rounds of timing; the least CPU time counts"] = 3
    share: Annotated[float, "per cent of the solve's time that the wide estimate may take"] = 20.0
    ms: Annotated[float, "CPU milliseconds a sample that a proof may take"] = 3.0


class Certificates(Experiment):
    """Rows are the methods on the digits, other models, and kinds of adversarial cases."""

    id = models.NAME
    title = "Certificates: proofs at the point, their cost, and cases made to break them"
    claim = (
        "Where norms prove nothing, a proof at the point certifies every test image, within 1e-9 and for some "
        "milliseconds; and no certificate is false in a thousand cases made to break it, though most that can be "
        "proved are."
    )
    source = (
        "specs/theory.md, Beyond the papers; Theorems 2 and 4 of Operator Learning Meets Numerical Analysis; R2N2 SM4"
    )
    needs = (lambda context: digits(), lambda context: cora(context) if context.scale.cora else None)
    scales = {
        "smoke": CertificateScale(
            epochs=1, images=30, cases=200, rows=14, width=600, cora=False, rhs=100, repeats=1, share=60.0, ms=6.0
        ),
        "cpu": CertificateScale(),
        "paper": CertificateScale(seeds=3, cases=15_000, cora_epochs=200, starts=12),
    }
    scaled_down = {
        "smoke": "1 epoch instead of 40, 30 test images, 210 adversarial cases, 600 unknowns, no graphs; looser "
        "bounds of time",
    }
    tables = (
        Table(
            "Digits: what each method claims of the test images",
            (
                Column("proved %", "Proved", "%", fmt=".1f"),
                Column("estimated %", "estimated", "%", fmt=".1f"),
                Column("refused %", "refused", "%", fmt=".1f"),
                Column("proved % 1e-6", "Proved at 1e-6", "%", fmt=".1f"),
                Column("radius 1e-6", "Radius at 1e-6", fmt=".1e"),
                Column("radius", "Radius", fmt=".1e"),
                Column("largest radius", "largest", fmt=".1e"),
                Column("closeness", "over distance", fmt=".3g"),
                Column("unique_in", "Alone within", fmt=".2g"),
                Column("rate", "Rate", fmt=".4f"),
                Column("ms", "A sample", "CPU ms", fmt=".3f"),
                Column("cost %", "of the solve", "%", fmt=".0f"),
                Column("false certificates", "False", fmt=".0f"),
            ),
            rows=tuple(DIGITS),
            caption="The equilibrium model of the experiment digits, and the one with ||W|| <= 1, solved by Picard to "
            "an absolute residual of 1e-11 in float64, or 1e-6 where it says so. Medians over the images, ∞ where most "
            "are refused. Over distance: radius / ||x - x*||, x* by Newton's method to 1e-14. False: rows of both "
            "solves that are farther from x* than proved. Least CPU time of interleaved rounds, one thread.",
        ),
        Table(
            "What is certified, and how it contracts",
            (
                Column("unknowns", "Unknowns a row", fmt=",.0f"),
                Column("norm W", "||W||", fmt=".3f"),
                Column("rho |W|", "Perron root of |W|", fmt=".2f"),
                Column("norm J max", "largest ||J||", fmt=".3f"),
                Column("rho J", "Radius of J, median", fmt=".3f"),
                Column("rho J max", "largest", fmt=".3f"),
                Column("proved %", "Proved", "%", fmt=".1f"),
                Column("estimated %", "estimated", "%", fmt=".1f"),
                Column("refused %", "refused", "%", fmt=".1f"),
                Column("rate", "Rate claimed", fmt=".6g"),
                Column("distance", "Distance", fmt=".1e"),
                Column("closeness", "Radius over distance", fmt=".3g"),
                Column("ms", "A row", "CPU ms", fmt=".2f"),
                Column("cost %", "of the solve", "%", fmt=".0f"),
                Column("trust wrong %", "Residual below distance", "%", fmt=".1f"),
                Column("false certificates", "False", fmt=".0f"),
            ),
            rows=MODELS,
            caption="digits and nonexpansive: auto. wide: newton-krylov, an estimate, too many unknowns for a dense "
            "inverse; Picard to 1e-8, distance from a solve to 1e-13. pign cora, gat cora: the method "
            "graph on the whole graph as one row, Anderson(5) to 1e-8 of ||P(x)||, distance from a solve to 1e-12; the "
            "weights of attention depend on the state, so that gat is refused. Residual below distance: the trivial "
            "certificate, the residual taken as the error, would be wrong.",
        ),
        Table(
            "A learned linear solver, R2N2(4) on A1",
            (
                Column("matrix radius", "Radius of p(A)", fmt=".6f"),
                Column("measured", "Worst shrink measured", fmt=".6f"),
                Column("matrix norm", "proved: ||p(A)||", fmt=".6f"),
                Column("class measured", "Worst of the class", fmt=".6f"),
                Column("class rate", "proved for the class", fmt=".6f"),
                Column("best rate", "Chebyshev's", fmt=".6f"),
                Column("false certificates", "False", fmt=".0f"),
            ),
            rows=(LINEAR,),
            caption="||r_1|| / ||r_0|| of an iteration, on A1 and on all symmetric matrices with a spectrum in its "
            "interval. Chebyshev's: what no four products can beat on the class.",
        ),
        Table(
            "Cases made to break certificates",
            (
                Column("cases", "Cases", fmt=",.0f"),
                Column("proved %", "Proved", "%", fmt=".1f"),
                Column("estimated %", "estimated", "%", fmt=".1f"),
                Column("refused %", "refused", "%", fmt=".1f"),
                Column("false certificates", "False, all methods", fmt=".0f"),
                Column("certifiable", "Certifiable", fmt=",.0f"),
                Column("certified", "and proved", fmt=",.0f"),
                Column("small estimates %", "Estimates too small", "%", fmt=".1f"),
                Column("trust wrong %", "Residual below distance", "%", fmt=".1f"),
                Column("closeness", "Radius over distance", fmt=".3g"),
                Column("raised", "Raised", fmt=".0f"),
            ),
            rows=tuple(KINDS),
            caption="Auto; false counts the proofs of every method that have no fixed point within their radius, two "
            "where one is said to be alone, or a rate below the spectral radius of J. Certifiable: I - J has a "
            "condition below 1e6 and Kantorovich's condition holds at the value with the map's own K; of relu, the "
            "step ends before the kink. Estimates: of newton-krylov, which claims no existence; where there is no "
            "fixed point all of them are too small. Raised: calls that ended in an exception. "
            + "; ".join(f"{name}: {kind.text}" for name, kind in KINDS.items()) + ".",
        ),
    )  # fmt: skip
    figures = (
        Figure("Sorted radii by method", ("radii 1e-6", "radii 1e-11"), "Of the test images, after two tolerances.",
               rows=("digits: kantorovich", "digits: newton-krylov")),
        Figure("Radius against true distance", ("points",), "Models: below 1 a claim would be false.",
               kind="points", rows=(LOCAL, "digits: newton-krylov", WIDE, *GRAPHS)),
        Figure("Radius against true distance, adversarial cases", ("points",),
               "Proofs and estimates of auto: below 1 a claim is false, which estimates may be.",
               kind="points", rows=DRAWN),
        Figure("The learned polynomial", ("polynomial",), "What an iteration leaves of each eigenvector.",
               rows=(LINEAR,)),
    )  # fmt: skip

    def cells(self, scale: CertificateScale) -> Sequence[str]:
        return (*DIGITS, WIDE, *(GRAPHS if scale.cora else ()), LINEAR, *KINDS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: CertificateScale = context.scale
        context.progress(cell)
        found = _found(cell, seed, context, scale)
        return outcome(found.metrics, found.curves, found.notes)

    def checks(self, results: Results) -> Sequence[Check]:
        scale: CertificateScale = results.scale
        mean = results.mean
        shown = f"||W|| = {mean(BEST, 'norm W'):.3g}, Perron root of |W| {mean(BEST, 'rho |W|'):.3g}"
        by_norms = sum(mean(f"digits: {method}", "proved %") for method in GLOBAL)
        return [
            Check.at_least("digits: proved at the point (%)", mean(LOCAL, "proved %"), 100),
            Check.at_least("digits: the same after a solve to 1e-6 (%)", mean(LOCAL, "proved % 1e-6"), 100),
            Check.at_most("digits: median radius after a solve to 1e-11", mean(LOCAL, "radius"), 1e-9),
            Check.at_most("digits: CPU ms a sample", mean(LOCAL, "ms"), scale.ms),
            Check.at_most("digits: proved by norms of the whole space (%)", by_norms, 0, shown),
            Check.at_most("wide: the estimate's share of the solve's CPU time (%)", mean(WIDE, "cost %"), scale.share),
            Check.at_most("wide: estimates that are too small", mean(WIDE, "small estimates"), 0),
            *(_graphs(results) if scale.cora else ()),
            Check.at_most("R2N2: worst shrink measured over the norm", _over(results, "measured", "matrix norm"), 1),
            Check.at_most("R2N2: the same of its class", _over(results, "class measured", "class rate"), 1),
            *_adversarial(results),
        ]


def _graphs(results: Results) -> list[Check]:
    mean = results.mean
    return [
        Check.at_least("PIGN settled on Cora: proved by the graph bound (%)", mean("pign cora", "proved %"), 100),
        Check.within("PIGN settled on Cora: its rate, .9 ||A||", mean("pign cora", "rate"), 0.9, 0.901),
        Check.at_least("PIGN with attention: refused (%)", mean("gat cora", "refused %"), 100),
    ]


def _adversarial(results: Results) -> list[Check]:
    """nan where a kind is missing."""
    total = lambda metric: sum(results.mean(kind, metric) for kind in KINDS)  # noqa: E731
    tried = math.fsum(results.total(m) for m in ("cases", "rows"))
    false = results.total("false certificates") if not math.isnan(total("cases")) else math.nan
    trust = sum(results.mean(kind, "trust wrong %") for kind in KINDS) / len(KINDS)
    raised = "; ".join(dict.fromkeys(n for r in results.records for n in r.notes if " raised " in n))
    return [
        Check.at_least("adversarial cases", total("cases"), results.scale.cases),
        Check.at_most("false certificates, everywhere", false, 0, f"{tried:,.0f} rows, each by several methods"),
        Check.at_most("calls that raised instead of refusing", total("raised"), 0, raised),
        Check.at_least("certifiable cases that are proved (%)", 100 * total("certified") / total("certifiable"), 90),
        Check.at_least("cases in which trusting the residual is wrong (%)", trust, 5, "the trivial certificate"),
    ]


def _over(results: Results, measured: str, bound: str) -> float:
    """The largest quotient over the seeds; nan without any."""
    pairs = zip(results.values(LINEAR, measured), results.values(LINEAR, bound), strict=True)
    return max((a / b for a, b in pairs), default=math.nan)


def _found(cell: str, seed: int, context: Context, scale: CertificateScale) -> Found:
    if cell in DIGITS:
        return models.digits(*DIGITS[cell], (scale.epochs, scale.images), seed, scale.repeats)
    if cell in GRAPHS:
        return models.graph(GRAPHS[cell], context, scale.cora_epochs, seed, scale.repeats)
    if cell == WIDE:
        return models.wide(scale.width, seed, scale.repeats)
    if cell == LINEAR:
        return models.linear_solver(200, scale.starts, scale.rhs, seed)
    count = -(-scale.cases // len(KINDS))
    return tried(list(cases(cell, count, generator_from(models.NAME, cell, seed), scale.rows)))


EXPERIMENT = Certificates()
