"""nide: integro-differential equations with known solutions, and c, d, K, F learned from trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from settlepoint import Anderson, Implicit, NewtonKrylov, Picard, Tolerance, solve
from settlepoint.certify import Certificate, kantorovich, nodewise
from settlepoint.equation import Equation
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
from settlepoint.experiments.integral_fit import fit, relative
from settlepoint.experiments.nide_systems import EXACT, SYSTEMS, Exact, operator_of
from settlepoint.layers import MemoryOperator, Quadrature, gauss_legendre
from settlepoint.models import NIDE
from settlepoint.runs import generator_from, seeded
from settlepoint.spaces import Rows

STOP = Tolerance(1e-13, 1e-13, max_steps=400, growth=1e12, window=400)
TRAINED = Tolerance(0.0, 1e-4, max_steps=100, growth=1e9, window=100)
SERVED = Tolerance(0.0, 1e-8, max_steps=300, growth=1e9, window=300)
BACKWARD = Implicit(NewtonKrylov(), TRAINED, order=1)
MODELS = ("nide", "ode", "timed")
LEARNED = tuple(f"{system}, {model}" for system in SYSTEMS for model in MODELS)


@dataclass(frozen=True, kw_only=True)
class NideScale(Scale):
    """Sizes of the experiment."""

    panels: Annotated[int, "panels of 8 Gauss-Legendre nodes, known solutions"] = 12
    coarse: Annotated[int, "panels of 8 Gauss-Legendre nodes, learning"] = 4
    end: Annotated[float, "time at which the trajectories to learn end"] = 6.0
    train: Annotated[int, "trajectories to learn from"] = 64
    test: Annotated[int, "held-out trajectories"] = 100
    hidden: Annotated[int, "units of both hidden layers of every network"] = 24
    batch: Annotated[int, "trajectories a step"] = 16
    met: Annotated[int, "steps of Adam on the residual of the equation at the known trajectories"] = 2000
    settled: Annotated[int, "steps of Adam through the settled trajectory, afterwards"] = 12
    lr: Annotated[float, "learning rate at the start of the former; a tenth of it for the latter"] = 1e-2
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class Nide(Experiment):
    """Known equations with their certificates; two systems with memory learned with and without an integral."""

    id = "nide"
    title = "Integro-differential equations: known solutions, and memory learned from trajectories"
    claim = (
        "Solved for all times at once, integro-differential equations with known solutions are met to 1e-8 and better; "
        "and where a system has memory, c, d, K and F learned from its trajectories predict others better than a "
        "neural ODE with the same c and the same training, and than one that sees the time and has as many parameters."
    )
    source = "Zappala et al. (2023), neural integro-differential equations; systems generated anew"
    scales = {
        "smoke": NideScale(train=8, test=8, hidden=8, batch=8, met=10, settled=1, thresholds=False),
        "cpu": NideScale(seeds=3),
        "paper": NideScale(seeds=10, train=512, test=1000, hidden=64, batch=64, met=10_000, settled=1000),
    }
    scaled_down = {
        "smoke": "8 training trajectories, 11 steps",
        "cpu": "64 training trajectories instead of 512, 24 units instead of 64, 2012 steps instead of 11000, 3 seeds",
    }
    tables = (
        Table(
            "Equations with known solutions",
            (
                Column("error", "Relative error", fmt=".1e", better="low"),
                Column("residual", "Residual", fmt=".1e"),
                Column("picard evals", "Evaluations, Picard", fmt=".0f"),
                Column("anderson evals", "Evaluations, Anderson(5)", fmt=".0f"),
                Column("proved", "Proved", "%", ".0f"),
                Column("rate", "Rate", fmt=".3f"),
                Column("radius", "Radius", fmt=".1e"),
                Column("distance", "Distance at the nodes", fmt=".1e"),
            ),
            rows=tuple(EXACT),
            caption="sinh: y' = 1 + int y, on [0, 2]. cos: y' = -int y, on [0, 10]. fading: y' = -y + e^{-2t} "
            "(1 - e^{-t}) - y int e^{-(t-s)} y^2, whose solution is e^{-t}, on [0, 4]. error: largest deviation at 201 "
            "even times, by interpolation between the nodes, over the largest value. residual, distance: of Picard's "
            "answer, or Anderson's where Picard did not settle (nan evaluations), in L2 over its norm; radius "
            "likewise, for the equation on the nodes. rate: the Perron root of NIDE.table for the linear ones, the "
            "contraction factor of Kantorovich's Newton map for the last, whose slope has no constant for all y.",
        ),
        Table(
            "Learned from trajectories",
            (
                Column("error", "Held-out error", "%", ".2f", better="low"),
                Column("slope error", "Slope error", "%", ".1f", better="low"),
                Column("persistence", "y = y(0)", "%", ".1f"),
                Column("mean", "Mean trajectory", "%", ".1f"),
                Column("floor", "True equation", "%", ".4f"),
                Column("settled", "Settled", "%", ".0f"),
                Column("parameters", "Parameters", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            rows=LEARNED,
            caption="Starts drawn evenly, trajectories by scipy.integrate.solve_ivp. nide: c(y), d(y), K(t - s), F(y); "
            "ode: the same c(y) alone; timed: c(t, y) alone, which may stand for memory of a common beginning, with "
            "as many parameters as nide. The same training for all. error: in L2 over time and components, mean "
            "over held-out trajectories. slope error: of dy/dt along the true ones. true equation: the system itself "
            "on these nodes, what the quadrature leaves.",
        ),
    )
    figures = (
        Figure("Convergence", ("residual",), "Picard on the equations with known solutions.", rows=tuple(EXACT)),
        Figure("Error over time", ("error over time",), "Mean distance of held-out trajectories.", rows=LEARNED),
    )

    def cells(self, scale: NideScale) -> Sequence[str]:
        return (*EXACT, *LEARNED)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        return exact(cell, context.scale) if cell in EXACT else trained(cell, seed, context)

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        mean = results.mean
        fitted = replace(results, records=[record for record in results.records if record.cell in LEARNED])
        return [
            *(Check.at_most(f"{cell}: relative error", mean(cell, "error"), 1e-5) for cell in EXACT),
            *(
                Check.at_most(f"{cell}: distance over the proved radius", mean(cell, "distance over radius"), 1.0)
                for cell in EXACT
            ),
            *above_trivial(fitted, "error", "persistence", predictor="start", lower=True),
            *above_trivial(fitted, "error", "mean", predictor="mean trajectory", lower=True),
            *(
                Check.at_most(f"{name}, nide: error over that of {other}", against(results, name, other), 1.0)
                for name in SYSTEMS
                for other in ("ode", "timed")
            ),
        ]


def against(results: Results, system: str, other: str) -> float:
    """The error of the NIDE over that of a neural ODE."""
    return results.mean(f"{system}, nide", "error") / results.mean(f"{system}, {other}", "error")


def exact(cell: str, scale: NideScale) -> dict[str, Any]:
    """One equation whose solution is known."""
    problem = EXACT[cell]()
    rule = gauss_legendre(8, 0.0, problem.end, panels=scale.panels)
    model = NIDE(problem.operator, rule)
    eq, start = model.posed(torch.full((1, 1), problem.start, dtype=torch.float64))
    picard, anderson = (solve(eq, start, solver, STOP, trace=True) for solver in (Picard(), Anderson(5)))
    answer = picard if bool(picard.converged) else anderson
    y = answer.value
    assert isinstance(y, Tensor)
    assert picard.trace is not None
    times, proof = torch.linspace(0, problem.end, 201, dtype=torch.float64), certified(problem, model, eq, y)
    wanted = problem.exact(times)
    norm = lambda v: float((rule.weights * v.square()).sum().sqrt())  # noqa: E731
    distance, size = norm(y[0, :, 0] - problem.exact(rule.nodes)), norm(y[0, :, 0])
    metrics = {
        "error": float((rule.at(y, times)[0, :, 0] - wanted).abs().max() / wanted.abs().max()),
        "residual": float(answer.residual) / size, "distance": distance / size, "radius": float(proof.radius) / size,
        "distance over radius": distance / float(proof.radius), "proved": 100.0 * float(proof.proved),
        "rate": float(proof.rate), "evals": float(answer.evals.sum()),
        **{f"{name} evals": float(s.evals.sum()) if bool(s.converged) else float("nan")
           for name, s in (("picard", picard), ("anderson", anderson))},
    }  # fmt: skip
    residual = picard.trace.residual[:, 0].tolist()
    line = curve(range(1, len(residual) + 1), residual, log_y=True, group=cell)
    return outcome(metrics, {"residual": line}, (problem.formula, proof.reason[0]))


def certified(problem: Exact, model: NIDE, eq: Equation, y: Tensor) -> Certificate:
    """Node by node where the constants hold for all y, else by Kantorovich, in the 2-norm and then brought to L2."""
    if problem.slope is not None:
        return nodewise(eq, y, model.table(problem.slope, problem.memory))
    found = kantorovich(replace(eq, space=Rows()), y)
    return replace(found, radius=found.radius * float(model.rule.weights.max()) ** 0.5)


def trained(cell: str, seed: int, context: Context) -> dict[str, Any]:
    """One system by one model, and what it says of other trajectories."""
    scale: NideScale = context.scale
    name, kind = cell.split(", ")
    system, rule = SYSTEMS[name](), gauss_legendre(8, 0.0, scale.end, panels=scale.coarse)
    draw = generator_from("nide", name, seed)
    (start, y), (new, wanted) = (system.trajectories(count, rule, draw) for count in (scale.train, scale.test))
    with seeded("nide", kind, seed):
        model = NIDE(operator_of(kind, scale.hidden).double(), rule, solver=NewtonKrylov(), stop=SERVED)
    context.progress("learning")
    seconds = learned(model, start, y, scale, generator_from("nide", "order", seed))
    with torch.no_grad():
        found = model(new)
        slopes = [operator.slope(wanted, rule) for operator in (model.operator, system.operator)]
        true = NIDE(system.operator, rule, solver=NewtonKrylov(), stop=SERVED)(new)
    last = model.settle.last
    assert last is not None
    metrics = {
        "error": relative(found, wanted), "slope error": relative(*slopes),
        "persistence": relative(new[:, None].expand_as(wanted), wanted),
        "mean": relative(y.mean(0).expand_as(wanted), wanted), "floor": relative(true, wanted),
        "settled": 100 * float(last.converged.double().mean()), "training seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()), "evals": float(last.evals.double().mean()),
    }  # fmt: skip
    away = torch.linalg.vector_norm(found - wanted, dim=2).mean(0)
    line = curve(rule.nodes.tolist(), away.tolist(), x_label="t", y_label="distance", log_y=True, group=cell)
    return outcome(metrics, {"error over time": line})


def learned(model: NIDE, start: Tensor, y: Tensor, scale: NideScale, draw: torch.Generator) -> float:
    """First the equation is met at the known trajectories, then its settled trajectory is brought to them; CPU s."""
    rule: Quadrature = model.rule
    operator: MemoryOperator = model.operator
    share = y.square().mean()

    def met(rows: Tensor) -> Tensor:
        return (start[rows][:, None] + operator(y[rows], rule) - y[rows]).square().mean() / share

    def settled(rows: Tensor) -> Tensor:
        return (model(start[rows]) - y[rows]).square().mean() / share

    served, model.settle.stop, model.settle.adjoint = model.settle.stop, TRAINED, BACKWARD
    each = ((scale.met, met, scale.lr), (scale.settled, settled, scale.lr / 10))
    seconds = sum(fit(f, model, len(y), steps=n, batch=scale.batch, lr=lr, draw=draw) for n, f, lr in each)
    model.settle.stop, model.settle.adjoint = served, None
    return seconds


EXPERIMENT = Nide()
