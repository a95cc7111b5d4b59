"""graph-value-iteration: the values of random decision processes, by graph models that settle and one that does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint import Anderson, FixedSteps, Implicit, Picard, Solver, Tolerance, Truncated
from settlepoint.data.graph_set import GraphSet
from settlepoint.data.value_iteration import decision_processes
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
    outcome,
)
from settlepoint.experiments.shortest_path import SERVED, TRIVIAL, Untied, featured, weighted
from settlepoint.layers.path import PathConv
from settlepoint.models import CGS, PIGN
from settlepoint.runs import generator_from, seeded
from settlepoint.training.graphs import GraphRecipe, fit_graphs

TRAINED = Tolerance(atol=0.0, rtol=1e-4, max_steps=200)


@dataclass(frozen=True, kw_only=True)
class ValueScale(Scale):
    """Sizes of the experiment."""

    train: Annotated[int, "processes of 20 to 50 states to train on"] = 200
    small: Annotated[int, "processes of 20 to 50 states to test on"] = 50
    large: Annotated[int, "larger processes to test on"] = 8
    states: Annotated[int, "states of a larger process"] = 200
    actions: Annotated[int, "actions of a state"] = 5
    gamma: Annotated[float, "discount"] = 0.9
    hidden: Annotated[int, "features a state of the message-passing models; CGS has twice as many"] = 16
    steps: Annotated[int, "iterations of PIGN in training"] = 60
    last: Annotated[int, "evaluations that its gradient goes through"] = 10
    layers: Annotated[int, "layers of the network of fixed depth"] = 8
    epochs: Annotated[int, "passes over the training processes"] = 50
    lr: Annotated[float, "largest learning rate of Adam"] = 5e-3
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class GraphValueIteration(Experiment):
    """CGS, PIGN, layers of their own weights and the mean value, on processes of the size of training and larger."""

    id = "graph-value-iteration"
    title = "Values of decision processes on graphs"
    claim = (
        "Graph models that settle learn the values of random decision processes and keep their error on larger ones; "
        "a linear one, CGS, gets less close than PIGN around a convolution that takes the best message, which settles "
        "by Anderson(5) also where Picard goes round in circles."
    )
    source = "Park, Choo and Park (2022), graph value iteration; generated anew"
    scales = {
        "smoke": ValueScale(
            seeds=1, train=6, small=3, large=2, states=60, hidden=4, steps=6, last=3, layers=2, epochs=2,
            thresholds=False,
        ),
        "cpu": ValueScale(seeds=3),
        "paper": ValueScale(seeds=5, train=10_000, small=500, large=500, hidden=64),
    }  # fmt: skip
    scaled_down = {
        "smoke": "6 processes, 2 epochs",
        "cpu": "200 training processes instead of 10,000, 16 features instead of 64, 3 seeds",
    }
    tables = (
        Table(
            "Mean absolute percentage error of the value",
            (
                Column("small", "20 to 50 states", "%", ".2f", better="low"),
                Column("large", "Larger processes", "%", ".2f", better="low"),
                Column("settled", "Larger processes that settled", "%", ".0f"),
                Column("Picard settled", "By Picard", "%", ".0f"),
                Column("evals", "Evaluations, larger processes", fmt=".0f"),
                Column("training evals", "Evaluations a pass, as trained", fmt=".0f"),
                Column("diverged", "Diverged", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            caption="Processes that no model has seen; weights of the last epoch, one loop of training. A state knows "
            "the largest and the mean reward of its actions, an edge its reward. cgs: 8 heads and the discount of the "
            "processes, Anderson(5), implicit gradient; its encoder sees states only, rewards enter by the weights of "
            "the edges. pign: PathConv, injection one minus the discount, trained for `steps` iterations and the "
            "gradient of the `last` of them; untied: `layers` PathConv with weights of their own; mean: the mean "
            "value of the training states. At test in float64; cgs and pign by Anderson(5) to a relative residual of "
            "1e-6 for each process, in 400 evaluations at most.",
        ),
    )
    figures = (Figure("Error", ("small", "large"), "MAPE on processes of the size of training, larger.", kind="bars"),)

    def cells(self, scale: ValueScale) -> Sequence[str]:
        return ("cgs", "pign", "untied", TRIVIAL)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale = context.scale
        train, watched, small, large = sets(scale, seed, context.device)
        guess = train.y.mean()
        trivial = {f"{TRIVIAL} small": mape(guess, small.y), f"{TRIVIAL} large": mape(guess, large.y)}
        if cell == TRIVIAL:
            return outcome({"small": trivial["mean small"], "large": trivial["mean large"], "evals": 0, **trivial})
        with seeded(self.id, "fit", cell, seed):
            model = build(cell, scale).to(context.device)
        say = lambda epoch, score: context.progress(f"epoch {epoch}, error {-score:.1f} %")  # noqa: E731
        history = fit_graphs(
            model, train, watched,
            GraphRecipe(epochs=scale.epochs, batch=20, lr=scale.lr, schedule="onecycle", clip=1.0),
            generator=generator_from(self.id, "order", seed), seen=weighted if cell == "cgs" else featured,
            score=lambda found, y: -mape(found, y), after_epoch=say,
        )  # fmt: skip
        last = model.settle.last if isinstance(model, CGS | PIGN) else None
        spent = {"training seconds": history.seconds, "diverged": float(history.diverged is not None)}
        spent["training evals"] = scale.layers if last is None else float(last.evals.max())
        near, far = served(model.double(), small, Anderson(5)), served(model, large, Anderson(5))
        metrics = {"small": near["error"], "large": far["error"], "evals": far.get("evals", scale.layers)}
        if "settled" in far:
            metrics |= {"settled": far["settled"], "Picard settled": served(model, large, Picard())["settled"]}
        return outcome(metrics | spent | trivial)

    def checks(self, results: Results) -> Sequence[Check]:
        mean = results.mean
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        fitted = replace(results, records=[record for record in results.records if record.cell != TRIVIAL])
        return [
            Check.at_most("pign, error on larger processes (%)", mean("pign", "large"), 4.0),
            Check.at_most("untied, error on larger processes (%)", mean("untied", "large"), 4.0),
            Check.at_least(
                "cgs over pign, error on larger processes", mean("cgs", "large") / mean("pign", "large"), 2.0
            ),
            *(
                Check.at_most(
                    f"{cell}, points lost on larger processes", mean(cell, "large") - mean(cell, "small"), 1.0
                )
                for cell in ("cgs", "pign", "untied")
            ),
            *(
                Check.at_least(f"{cell}, larger processes that settled (%)", mean(cell, "settled"), 100.0)
                for cell in ("cgs", "pign")
            ),
            *above_trivial(fitted, "small", f"{TRIVIAL} small", predictor="mean value", lower=True),
        ]


def build(cell: str, scale: ValueScale) -> nn.Module:
    """The model of a cell; weights from torch's global generator."""
    channels = (2, scale.hidden, 1)
    if cell == "untied":
        return Untied(channels, scale.layers)
    if cell == "cgs":
        return CGS(
            (2, 2 * scale.hidden, 1), heads=8, gamma=scale.gamma, edge_features=1, solver=Anderson(5), stop=TRAINED,
            adjoint=Implicit(Anderson(5), TRAINED),
        )  # fmt: skip
    conv, stop, adjoint = PathConv(scale.hidden, 1), FixedSteps(scale.steps), Truncated(scale.last)
    return PIGN(
        conv, channels, injection=1 - scale.gamma, transport="learned", solver=Picard(), stop=stop, adjoint=adjoint
    )


def mape(found: Tensor, y: Tensor) -> float:
    """Mean of |found - y| / |y| in per cent; values are positive, as rewards are."""
    return 100.0 * float(((found - y).abs() / y.abs()).mean())


@torch.no_grad()
def served(model: nn.Module, data: GraphSet, solver: Solver) -> dict[str, float]:
    """error (%), and of a model that settles its evals and the share of processes that settled by solver (%)."""
    settles = isinstance(model, CGS | PIGN)
    if settles:
        model.settle.solver, model.settle.stop = solver, SERVED
    data, look = data.to(data.x.device, torch.float64), weighted if isinstance(model, CGS) else featured
    measured = {"error": mape(model.eval()(data.x, look(data))[:, 0], data.y)}
    if not settles:
        return measured
    last = model.settle.last
    assert last is not None
    return measured | {"evals": float(last.evals.max()), "settled": 100.0 * float(last.converged.double().mean())}


@cache
def sets(scale: ValueScale, seed: int, device: str) -> tuple[GraphSet, ...]:
    """Processes to train on, to watch, small and large ones to test on; the same for every cell."""
    draw = generator_from("graph-value-iteration", "graphs", seed)

    def some(count: int, nodes: tuple[int, int] = (20, 50)) -> GraphSet:
        return decision_processes(count, draw, nodes=nodes, actions=scale.actions, gamma=scale.gamma).to(device)

    return some(scale.train), some(5), some(scale.small), some(scale.large, (scale.states, scale.states))


EXPERIMENT = GraphValueIteration()
