"""fno-deq-darcy: Darcy flow by a Fourier layer that is solved until it settles, and by networks that have a depth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from settlepoint import Tolerance
from settlepoint.data import Fields
from settlepoint.experiments.darcy_networks import (
    NETWORKS,
    SERVED,
    SERVER,
    DarcyScale,
    build,
    by_evaluations,
    error,
    evaluations,
    parameters,
    settled,
)
from settlepoint.experiments.darcy_task import Task, loaded, mean_errors, relative, ridge_errors, task
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
from settlepoint.models import FNODEQ
from settlepoint.runs import generator_from, seeded
from settlepoint.training import History, Hooks, Recipe, fit

MODEL, PEER, TRIVIAL = "fno-deq", "fno", "mean"
KINDS = ("clean", "noisy")
GRIDS = ("16", "32")
SUMMED = ("training seconds", "false claims")


class FnoDeqDarcy(Experiment):
    """Ten predictors of Darcy flow, on clean and on noisy inputs."""

    id = "fno-deq-darcy"
    title = "FNO-DEQ on Darcy flow"
    claim = (
        "At equal parameters a Fourier layer that is solved until each sample settles is closer to the pressure of "
        "Darcy flow than an FNO of four layers, on clean and on noisy inputs, on the grid of training and on one of "
        "twice as many points. Most of that is the layer, which sees its input at every step: unrolled for ten steps "
        "it is about as close."
    )
    source = "FNO: Li et al. (2021); FNO-DEQ: Marwah et al. (2023), without public code; data: neuraloperator"
    needs = (lambda context: loaded(context.data_dir),)
    scales = {
        "smoke": DarcyScale(
            train=40, val=10, width=4, modes=3, own_width=4, own_modes=3, layers=2, evals=3, epochs=1, longer=2,
            thresholds=False,
        ),
        "cpu": DarcyScale(seeds=3),
        "paper": DarcyScale(seeds=5, width=32, own_width=26, epochs=50),
    }  # fmt: skip
    scaled_down = {
        "smoke": "40 samples, one epoch, 4 channels",
        "cpu": "8 epochs and 64,000 parameters; the papers' grids have 85 to 421 points a side, the files have 16",
    }
    tables = (
        Table(
            "Relative L2 on the test samples",
            (
                Column("clean 16", "16 x 16, clean", "%", ".2f", better="low"),
                Column("noisy 16", "noisy", "%", ".2f", better="low"),
                Column("clean 32", "32 x 32, clean", "%", ".2f", better="low"),
                Column("noisy 32", "noisy", "%", ".2f", better="low"),
                Column("clean val", "Validation, clean", "%", ".2f"),
                Column("noisy val", "noisy", "%", ".2f"),
                Column("evals", "Evaluations of the layer", fmt=".1f"),
                Column("parameters", "Parameters", fmt=",.0f"),
                Column("training seconds", "Training, both", "CPU s", ".0f"),
            ),
            caption="Mean over the 50 test samples of ||p - y|| / ||y||. All networks are trained on 900 samples of "
            "16 x 16 points by the same loop and recipe (AdamW, gradients cut at norm 1, the weights of the "
            "last epoch) and see 32 x 32 points for the first time at test. Input: -1 or 1 for the two "
            "coefficients, and the place. noisy: N(0, 1) times `noise` is added to every input, in training "
            "and at test. fno: four layers of their own; long: `longer` times the epochs, about the CPU time "
            "of fno-deq; gated: four cells of their own, each of which sees the input as that of fno-deq "
            "does; tied: one layer four times; tied deep: as often as unrolled; unrolled: the cell of "
            "fno-deq, a fixed number of Picard steps and their gradient; fno-deq: Anderson(3) in training to "
            "a relative residual of 1e-2 with the implicit gradient, at test Anderson(5) to 1e-4, each sample"
            " on its own. fno and the tied ones see their input once, the others at every step. mean: the "
            "mean training pressure; ridge: a linear map; both linear in between points on 32 x 32. Width, "
            "modes and learning rate are from trials of one seed on the validation samples, six for fno, "
            "three for fno-deq, fewer for the others; no command repeats them.",
        ),
        Table(
            "How the test samples settle",
            (
                *(
                    Column(f"{kind} {grid} {key}", f"{kind} {grid}: {label}", fmt=fmt)
                    for kind in KINDS
                    for grid in GRIDS
                    for key, label, fmt in (
                        ("settled", "settled of 50", ".0f"),
                        ("evals", "evaluations, mean", ".1f"),
                        ("evals max", "max", ".0f"),
                        ("rate", "rate", ".2f"),
                    )
                ),
                Column("false claims", "False claims", fmt=".0f"),
            ),
            rows=(MODEL,),
            caption="To a relative residual of 1e-4. rate: median factor a step of Picard (certify.verdict), the "
            "measured contraction. A claim of having settled is checked anew in float64. The status and evaluations of "
            "every sample are in the notes of the results.",
        ),
    )
    figures = (
        Figure("Evaluations of each test sample", tuple(f"{k} {g} samples" for k in KINDS for g in GRIDS),
               "To a relative residual of 1e-4.", kind="points", rows=(MODEL,)),
        Figure("Error by evaluations", ("clean by evaluations",), "On clean test samples of 16 x 16 points.",
               rows=("unrolled", MODEL)),
        Figure("Relative L2", ("clean 16", "noisy 16", "clean 32", "noisy 32"), "Means over seeds.", kind="bars"),
    )  # fmt: skip

    def cells(self, scale: DarcyScale) -> Sequence[str]:
        return (TRIVIAL, "ridge", *NETWORKS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        parts = [part(cell, kind, seed, context) for kind in KINDS]
        metrics = {name: value for each in reversed(parts) for name, value in each["metrics"].items()}
        sums = {name: sum(each["metrics"][name] for each in parts) for name in SUMMED if name in metrics}
        curves = {name: value for each in parts for name, value in each["curves"].items()}
        return outcome(metrics | sums, curves, [note for each in parts for note in each["notes"]])

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        mean, names = results.mean, [f"{kind} {grid}" for kind in KINDS for grid in GRIDS]
        ratio = lambda name, peer: mean(MODEL, name) / mean(peer, name)  # noqa: E731
        fitted = replace(results, records=[record for record in results.records if record.cell != TRIVIAL])
        size = mean(MODEL, "parameters") / mean(PEER, "parameters")
        settling = min((mean(MODEL, f"{name} settled") for name in names), default=math.nan)
        return [
            *(Check.at_most(f"{MODEL} over {PEER}, relative L2, {name}", ratio(name, PEER), 0.99) for name in names),
            *(Check.at_most(f"{MODEL} over fno long, {name}", ratio(name, "fno long"), 0.99) for name in names),
            *(Check.at_least(f"seeds won against {PEER}, {name}", _won(results, name), len(results.of(MODEL)))
              for name in names[::2]),
            Check.within("parameters over those of fno", size, 0.95, 1.05),
            Check.at_least("test samples settled, the worst set of 50", settling, 50),
            Check.at_most("false claims of having settled", results.total("false claims"), 0),
            *(check for name in names for check in above_trivial(
                fitted, name, f"{TRIVIAL} {name}", predictor="mean solution", lower=True)),
        ]  # fmt: skip


def shown(kind: str, seed: int, context: Context) -> Task:
    """The fields of one kind of input."""
    scale: DarcyScale = context.scale
    noise = scale.noise if kind == "noisy" else 0.0
    return task(context.data_dir, train=scale.train, val=scale.val, noise=noise, seed=seed, device=context.device)


def trained(cell: str, kind: str, data: Task, seed: int, context: Context) -> tuple[nn.Module, History]:
    """The network of a cell, fitted to one kind of input; every cell sees the samples in the same order."""
    scale: DarcyScale = context.scale
    with seeded(FnoDeqDarcy.id, "weights", cell, seed):
        model = build(cell, scale).to(context.device)
    epochs = scale.epochs * (scale.longer if cell.endswith(" long") else 1)
    recipe = Recipe(epochs=epochs, batch=scale.batch, lr=scale.lr, clip=1.0)
    order = generator_from(FnoDeqDarcy.id, "order", seed)
    say = lambda epoch, value: context.progress(f"{kind}, epoch {epoch}, loss {100 * value:.1f} %")  # noqa: E731
    history = fit(
        model, (data.train.x, data.train.y), recipe, generator=order, loss=relative, hooks=Hooks(after_epoch=say)
    )
    if cell == MODEL:
        model.settle.solver, model.settle.stop = SERVER, SERVED  # type: ignore[union-attr]
    return model, history


def part(cell: str, kind: str, seed: int, context: Context) -> Mapping[str, Any]:
    """The outcome of a cell for one kind of input."""
    data = shown(kind, seed, context)
    trivial = mean_errors(data)
    bars = {f"{TRIVIAL} {kind} {grid}": value for grid, value in trivial.items()}
    if cell in (TRIVIAL, "ridge"):
        found = trivial if cell == TRIVIAL else ridge_errors(data)
        return outcome({**{f"{kind} {grid}": value for grid, value in found.items()}, "evals": 0.0, **bars})
    model, history = trained(cell, kind, data, seed, context)
    spent = {
        "parameters": parameters(model),
        "training seconds": history.seconds,
        f"{kind} val": error(model, data.val),
    }
    sets = [measured(model, f"{kind} {grid}", each) for grid, each in zip(GRIDS, (data.test, data.fine), strict=True)]
    metrics = {name: value for each in reversed(sets) for name, value in each["metrics"].items()}
    claims = {name: sum(each["metrics"][name] for each in sets) for name in SUMMED if name in metrics}
    curves = {name: value for each in sets for name, value in each["curves"].items()}
    if isinstance(model, FNODEQ) and kind == "clean":
        curves["clean by evaluations"] = by_evaluations(model, data.test, cell)
    return outcome(metrics | claims | spent | bars, curves, [note for each in sets for note in each["notes"]])


def measured(model: nn.Module, name: str, fields: Fields) -> Mapping[str, Any]:
    """The error on one set and, where the model settles, how each of its samples did."""
    metrics = {name: error(model, fields), "evals": evaluations(model)}
    if not (isinstance(model, FNODEQ) and isinstance(model.settle.stop, Tolerance)):
        return outcome(metrics)
    found, each, counts = settled(model, fields)
    claims = {"false claims": found.pop("false claims")}
    return outcome(
        metrics | claims | {f"{name} {key}": value for key, value in found.items()},
        {f"{name} samples": curve(range(len(each)), each, x_label="sample", y_label="evaluations")},
        [f"{name}: {counts}, evaluations of the samples in order: {each}"],
    )


def _won(results: Results, name: str) -> int:
    """Seeds in which the model is closer than FNO; a seed that lacks either is not won."""
    pairs = zip(results.values(MODEL, name), results.values(PEER, name), strict=False)
    return sum(ours < theirs for ours, theirs in pairs)


EXPERIMENT = FnoDeqDarcy()
