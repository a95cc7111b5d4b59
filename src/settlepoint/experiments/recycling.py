"""recycling: do recycles settle, and what do early stops, smoothing and Anderson change? With the truth known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from torch import Tensor

from settlepoint import Anderson, FixedSteps, Picard, Solver, Tolerance
from settlepoint.chains.esmfold import esm
from settlepoint.chains.recycling import recycled
from settlepoint.chains.refinement import Maps, Refinement, chains, classical, maps
from settlepoint.chains.structures import gdt_ts, kabsch
from settlepoint.chains.trace_metrics import KINDS, TraceMetrics, average_curve, trace_metrics
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
from settlepoint.experiments.random_esmfold import random_esmfold, sequences, watched
from settlepoint.runs import generator_from

SOLVERS = ("plain", "smoothing", "Anderson")
TRIVIAL = ("zero recycles", "classical MDS")
ESMFOLD = ("ESMFold, random, small", "ESMFold, random, larger")
HOOKS = "inside the tracer's hooks, % of a recycle, the most of the seeds"
SHOWN = 29
POINT = 1.0  # of GDT_TS by which a target must fall, or rise, to count


@dataclass(frozen=True, kw_only=True)
class RecyclingScale(Scale):
    """Sizes of the experiment on recycles."""

    targets: Annotated[int, "generated chains"] = 29
    residues: Annotated[int, "residues of a chain"] = 64
    recycles: Annotated[int, "recycles after the first pass"] = 20
    tolerance: Annotated[float, "of a step, root mean square in Angstrom, at which a target stops"] = 0.1
    damping: Annotated[float, "weight of the old state when smoothing"] = 0.5
    depth: Annotated[int, "differences that Anderson keeps"] = 5
    passes: Annotated[int, "recycles of ESMFold with random weights"] = 3
    length: Annotated[int, "residues of its sequences"] = 48
    large: Annotated[int, "features of a residue of the larger one"] = 256
    repeats: Annotated[int, "timed calls of the larger ESMFold with and without a tracer, in turn"] = 10
    small_repeats: Annotated[int, "timed calls of the small ESMFold"] = 30
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


class Recycling(Experiment):
    """Twenty recycles of a refinement whose answer is known, by three solvers; the tracer on ESMFold."""

    id = "recycling"
    title = "Figures 3 to 5: recycling"
    claim = (
        "Averaged as the paper does, over curves normalised by target, recycles bring a structure closer to the truth, "
        "and most targets gain GDT_TS, while some get worse or do not settle: in the mean over targets, in Angstrom or "
        "points, these few can outweigh the others, and do so for some seeds. A tolerance about halves the recycles or "
        "better. It costs smoothing and Anderson a point or two of GDT_TS on average, and plain recycling where nearly "
        "all targets settle; where more get worse plain recycling gains by it, as they end at their least residual. "
        "Smoothing makes more targets settle."
    )
    source = "Operator Learning Meets Numerical Analysis, Figures 3 to 5"
    scales: ClassVar = {
        "smoke": RecyclingScale(
            targets=6, residues=24, recycles=8, length=12, large=64, repeats=1, small_repeats=1, thresholds=False
        ),
        "cpu": RecyclingScale(seeds=3),
        "paper": RecyclingScale(seeds=5, targets=44, residues=256),
    }  # fmt: skip
    scaled_down = {
        "smoke": "6 generated targets of 24 residues, 8 recycles",
        "cpu": "29 generated targets of 64 residues a seed in place of AlphaFold-Multimer on CASP15, which needs "
        "weights and alignments",
        "paper": "44 generated targets of 256 residues: AlphaFold and CASP15 are not part of this at any scale",
    }
    needs = (lambda context: esm(),)
    tables = (
        Table(
            "Recycles of a refinement with a known answer",
            (
                Column("gdt first", "GDT_TS, no recycle", "%", ".1f"),
                Column("gdt last", "after the last", "%", ".1f"),
                Column("gdt change", "change", "points", "+.1f", paper={"plain": "rises on average"}),
                Column("rmsd first", "RMSD, no recycle", "Å", ".2f"),
                Column("rmsd last", "after the last", "Å", ".2f"),
                Column("rmsd change", "change", "Å", "+.2f"),
                Column("normalised", "RMSD, change, min-max", fmt="+.2f", paper={"plain": "falls on average"}),
                Column("rmsd rises", "Seeds whose mean RMSD rises", "%", ".0f"),
                Column("better", "Targets whose GDT_TS rises", "%", ".0f"),
                Column("worse", "Targets whose GDT_TS falls", "%", ".0f", paper={"plain": "some targets diverge"}),
                *(Column(kind, kind.capitalize(), "%", ".0f") for kind in KINDS),
                Column("stopped", "Stopped early", "%", ".0f"),
                Column("evals", "Recycles paid, mean", fmt=".1f"),
                Column("gdt stop", "GDT_TS at the stop", "%", ".1f"),
                Column("rmsd stop", "RMSD at the stop", "Å", ".2f"),
            ),
            rows=(*SOLVERS, *TRIVIAL),
            caption="A stand-in: chains of CA atoms from noisy, incomplete maps of distances, by steps of stress "
            "majorisation that overshoot where a target's step is long. How hard targets are, and so how "
            "many get worse, was chosen, after a look at nine settings, and says nothing of AlphaFold; the "
            "paper's words are of 29 monomers among 44 targets of CASP15, 0 to 20 recycles, 25 predictions a "
            "target. Min-max: the average that the paper plots, in which a target that diverges weighs as "
            "much as one that hardly moves. Kinds: by the steps, the distance that a plain recycle would "
            "still go, see TraceMetrics. Settled: the last step is within the tolerance; cycling: the last "
            "structure has come back to that of 2, 3 or 4 recycles before; settling, drifting: the steps at "
            "least halve, or at least double, over the second half of the recycles; marginal: none of these. "
            "A target that gets worse by alternating between two structures counts as cycling, and one that "
            "wanders at steps of one size as marginal: how many get worse stands under falls, not under "
            "drifting. A target's GDT_TS falls or rises when it ends more than a point below or above that "
            "of no recycle. Stops: the change of a recycle is below the tolerance, at most as many recycles "
            "as the fixed number; the one that confirms is paid; a target that does not stop ends at its "
            "least residual.",
            command='settle run recycling --scale {scale} --seeds {seeds}',
        ),
        Table(
            "The tracer on ESMFold with random weights",
            (
                Column("parameters", "Parameters", fmt=",.0f"),
                Column("cycles", "Cycles recorded", fmt=".0f"),
                Column("equal", "Outputs unchanged", fmt=".0f"),
                Column("recycle", "A recycle", "CPU ms", ".1f"),
                Column("own", "Inside the tracer's hooks", "% of a recycle", ".3f"),
                Column("overhead", "With a tracer", "%", "+.2f"),
                Column("with reading", "with reading the cycles", "%", "+.2f"),
                Column("placebo", "no tracer, timed again", "%", "+.2f"),
                Column("step first", "First step", "Å", ".2f"),
                Column("step last", "Last step", "Å", ".2f"),
                Column("inner", "Last block of the last cycle", "Å", ".2f"),
            ),
            rows=ESMFOLD,
            caption="Random weights show the tracer and not AlphaFold, nor ESMFold: the steps say nothing of "
            "proteins. Inside the hooks: their CPU time over that of the calls in which they ran, by a clock "
            "around each of them. With a tracer: the least of the timed calls with it over the least "
            "without, in turn; the calls timed again without one show the noise of this difference, below "
            "which it says nothing and can be negative. Last block: the step between the last two blocks of "
            "the structure module.",
        ),
    )  # fmt: skip
    figures = (
        Figure(
            "Average over targets",
            ("average gdt", "average rmsd"),
            "Mean over targets of min-max normalised curves, as in the paper; dashes: RMSD.",
            rows=SOLVERS,
        ),
        Figure("GDT by target", tuple(f"gdt {k}" for k in range(SHOWN)), "Seed 0, plain recycling.", rows=("plain",)),
        Figure("RMSD by target", tuple(f"rmsd {k}" for k in range(SHOWN)), "Seed 0, plain recycling.", rows=("plain",)),
        Figure("Steps", ("step",), "Median over targets of the RMSD of a cycle and its plain recycle.", rows=SOLVERS),
        Figure("GDT in per cent", ("gdt",), "Mean over targets, not normalised.", rows=SOLVERS),
        Figure("Steps of ESMFold with random weights", ("step",), "Of the tracer; not of proteins.", rows=ESMFOLD),
    )

    def cells(self, scale: RecyclingScale) -> Sequence[str]:
        return (*SOLVERS, *TRIVIAL, *ESMFOLD)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: RecyclingScale = context.scale
        if cell in ESMFOLD:
            return _esmfold(cell, seed, scale)
        given, start, first = _targets(scale.targets, scale.residues, seed)
        if cell in TRIVIAL:
            found = _scores("last", first if cell == "zero recycles" else start, given.truth)
            return outcome({**found, "evals": 0})
        operator = Refinement()
        solver, asked = _solver(cell, scale), operator.of(given)
        whole = recycled(operator, first, solver, FixedSteps(scale.recycles), context=asked, trace=True)
        cycles = [operator.cycle(x, asked[0]) for x in whole.states]  # pyright: ignore[reportArgumentType]
        trace = trace_metrics(cycles, given.truth, tolerance=scale.tolerance, images=whole.images)  # pyright: ignore[reportArgumentType]
        stop = Tolerance(atol=scale.tolerance, max_steps=scale.recycles)
        early = recycled(operator, first, solver, stop, context=asked)
        metrics = _course(trace) | _scores("stop", early.value, given.truth) | {
            "stopped": 100 * float(early.solution.converged.double().mean()),
            "evals": float(early.solution.steps.double().mean()) + 1,
            "trivial": float(gdt_ts(start, given.truth).mean()),
        }  # fmt: skip
        counts = ", ".join(f"{n} {name}" for name, n in early.solution.counts().items())
        return outcome(metrics, _curves(cell, trace, shown=cell == "plain" and seed == 0), (f"early stop: {counts}",))

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        mean = results.mean
        lost = [mean(cell, "gdt last") - mean(cell, "gdt stop") for cell in SOLVERS]
        return [
            *above_trivial(results, "gdt last", "trivial", predictor="classical scaling alone")[: len(SOLVERS)],
            Check.at_least("plain: rise of GDT_TS in 20 recycles, points", mean("plain", "gdt change"), 0.0),
            Check.at_most("plain: rise of min-max normalised RMSD", mean("plain", "normalised"), 0.0),
            Check.at_least("plain: targets whose GDT_TS rises, %", mean("plain", "better"), 50.0),
            Check.within("plain: targets whose GDT_TS falls, %", mean("plain", "worse"), 1.0, 50.0),
            Check.at_most("GDT_TS lost by stopping early, the most of the solvers, points", max(lost), 2.0),
            Check.at_most(
                "plain: recycles paid with a tolerance", mean("plain", "evals"), results.scale.recycles - 1.0
            ),
            Check.at_least(
                "targets that settle: smoothing less plain, %",
                mean("smoothing", "settled") - mean("plain", "settled"),
                0.0,
            ),
            Check.at_most(
                "recycles paid: Anderson less plain", mean("Anderson", "evals") - mean("plain", "evals"), 0.0
            ),
            *(Check.at_least(f"{cell}: outputs unchanged", mean(cell, "equal"), 1.0) for cell in ESMFOLD),
            *(Check.at_most(f"{cell}: {HOOKS}", _most(results.values(cell, "own")), 2.0) for cell in ESMFOLD),
        ]


def _most(values: Sequence[float]) -> float:
    return max(values, default=math.nan)


def _solver(cell: str, scale: RecyclingScale) -> Solver:
    match cell:
        case "smoothing":
            return Picard(scale.damping)
        case "Anderson":
            return Anderson(scale.depth)
    return Picard()


@lru_cache(maxsize=4)
def _targets(count: int, residues: int, seed: int) -> tuple[Maps, Tensor, Tensor]:
    """The maps, classical scaling of them, and the first pass from there; the same for every cell of a seed."""
    draw = generator_from(Recycling.id, "targets", seed)
    given = maps(chains(count, residues, draw), draw)
    start, operator = classical(given), Refinement()
    return given, start, operator(start, *operator.of(given))


def _scores(when: str, x: Any, truth: Tensor) -> dict[str, float]:
    return {f"gdt {when}": float(gdt_ts(x, truth).mean()), f"rmsd {when}": float(kabsch(x, truth).rmsd.mean())}


def _course(trace: TraceMetrics) -> dict[str, float]:
    """Averages over the targets at the first and the last cycle, and the shares of the kinds."""
    gdt, rmsd = _known(trace.gdt), _known(trace.rmsd)
    found = {"gdt first": gdt[0], "gdt last": gdt[-1], "gdt change": gdt[-1] - gdt[0]}
    found |= {"rmsd first": rmsd[0], "rmsd last": rmsd[-1], "rmsd change": rmsd[-1] - rmsd[0]}
    found["normalised"] = average_curve(rmsd)[0][-1] - average_curve(rmsd)[0][0]
    found["rmsd rises"] = 100.0 * (rmsd[-1].mean() > rmsd[0].mean()).double()
    found["better"] = 100.0 * (gdt[-1] > gdt[0] + POINT).double()
    found["worse"] = 100.0 * (gdt[-1] < gdt[0] - POINT).double()
    return {name: float(v.mean()) for name, v in found.items()} | {kind: trace.share(kind) for kind in KINDS}


def _known(values: Tensor | None) -> Tensor:
    assert values is not None
    return values


def _curves(cell: str, trace: TraceMetrics, *, shown: bool) -> dict[str, Any]:
    gdt, rmsd = _known(trace.gdt), _known(trace.rmsd)
    at = range(len(gdt))
    label: dict[str, Any] = {"x_label": "recycles"}
    norm: dict[str, Any] = {"y_label": "min-max normalised", "group": cell, **label}
    found = {"average gdt": curve(at, average_curve(gdt)[0].tolist(), **norm)}
    found["average rmsd"] = curve(at, average_curve(rmsd)[0].tolist(), **norm)
    found["gdt"] = curve(at, gdt.mean(1).tolist(), y_label="GDT_TS, %", group=cell, **label)
    found["step"] = _steps(cell, trace)
    for k in range(min(SHOWN, gdt.shape[1]) if shown else 0):
        found[f"gdt {k}"] = curve(at, gdt[:, k].tolist(), y_label="GDT_TS, %", group=trace.kind[k], **label)
        found[f"rmsd {k}"] = curve(at, rmsd[:, k].tolist(), y_label="RMSD, Å", group=trace.kind[k], **label)
    return found


def _steps(cell: str, trace: TraceMetrics) -> dict[str, Any]:
    y = trace.step.median(1).values.tolist()
    label = {"x_label": "recycles", "y_label": "RMSD of a cycle and the next, Å", "log_y": True, "group": cell}
    return curve(range(1, len(y) + 1), y, **label)


def _esmfold(cell: str, seed: int, scale: RecyclingScale) -> Mapping[str, Any]:
    large = cell == ESMFOLD[1]
    model = random_esmfold(seed, single=scale.large, pair=64, depth=4, blocks=8) if large else random_esmfold(seed)
    repeats = scale.repeats if large else scale.small_repeats
    found, cycles = watched(model, sequences(2, scale.length, seed), scale.passes, repeats)
    trace = trace_metrics(cycles)
    metrics = found | {
        "parameters": sum(p.numel() for p in model.parameters()),
        "step first": trace.step[0].mean(), "step last": trace.step[-1].mean(),
        "inner": _known(trace.inner)[-1, -1].mean(), "evals": len(cycles),
    }  # fmt: skip
    return outcome({name: float(v) for name, v in metrics.items()}, {"step": _steps(cell, trace)})


EXPERIMENT = Recycling()
