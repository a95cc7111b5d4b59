"""The task of Table 2: frames of a fluid from the frames before them; how its models are built, fitted and scored."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from settlepoint import FixedSteps, Picard
from settlepoint.data.fluid import Flow
from settlepoint.data.navier_stokes import initial_vorticity, trajectories
from settlepoint.experiments.scale import Context, Scale
from settlepoint.models.field_transformer import FieldTransformer, Kind
from settlepoint.runs import generator_from, seeded
from settlepoint.training.fit import History, Hooks, Objective, Recipe, fit
from settlepoint.training.settled import iterates

KINDS: tuple[Kind, ...] = ("vit", "small", "parallel", "space-time")


@dataclass(frozen=True, kw_only=True)
class FlowScale(Scale):
    """Sizes of the experiments on a fluid."""

    train: Annotated[int, "trajectories to train on"] = 1000
    test: Annotated[int, "trajectories to test on"] = 200
    solved: Annotated[int, "points a side of the generator"] = 32
    grid: Annotated[int, "points a side that the models see"] = 16
    dt: Annotated[float, "time step of the generator"] = 0.1
    viscosity: Annotated[float, "nu of the fluid"] = 1e-3
    since: Annotated[int, "time before the first frame that is seen; frames are one unit of time apart"] = 10
    frames: Annotated[int, "frames that are seen, and as many behind them that are asked for"] = 10
    width: Annotated[int, "features of a token"] = 48
    heads: Annotated[int, "heads of the attention"] = 4
    depth: Annotated[int, "blocks of T"] = 1
    patch: Annotated[int, "points a side of a patch"] = 4
    period: Annotated[int, "frames of a patch of the space-time transformer"] = 5
    damping: Annotated[float, "weight of the old iterate"] = 0.5
    epochs: Annotated[int, "passes over the training trajectories"] = 20
    batch: Annotated[int, "trajectories a step"] = 25
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 3e-3
    warmup: Annotated[int, "steps in which the learning rate rises first"] = 0
    thresholds: Annotated[bool, "hold the tables to their thresholds"] = True


SIZES: Mapping[str, Mapping[str, Any]] = {
    "smoke": {
        "seeds": 1, "train": 60, "test": 20, "solved": 16, "grid": 8, "since": 2, "frames": 4, "width": 16, "heads": 2,
        "patch": 4, "period": 2, "epochs": 4, "batch": 10, "thresholds": False,
    },
    "cpu": {"seeds": 3},
    "paper": {
        "seeds": 5, "train": 4000, "test": 1000, "solved": 64, "grid": 64, "dt": 0.05, "since": 0, "frames": 25,
        "width": 192, "heads": 6, "depth": 4, "patch": 8, "epochs": 100, "lr": 1e-3,
    },
}  # fmt: skip
"""Of table2 and table2-settled."""


@dataclass(frozen=True, eq=False)
class FlowTask:
    """Frames seen and asked for, (N, frames, grid, grid), in units of the deviation of those asked for in training."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @property
    def mean_error(self) -> float:
        """Mean squared error on the test set of the mean of the training frames."""
        return float((self.test[1] - self.train[1].mean(0)).square().mean())

    @property
    def persistence(self) -> float:
        """That of the last frame seen."""
        return float((self.test[1] - self.test[0][:, -1:]).square().mean())


def task(context: Context) -> FlowTask:
    """The same trajectories for every cell and seed, computed once a process."""
    scale: FlowScale = context.scale
    sizes = (scale.train, scale.test, scale.solved, scale.grid, scale.since, scale.frames)
    frames = _frames(sizes, scale.dt, scale.viscosity).to(context.device)
    seen, asked = frames.split(scale.frames, 1)
    unit = asked[: scale.train].std()
    part = lambda rows: (seen[rows] / unit, asked[rows] / unit)  # noqa: E731
    return FlowTask(part(slice(scale.train)), part(slice(scale.train, None)))


@lru_cache(maxsize=2)
def _frames(sizes: tuple[int, ...], dt: float, viscosity: float) -> Tensor:  # (train + test, 2 frames, grid, grid)
    train, test, solved, grid, since, count = sizes
    if solved % grid:
        raise ValueError(f"grid must divide solved = {solved}, got {grid}")
    every, flow = solved // grid, Flow(viscosity=viscosity, size=solved, dt=dt)
    times, draw, parts = [float(since + k) for k in range(1, 2 * count + 1)], generator_from("flow", "start"), []
    for rows in torch.arange(train + test).split(50):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the Courant number")
            found = trajectories(initial_vorticity(len(rows), draw, solved), times, flow)
        parts.append(found[..., ::every, ::every].float())
    return torch.cat(parts)


def build(kind: str, form: str, steps: int, scale: FlowScale, *, layers: int = 1) -> FieldTransformer:
    """A model that iterates so many damped steps; layers: times as many blocks, each with weights of its own."""
    patch = (scale.patch, scale.patch)
    return FieldTransformer(
        (scale.frames, scale.frames), (scale.grid, scale.grid), scale.width, scale.heads, layers * scale.depth,
        patch=(scale.period, *patch) if kind == "space-time" else patch, kind=kind, form=form,  # type: ignore[arg-type]
        solver=Picard(scale.damping), stop=FixedSteps(steps),
    )  # fmt: skip


def fitted(
    make: Callable[[], nn.Module],
    names: Sequence[object],
    context: Context,
    *,
    objective: Objective | None = None,
    times: int = 1,
    samples: tuple[Tensor, Tensor] | None = None,
    project: Callable[[Any], None] = lambda model: None,
) -> tuple[Any, History]:
    """A model and how it was fitted, weights and order of samples drawn from the names; times: as many epochs.

    samples: those of `task` unless given. project: what is done to the model behind every step of the optimiser.
    """
    scale: FlowScale = context.scale
    with seeded("flow", "weights", *names):
        model = make().to(context.device)
    recipe = Recipe(epochs=times * scale.epochs, batch=scale.batch, lr=scale.lr, warmup=scale.warmup, clip=1.0)
    say = lambda epoch, loss: context.progress(f"{names[0]}, epoch {epoch}, loss {loss:.4f}")  # noqa: E731
    hooks = Hooks(after_step=lambda: project(model), after_epoch=say)
    order = generator_from("flow", "order", *names)
    loss = nn.functional.mse_loss
    with seeded("flow", "dropout", *names):
        history = fit(
            model, samples or task(context).train, recipe, generator=order, loss=loss, objective=objective, hooks=hooks
        )
    return model, history


@torch.no_grad()
def errors(model: Any, samples: tuple[Tensor, Tensor], steps: int) -> Tensor:  # (steps, N)
    """Mean squared error of every sample after 1, ..., steps iterations."""
    u, y = samples
    with seeded("flow", "evaluation"):
        found = iterates(model.eval(), model.encode(u), steps)
        return torch.stack([(model.decode(x) - y).square().flatten(1).mean(1) for x in found])
