"""R2N2 turned round: theta frozen to a classical tableau, the right-hand side a network that is identified (Fig 1a)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from settlepoint.adjoints import Implicit
from settlepoint.equation import Equation
from settlepoint.experiments.courses import quartiles
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
from settlepoint.layers import linear
from settlepoint.learn.objective import rollout
from settlepoint.problems import VanDerPol
from settlepoint.runs import generator_from
from settlepoint.solve import solve
from settlepoint.solvers import R2N2, Anderson
from settlepoint.solvers.tableaus import EULER, HEUN, RK4, Tableau
from settlepoint.stop import Tolerance

Field = Callable[[Tensor], Tensor]  # (R, 2) -> (R, 2)
Steps = Callable[[Field, Tensor], list[Tensor]]  # x_k -> [x_{k+1}, x_{k+2}, ...]

A, H = 1.5, 0.05
TABLEAUS: Mapping[str, Tableau] = {"RK4": RK4, "Heun": HEUN, "Euler": EULER}
IMPLICIT, FORWARD, CENTRAL, TRUE = "implicit Euler", "forward differences, cubic", "central differences, cubic", "true"
NETWORKS = (*TABLEAUS, IMPLICIT)
LONG = 400  # steps of the long rollouts, 20 units of time, about three periods
DRAWS = VanDerPol(a=(A, A), x1=(-2.5, 2.5), x2=(-4.0, 4.0), h=(H, H))


@dataclass(frozen=True, kw_only=True)
class InverseScale(Scale):
    """Sizes of the identification."""

    trajectories: Annotated[int, "trajectories to learn from"] = 100
    length: Annotated[int, "steps of each"] = 20
    width: Annotated[int, "units of each of the two hidden layers"] = 32
    updates: Annotated[int, "updates of Adam on random pairs"] = 5000
    batch: Annotated[int, "pairs an update"] = 128
    lr: Annotated[float, "learning rate of Adam at the start; it falls to 0 along a cosine"] = 2e-2
    polish: Annotated[int, "iterations of L-BFGS on all pairs, after Adam"] = 2000
    tried: Annotated[int, "starting points of the long rollouts"] = 30


class Inverse(Experiment):
    """Rows of the tables are the methods that turn a field into steps."""

    id = "r2n2-inverse"
    title = "Identifying a right-hand side inside a frozen method"
    claim = (
        "A network inside a frozen RK4 becomes the van der Pol field itself; inside Euler's method, explicit or "
        "implicit, it becomes what makes that method exact at one step size, and is wrong at any other."
    )
    source = "R2N2, Fig 1a and Sec. 6.1; no numbers are given there"
    scales: ClassVar = {
        "smoke": InverseScale(seeds=1, trajectories=20, length=10, updates=100, polish=20, tried=5),
        "cpu": InverseScale(seeds=3, updates=1000, polish=400),
        "paper": InverseScale(seeds=5),
    }
    scaled_down: ClassVar = {
        "smoke": "20 trajectories of 10 steps, 100 updates of Adam and 20 iterations of L-BFGS",
        "cpu": "1,000 updates of Adam and 400 iterations of L-BFGS instead of 5,000 and 2,000",
    }
    tables: ClassVar = (
        Table(
            "The identified field, and where it leads",
            (
                Column("field", "Error of the field", "%", fmt=".3g", better="low"),
                Column("rollout p25", "Exact rollout, 25 %", fmt=".2e"),
                Column("rollout p50", "median", fmt=".2e", better="low"),
                Column("rollout p75", "75 %", fmt=".2e"),
                Column("own p50", "Own method, median", fmt=".2e", better="low"),
                Column("half p50", "at half the step", fmt=".2e", better="low"),
                Column("trivial", "mean state", fmt=".2e"),
                Column("loss", "Loss", fmt=".1e"),
                Column("evals", "Evaluations a step", fmt=".1f"),
                Column("training seconds", "Training", "CPU s", fmt=".1f"),
            ),
            caption="a = 1.5, h = .05. Error of the field: root mean square over |x1| <= 2, |x2| <= 3, relative to the "
            "field. Exact rollout: the identified field under DOP853; own method: under the method it was trained in, "
            "with the same h, and with half of it. Root mean square errors over 20 units of time, quartiles over "
            "starting points not trained on. Mean state: the trivial predictor. Loss: mean |x_{k+1} - x*_{k+1}|^2 / "
            "h^2 of one step. Cubic: linear least squares on all cubic monomials, among which the true field is, for "
            "difference quotients of the same data. true: the field itself under RK4, the floor of 'own method'.",
        ),
    )
    figures: ClassVar = (
        Figure("Long rollouts", ("rollout",), "Median distance from the true trajectory; exact integration.",
               rows=(*NETWORKS, FORWARD, CENTRAL)),
        Figure("Course of training", ("training",), "Loss of the networks: Adam, then L-BFGS.", rows=NETWORKS),
        Figure("Error of the field", ("field",), "In per cent of the field, over a grid.", kind="bars",
               rows=(*NETWORKS, FORWARD, CENTRAL)),
    )  # fmt: skip

    def cells(self, scale: InverseScale) -> Sequence[str]:
        return (*NETWORKS, FORWARD, CENTRAL, TRUE)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: InverseScale = context.scale
        path = _paths(scale.trajectories, scale.length, "training", seed)
        field, metrics, curves = _identified(cell, path, seed, context)
        truth = _paths(scale.tried, LONG, "tried", seed)
        context.progress(f"{cell}: rollouts")
        with torch.no_grad():
            exact = integrated(field, truth[:, 0], LONG)
            errors = {"rollout": exact, **_own(cell, field, truth)}
        gaps = {name: torch.linalg.vector_norm(x - truth, dim=2) for name, x in errors.items()}
        for name, gap in gaps.items():
            metrics |= quartiles(name, gap.square().mean(1).sqrt())
        spread = truth - truth.mean((0, 1))
        metrics |= {"field": 100 * field_error(field), "trivial": spread.square().sum(2).mean(1).sqrt().median()}
        times = [H * k for k in range(0, LONG + 1, 4)]
        middle = gaps["rollout"].nan_to_num(torch.inf).median(0).values[::4]
        label = "median distance from the truth"
        curves["rollout"] = curve(times, middle.tolist(), x_label="time", y_label=label, log_y=True, group=cell)
        return outcome(metrics, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        mean = results.mean
        floor = Check.at_most("true field: own method, median error", mean(TRUE, "own p50"), 1e-3)
        if results.scale_name == "smoke":
            return [floor]
        over = {name: mean("RK4", "field") / mean(name, "field") for name in ("Euler", IMPLICIT, FORWARD)}
        elsewhere = {name: mean(name, "half p50") / mean(name, "own p50") for name in ("Euler", IMPLICIT)}
        text = "error at half the step over that at the step trained for"
        return [
            floor,
            *above_trivial(results, "rollout p50", "trivial", predictor="mean state", lower=True),
            Check.at_most("RK4: error of the field (%)", mean("RK4", "field"), 3),
            *(Check.at_most(f"RK4's error of the field over that of {n}", ratio, 0.5) for n, ratio in over.items()),
            *(Check.at_least(f"{n}: {text}", ratio, 2) for n, ratio in elsewhere.items()),
        ]


class Network(nn.Module):
    """Two hidden layers of tanh."""

    def __init__(self, width: int, generator: torch.Generator):
        super().__init__()
        sizes = [(2, width), (width, width), (width, 2)]
        layers = [linear(a, b, generator=generator, dtype=torch.float64) for a, b in sizes]
        self.body = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@dataclass(frozen=True)
class Cubic:
    """f(x) = weights^T (monomials of degree <= 3). weights: (10, 2)."""

    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return monomials(x) @ self.weights


def monomials(x: Tensor) -> Tensor:  # (R, 2) -> (R, 10)
    """1, x1, x2, x1^2, x1 x2, ... of degree <= 3."""
    powers = [c for degree in range(4) for c in combinations_with_replacement((0, 1), degree)]
    return torch.stack([x[:, list(c)].prod(1) if c else torch.ones_like(x[:, 0]) for c in powers], 1)


def true_field(x: Tensor) -> Tensor:
    """The van der Pol field at a = 1.5."""
    return DRAWS.field(x, {"a": x.new_full((len(x),), A)})


def explicit(tableau: Tableau, steps: int, h: float = H) -> Steps:
    """x_k -> [x_{k+1}, ..., x_{k+steps}] by R2N2 with theta frozen to the tableau."""
    solver = R2N2.from_tableau(tableau).requires_grad_(False)

    def path(field: Field, x: Tensor) -> list[Tensor]:
        eq = Equation(lambda z: z + field(z), scale=x.new_full((len(x),), h)).at(x)
        return list(rollout(solver, eq, x, steps, check=False).iterates)

    return path


def implicit(steps: int, h: float = H, spent: list[float] | None = None) -> Steps:
    """The same by x_{k+1} = x_k + h f(x_{k+1}), solved to 1e-9, with exact gradients from the fixed point.

    spent: gets the mean evaluations of every step.
    """
    stop = Tolerance(atol=1e-9, max_steps=200)

    def path(field: Field, x: Tensor) -> list[Tensor]:
        found = []
        for _ in range(steps):
            eq = Equation(lambda z, old: old + h * field(z), context=(x,))
            solution = solve(eq, x, Anderson(3), stop, Implicit(order=1), compact=False).require()
            assert isinstance(solution.value, Tensor)
            x = solution.value
            found.append(x)
            if spent is not None:
                spent.append(float(solution.evals.double().mean()))
        return found

    return path


def integrated(field: Field, x: Tensor, steps: int) -> Tensor:  # (R, 2) -> (R, steps + 1, 2)
    """The field under scipy.integrate.solve_ivp (DOP853, rtol 1e-8); NaN where that fails."""
    shape = x.shape

    def slope(_: float, z: np.ndarray) -> np.ndarray:
        return field(torch.from_numpy(z).reshape(shape)).numpy().ravel()

    times = H * np.arange(steps + 1)
    with np.errstate(all="ignore"):
        found = solve_ivp(slope, (0.0, times[-1]), x.numpy().ravel(), "DOP853", times, rtol=1e-8, atol=1e-10)
    if not found.success:
        return x.new_full((len(x), steps + 1, 2), torch.nan)
    return torch.from_numpy(found.y.T.copy()).reshape(steps + 1, *shape).transpose(0, 1)


def field_error(field: Field) -> float:
    """Root mean square error over a grid on |x1| <= 2, |x2| <= 3, relative to the field."""
    sides = [torch.linspace(-s, s, 41, dtype=torch.float64) for s in (2.0, 3.0)]
    x = torch.cartesian_prod(*sides)
    truth = true_field(x)
    with torch.no_grad():
        return float((field(x) - truth).norm() / truth.norm())


def _paths(count: int, steps: int, name: str, seed: int) -> Tensor:  # (count, steps + 1, 2)
    batch = DRAWS.sample(count, generator_from(Inverse.id, name, seed))
    return torch.cat((batch.x0[:, None], DRAWS.trajectory(batch, steps)), 1)


def _own(cell: str, field: Field, truth: Tensor) -> dict[str, Tensor]:
    """The field under the method of its cell, at the step trained for and at half of it."""
    if cell not in (*NETWORKS, TRUE):
        return {}
    found = {}
    for name, h, stride in (("own", H, 1), ("half", H / 2, 2)):
        steps = stride * LONG
        path = implicit(steps, h) if cell == IMPLICIT else explicit(TABLEAUS.get(cell, RK4), steps, h)
        states = torch.stack([truth[:, 0], *path(field, truth[:, 0])], 1)
        found[name] = states[:, ::stride]
    return found


def _identified(cell: str, path: Tensor, seed: int, context: Context) -> tuple[Field, dict[str, Any], dict[str, Any]]:
    """The field of a cell, what finding it gave, and the course of that."""
    if cell == TRUE:
        return true_field, {"evals": 4.0}, {}
    if cell in (FORWARD, CENTRAL):
        return differenced(path, central=cell == CENTRAL), {"evals": 0.0}, {}
    scale: InverseScale = context.scale
    spent: list[float] = []
    steps = implicit(1, H, spent) if cell == IMPLICIT else explicit(TABLEAUS[cell], 1)
    network = Network(scale.width, generator_from(Inverse.id, "weights", seed))
    begin = time.process_time()
    course = _fitted(network, steps, path, generator_from(Inverse.id, "order", seed), context)
    seconds = time.process_time() - begin
    evals = sum(spent) / len(spent) if spent else float(len(TABLEAUS[cell].b))
    return network, {"loss": course["y"][-1], "evals": evals, "training seconds": seconds}, {"training": course}


def differenced(path: Tensor, *, central: bool) -> Cubic:
    """Linear least squares of the monomials on difference quotients of the trajectories."""
    at, change = (path[:, 1:-1], (path[:, 2:] - path[:, :-2]) / (2 * H)) if central else (
        path[:, :-1], (path[:, 1:] - path[:, :-1]) / H)  # fmt: skip
    features = monomials(at.reshape(-1, 2))
    return Cubic(torch.linalg.lstsq(features, change.reshape(-1, 2), driver="gelsd").solution)


def _fitted(network: Network, step: Steps, path: Tensor, order: torch.Generator, context: Context) -> dict[str, Any]:
    """Adam on random pairs, then L-BFGS on all: mean |x_{k+1} - x*_{k+1}|^2 / h^2. The course of the loss."""
    scale: InverseScale = context.scale
    x, after = path[:, :-1].reshape(-1, 2), path[:, 1:].reshape(-1, 2)
    loss_of = lambda rows: (step(network, x[rows])[0] - after[rows]).square().sum(1).mean() / H**2  # noqa: E731
    losses = _adam(network, loss_of, len(x), order, context)
    rule = torch.optim.LBFGS(
        network.parameters(), max_iter=scale.polish, history_size=30, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        rule.zero_grad()
        loss = loss_of(slice(None))
        loss.backward()
        losses.append(float(loss.detach()))
        context.progress(f"L-BFGS, loss {losses[-1]:.3g}")
        return loss

    rule.step(closure)  # pyright: ignore[reportArgumentType]
    losses.append(float(loss_of(slice(None)).detach()))
    shown = [*range(0, len(losses) - 1, 10), len(losses) - 1]
    y = [losses[i] for i in shown]
    return curve(shown, y, x_label="gradients", y_label="training loss", log_y=True)


def _adam(
    network: Network, loss_of: Callable[[Any], Tensor], count: int, order: torch.Generator, context: Context
) -> list[float]:
    scale: InverseScale = context.scale
    rule = torch.optim.Adam(network.parameters(), lr=scale.lr)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(rule, scale.updates)
    losses = []
    for _ in range(scale.updates):
        loss = loss_of(torch.randint(count, (scale.batch,), generator=order))
        rule.zero_grad()
        loss.backward()
        rule.step()
        fall.step()
        losses.append(float(loss.detach()))
        context.progress(f"Adam, loss {losses[-1]:.3g}")
    return losses


EXPERIMENT = Inverse()
