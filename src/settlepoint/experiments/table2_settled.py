"""table2-settled: the transformers of Table 2 trained to settle, and their error along 24 iterations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from settlepoint import Anderson, FixedSteps, Tolerance, certify, solve
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Table,
    above_trivial,
    curve,
    outcome,
)
from settlepoint.experiments.flow_frames import (
    KINDS,
    SIZES,
    FlowScale,
    FlowTask,
    build,
    errors,
    fitted,
    task,
)
from settlepoint.experiments.settling import contraction
from settlepoint.models import FieldTransformer
from settlepoint.runs import generator_from
from settlepoint.training.fit import History
from settlepoint.training.settled import AllIterates

FIXED = (1, 2, 3)
OTHERWISE = {"vit, last of a random N": "last", "vit, penalty": "penalty", "vit, projected": "projected"}
BEST = {"best fixed": "picard", "best input": "input"}
SHOWN, FIRST = 24, 8
SERVED = Tolerance(atol=0.0, rtol=1e-4, max_steps=100)


@dataclass(frozen=True, kw_only=True)
class SettledScale(FlowScale):
    """Sizes of the flagship experiment."""

    fewest: Annotated[int, "iterations that a step of training takes at least"] = 6
    most: Annotated[int, "and at most"] = 8
    ahead: Annotated[int, "iterations without a gradient before them, at most, in half of the steps"] = 8
    growth: Annotated[float, "the loss of iteration k weighs k to this power"] = 3.0
    penalty: Annotated[float, "share of the Jacobian penalty in the loss of its row"] = 0.1
    target: Annotated[float, "largest norm of a matrix of T in the row that is projected"] = 1.0


class Table2Settled(Experiment):
    """One model an architecture that is right at any number of iterations, beside those trained at a fixed number."""

    id = "table2-settled"
    title = "Table 2, trained to settle"
    claim = (
        "Trained by the loss on all iterates, over a random number of them, every architecture gets better from one "
        "iteration to the next up to eight and stays there when it is iterated on to 24; three of the four end below "
        "the models of Table 2 at their best N, in as many steps of training. In as much time of training a network "
        "that is not iterated gets further still."
    )
    source = "Operator Learning Meets Numerical Analysis, Table 2, trained anew"
    scales: ClassVar = {
        name: SettledScale(**sizes, **({"lr": 5e-3, "warmup": 100} if name == "cpu" else {}))
        for name, sizes in SIZES.items()
    }
    scaled_down = {
        "smoke": "8 x 8 points, 60 trajectories, 4 epochs",
        "cpu": "16 x 16 points of a solution on 32 x 32, 1,000 trajectories, one block of width 48",
    }
    tables = (
        Table(
            "Mean squared error on test trajectories",
            (
                *(Column(f"settled {k}", f"Settled, {k} iterations", fmt=".4f") for k in (1, 2, 4, 8, 24)),
                Column("best", "its best", fmt=".4f", better="low"),
                Column("best fixed", "Best N of Table 2's model", fmt=".4f"),
                Column("best input", "Best N of the same T(x, f)", fmt=".4f"),
                Column("equal time", "N = 1, as long in training", fmt=".4f"),
                Column("times", "its epochs, times those of settled", fmt=".1f"),
                Column("rise", "Largest rise to the next, 1 to 8", "%", "+.2f"),
                Column("drift", "Rise from the best to 24", "%", "+.2f"),
                Column("rate", "Residual, factor an iteration", fmt=".2f"),
                Column("settled rows", "Samples that settle", "%", ".0f"),
                Column("evals", "Evaluations, Anderson(5), mean", fmt=".1f"),
                Column("mean", "Mean of the training frames", fmt=".3f"),
                Column("training seconds", "Training, settled", "CPU s", ".0f"),
            ),
            caption="Settled: x <- (x + T(x, f)) / 2, T one block that sees the input, the loss on all iterates. Its "
            "best: of 24 iterations. Best N: a model for each N = 1, 2, 3, trained by the loss on the last; "
            "of Table 2, f is added behind T. Both are chosen on the test trajectories. As long in training: "
            "the model of N = 1 with as many epochs as take the CPU time of the settled one. last of a random"
            " N: the loss on the last of 1 to 8 iterates alone; penalty: `penalty` times ||J||_F^2 / W at the"
            " last iterate is added; projected: every matrix of T is cut to a norm of `target` behind every "
            "step. Samples settle when Anderson(5) brings the relative residual below 1e-4. The rate, its "
            "warm-up and the weights of the iterates are from trials of one seed on these trajectories, the "
            "same for all rows.",
            command="settle run table2-settled --scale {scale} --seeds {seeds}",
        ),
    )
    figures = (Figure("Error by iterations", ("error",), "Test error of the models trained to settle."),)

    def cells(self, scale: SettledScale) -> Sequence[str]:
        return (*KINDS, *OTHERWISE)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        data, scale = task(context), context.scale
        settled, history = _settled(cell, seed, context)
        course = errors(settled, data.test, SHOWN).mean(1)
        metrics = {f"settled {k}": float(course[k - 1]) for k in (1, 2, 4, 8, 24)}
        metrics |= _shape(course) | _served(settled, data) | {"mean": data.mean_error}
        metrics |= _controls(cell, seed, history.seconds, data, context) if cell in KINDS else {}
        label = {"x_label": "iterations", "y_label": "mean squared error", "log_y": True, "group": cell}
        curves = {"error": curve(range(1, SHOWN + 1), course.tolist(), **label)}
        rate, overall = contraction(settled, data.test[0], scale.most)
        return outcome(metrics | {"rate": rate, "training seconds": history.seconds}, curves, (overall,))

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        count = lambda *holds: sum(all(hold(results, cell) for hold in holds) for cell in KINDS)  # noqa: E731
        return [
            *(Check.at_least(f"architectures {what}", count(holds), 3) for what, holds in CLAIMS.items()),
            Check.at_least("architectures of which all three hold", count(*CLAIMS.values()), 3),
            *above_trivial(results, "best", "mean", predictor="mean frames", lower=True),
        ]


CLAIMS = {
    "whose error never rises by more than 1 % to the next iteration, 1 to 8": lambda r, cell: r.mean(cell, "rise") <= 1,
    "whose error rises by at most 5 % from its best to 24 iterations": lambda r, cell: r.mean(cell, "drift") <= 5,
    "whose best is below the best fixed number of iterations": lambda r, cell: (
        r.mean(cell, "best") < r.mean(cell, "best fixed")
    ),
}


def _settled(cell: str, seed: int, context: Context) -> tuple[FieldTransformer, History]:
    """A model trained to settle: on all iterates, or as the row says."""
    scale: SettledScale = context.scale
    kind, how = cell.split(", ")[0], OTHERWISE.get(cell, "")
    draw = generator_from("table2-settled", "counts", cell, seed)
    objective = None if how == "last" else AllIterates(
        counts=(scale.fewest, scale.most), ahead=scale.ahead, growth=scale.growth, generator=draw,
        share=scale.penalty if how == "penalty" else 0.0, penalty=certify.jacobian_penalty,
    )  # fmt: skip

    def make() -> FieldTransformer:
        model = build(kind, "input", scale.most, scale)
        if how == "last":
            model.settle.stop = FixedSteps(range(1, scale.most + 1), generator=draw)
        return model

    def project(model: FieldTransformer) -> None:
        if how == "projected":
            certify.project_(model.operator, scale.target)

    return fitted(make, (cell, "settled", seed), context, objective=objective, project=project)


def _controls(cell: str, seed: int, spent: float, data: FlowTask, context: Context) -> dict[str, float]:
    """Errors of the best models of a fixed number of iterations, and of one that is not iterated, trained as long."""
    fixed, seconds = _fixed(cell, seed, data, context)
    make = lambda: build(cell, "input", 1, context.scale)  # noqa: E731
    times = max(1, round(spent / seconds))
    longer, _ = fitted(make, (cell, "longer", seed), context, times=times)
    best = {name: min(fixed[f"{form} {n}"] for n in FIXED) for name, form in BEST.items()}
    return best | {"equal time": float(errors(longer, data.test, 1).mean()), "times": float(times)}


def _fixed(cell: str, seed: int, data: FlowTask, context: Context) -> tuple[dict[str, float], float]:
    """Test errors of the models trained for a fixed number of iterations; seconds that N = 1 took."""
    found, seconds = {}, 0.0
    for form in ("input", "picard"):
        for steps in FIXED:
            make = lambda form=form, steps=steps: build(cell, form, steps, context.scale)  # noqa: E731
            model, history = fitted(make, (cell, form, steps, seed), context)
            found[f"{form} {steps}"] = float(errors(model, data.test, steps)[-1].mean())
            seconds = history.seconds if (form, steps) == ("input", 1) else seconds
    return found, seconds


def _shape(course: Tensor) -> dict[str, float]:
    """The best error, the largest rise to the next iteration and from the best to the last, both in per cent."""
    early, best = course[:FIRST], course.min()
    rise, drift = (early[1:] / early[:-1]).max() - 1, course[-1] / best - 1
    return {"best": float(best), "rise": 100 * float(rise), "drift": 100 * float(drift)}


def _served(model: FieldTransformer, data: FlowTask) -> dict[str, float]:
    """How the test samples settle by Anderson(5)."""
    f = model.eval().encode(data.test[0]).detach()
    found = solve(model.settle.posed(f, f)[0], f, Anderson(5), SERVED)
    return {
        "settled rows": 100 * float(found.converged.double().mean()),
        "evals": float(found.evals.double().mean()),
    }


EXPERIMENT = Table2Settled()
