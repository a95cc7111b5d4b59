"""nie: integral equations with known solutions, and a kernel learned from solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from settlepoint import Anderson, Picard, Solution, Tolerance, solve
from settlepoint.certify import kantorovich, nodewise
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
from settlepoint.experiments.integral_fit import relative
from settlepoint.experiments.nie_kernel import SERVED, Network, kernel_error, learned, linear_kernel, samples
from settlepoint.experiments.nie_problems import PROBLEMS, Known, growing
from settlepoint.layers import IntegralOperator, RandomNodes, gauss_legendre
from settlepoint.models import NIE
from settlepoint.runs import generator_from, seeded
from settlepoint.spaces import Rows

STOP = Tolerance(1e-13, 1e-13, max_steps=400, growth=1e12, window=400)
ORDER = 12  # Gauss-Legendre nodes a panel
SWEPT = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
LEARNED, SWEEP = ("kernel, residual", "kernel, solution"), "volterra constants"


@dataclass(frozen=True, kw_only=True)
class NieScale(Scale):
    """Sizes of the experiment."""

    nodes: Annotated[int, "Gauss-Legendre nodes of a Fredholm equation, and of the learned one"] = 16
    panels: Annotated[int, "panels of 12 Gauss-Legendre nodes of a Volterra equation"] = 16
    drawn: Annotated[int, "random nodes"] = 400
    train: Annotated[int, "solutions to learn the kernel from"] = 64
    test: Annotated[int, "held-out solutions"] = 200
    hidden: Annotated[int, "units of both hidden layers of the kernel"] = 32
    batch: Annotated[int, "solutions a step"] = 16
    met: Annotated[int, "steps of Adam on the residual of the equation at the known solutions"] = 1500
    settled: Annotated[int, "steps of Adam through the settled solution, each as dear as about 10 of the others"] = 60
    lr: Annotated[float, "learning rate at the start of the former; a tenth of it for the latter"] = 5e-3
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


class Nie(Experiment):
    """Each known equation by Picard and by Anderson(5), with its certificate; and a kernel learned from solutions."""

    id = "nie"
    title = "Integral equations: known solutions, certified, and a learned kernel"
    claim = (
        "On the nodes of a Gauss-Legendre rule linear and nonlinear integral equations are solved to 1e-10 and better, "
        "with a proved radius wherever the equation contracts node by node, Volterra equations for any constant; and "
        "a kernel is found from 64 solutions well enough to solve for right-hand sides it has not seen."
    )
    source = "Zappala et al. (2024), neural integral equations; equations with known solutions, generated anew"
    scales = {
        "smoke": NieScale(
            panels=8, drawn=50, train=8, test=8, hidden=8, batch=8, met=20, settled=1, thresholds=False
        ),
        "cpu": NieScale(seeds=3),
        "paper": NieScale(seeds=10, train=512, test=1000, hidden=64, batch=64, met=10_000, settled=500, drawn=2000),
    }  # fmt: skip
    scaled_down = {
        "smoke": "8 training solutions, 20 steps, 8 panels instead of 16",
        "cpu": "64 training solutions instead of 512, 32 units instead of 64, 1500 steps instead of 10000, 3 seeds",
    }
    tables = (
        Table(
            "Equations with known solutions",
            (
                Column("error", "Relative error", fmt=".1e", better="low"),
                Column("residual", "Residual", fmt=".1e"),
                Column("picard evals", "Evaluations, Picard", fmt=".0f"),
                Column("anderson evals", "Evaluations, Anderson(5)", fmt=".0f"),
                Column("rate", "Perron root", fmt=".3f"),
                Column("proved", "Proved", "%", ".0f"),
                Column("radius", "Radius", fmt=".1e"),
                Column("distance", "Distance at the nodes", fmt=".1e"),
            ),
            rows=tuple(PROBLEMS),
            caption="error: largest deviation from the solution at 201 even times, by interpolation between the nodes, "
            "over its largest value. residual, radius, distance: in L2 over the norm of the answer, which is Picard's, "
            "or Anderson's where Picard did not settle (nan evaluations). radius bounds the distance to the solution "
            "on the nodes; distance is that to the solution of the equation, at the nodes, except for random nodes, "
            "where it is that to the fixed point of the sample, since their error is that of the sample. Residuals to "
            "1e-13, absolute and relative; float64. Hammerstein and Urysohn against scipy.optimize.root on 80 other "
            "nodes.",
        ),
        Table(
            "A kernel learned from solutions",
            (
                Column("kernel error", "Kernel error", "%", ".1f", better="low"),
                Column("solution error", "Held-out solution error", "%", ".2f", better="low"),
                Column("linear", "By a linear kernel", "%", ".2f"),
                Column("untrained", "Before training", "%", ".1f"),
                Column("no integral", "y = f", "%", ".1f"),
                Column("mean", "Mean solution", "%", ".1f"),
                Column("settled", "Settled", "%", ".0f"),
                Column("proved", "Proved", "%", ".0f"),
                Column("radius", "Largest radius", fmt=".1e"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            rows=LEARNED,
            caption="G = exp(-4 (t - s)^2) tanh y from pairs (f, y), by a network that vanishes at y = 0. residual: "
            "trained for ||f + T(y) - y|| at the known y alone; solution: as many evaluations, about, the last ones on "
            "the settled answer and its gradient. Errors relative in L2, the kernel's over all t, s and the values "
            "that held-out solutions take. linear kernel: y = f + M y by least squares, on the same pairs. proved: "
            "held-out answers with a Kantorovich proof.",
        ),
    )
    figures = (
        Figure("Convergence", ("residual",), "Picard on each equation.", rows=tuple(PROBLEMS)),
        Figure(
            "Evaluations against the constant", ("picard", "anderson", "factorial"),
            "y = 1 + c int y: evaluations to a relative residual of 1e-13, and the k of c^k / k! = 1e-13 e^c.",
            rows=(SWEEP,),
        ),
    )  # fmt: skip

    def cells(self, scale: NieScale) -> Sequence[str]:
        return (*PROBLEMS, SWEEP, *LEARNED)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        if cell in LEARNED:
            return kernel(cell, seed, context)
        return swept(context.scale) if cell == SWEEP else known(cell, seed, context.scale)

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        mean = results.mean
        fixed = [cell for cell in PROBLEMS if cell != "random nodes"]
        return [
            *(Check.at_most(f"{cell}: relative error", mean(cell, "error"), 1e-6) for cell in fixed),
            *(
                Check.at_most(f"{cell}: distance over the proved radius", mean(cell, "distance over radius"), 1.0)
                for cell in PROBLEMS
                if cell != "fredholm beyond"
            ),
            Check.at_most("fredholm beyond: proved (%), since it expands", mean("fredholm beyond", "proved"), 0.0),
            *above_trivial(results, "solution error", "no integral", predictor="right-hand side", lower=True),
            *above_trivial(results, "solution error", "mean", predictor="mean solution", lower=True),
            *above_trivial(results, "solution error", "linear", predictor="linear kernel", lower=True),
            *above_trivial(results, "kernel error", 100.0, predictor="kernel 0", lower=True),
        ]


def known(cell: str, seed: int, scale: NieScale) -> dict[str, Any]:
    """One equation whose solution is known."""
    problem = PROBLEMS[cell]()
    model = NIE(problem.operator, rule_of(cell, problem, scale, seed))
    eq, start = model.posed(problem.forcing)
    picard, anderson = (solve(eq, start, solver, STOP, trace=True) for solver in (Picard(), Anderson(5)))
    answer = picard if bool(picard.converged) else anderson
    metrics = measured(problem, model, eq, answer)
    metrics |= {"picard evals": taken(picard), "anderson evals": taken(anderson), "evals": float(answer.evals.sum())}
    residual = picard.trace.residual[:, 0]  # type: ignore[union-attr]
    lines = {"residual": curve(range(1, len(residual) + 1), residual.tolist(), log_y=True, group=cell)}
    return outcome(metrics, lines, (problem.formula,))


def rule_of(cell: str, problem: Known, scale: NieScale, seed: int):
    """The quadrature of a cell."""
    if cell == "random nodes":
        return RandomNodes(scale.drawn, 0.0, problem.end, generator_from("nie", cell, seed))
    if problem.volterra:
        return gauss_legendre(ORDER, 0.0, problem.end, panels=scale.panels)
    return gauss_legendre(scale.nodes, 0.0, problem.end)


def measured(problem: Known, model: NIE, eq: Equation, answer: Solution) -> dict[str, float]:
    """The errors of an answer, and its certificate."""
    rule, y = model.held, answer.value
    assert rule is not None
    assert isinstance(y, Tensor)
    times = torch.linspace(0, problem.end, 201, dtype=torch.float64)
    exact, t = problem.exact(times), rule.nodes
    there = problem.exact(t) if not isinstance(model.rule, RandomNodes) else problem.settled(t, rule.weights)  # type: ignore[misc]
    found = nodewise(eq, y, model.table(problem.bound(t[:, None], t)))
    norm = lambda v: float((rule.weights * v.square()).sum().sqrt())  # noqa: E731
    size, distance = norm(y[0, :, 0]), norm(y[0, :, 0] - there)
    return {
        "error": float((rule.at(y, times)[0, :, 0] - exact).abs().max() / exact.abs().max()),
        "residual": float(answer.residual) / size, "rate": float(found.rate), "proved": 100.0 * float(found.proved),
        "radius": float(found.radius) / size, "distance": distance / size,
        "distance over radius": distance / float(found.radius),
    }  # fmt: skip


def taken(solution: Solution) -> float:
    """Evaluations until it settled, nan where it did not."""
    return float(solution.evals[0]) if bool(solution.converged) else float("nan")


def swept(scale: NieScale) -> dict[str, Any]:
    """y = 1 + c int_0^t y ds for growing c."""
    rule, lines = gauss_legendre(ORDER, 0.0, 1.0, panels=scale.panels), {}
    for name, solver in (("picard", Picard()), ("anderson", Anderson(5))):
        counts = []
        for c in SWEPT:
            problem = growing(c)
            eq, start = NIE(problem.operator, rule).posed(problem.forcing)
            counts.append(taken(solve(eq, start, solver, replace(STOP, atol=0.0))))
        lines[name] = counts
    lines["factorial"] = [factorial_count(c, STOP.rtol) for c in SWEPT]
    metrics = {f"{name} at {c:g}": found[i] for name, found in lines.items() for i, c in enumerate(SWEPT)}
    evals = sum(v for name in ("picard", "anderson") for v in lines[name])
    return outcome(
        metrics | {"evals": evals},
        {n: curve(SWEPT, v, x_label="c", y_label="evaluations", group=n) for n, v in lines.items()},
    )


def factorial_count(c: float, tolerance: float) -> float:
    """The first k with c^k / k! <= tolerance e^c: the size of the k-th step over that of the solution."""
    term, k, size = 1.0, 0, float(torch.tensor(c, dtype=torch.float64).exp())
    while term > tolerance * size or k < c:
        k += 1
        term *= c / k
    return float(k)


def kernel(cell: str, seed: int, context: Context) -> dict[str, Any]:
    """A kernel learned from solutions, and what it says of others."""
    scale: NieScale = context.scale
    phases = (scale.met, 0) if cell == LEARNED[0] else (max(0, scale.met - 10 * scale.settled), scale.settled)
    rule, draw = gauss_legendre(scale.nodes), generator_from("nie", "samples", seed)
    train, test = (samples(n, rule, draw, gauss_legendre(2 * scale.nodes)) for n in (scale.train, scale.test))
    with seeded("nie", "weights", seed):
        network = Network(scale.hidden).double()
    model = NIE(IntegralOperator(network), rule, solver=Anderson(5), stop=SERVED)
    with torch.no_grad():
        untrained = relative(model(test.f), test.y)
    context.progress("learning")
    order = generator_from("nie", "order", seed)
    seconds = learned(model, train, phases, scale.batch, scale.lr, order)
    with torch.no_grad():
        y = model(test.f)
    last = model.settle.last
    assert last is not None
    eq, _ = model.posed(test.f)
    proof = kantorovich(replace(eq, space=Rows()), y)
    metrics = {
        "kernel error": kernel_error(network, test, rule), "solution error": relative(y, test.y),
        "linear": relative(linear_kernel(train, test), test.y), "untrained": untrained,
        "no integral": relative(test.f, test.y), "mean": relative(train.y.mean(0).expand_as(test.y), test.y),
        "settled": 100 * float(last.converged.double().mean()), "training seconds": seconds,
        "proved": 100 * float(proof.proved.double().mean()), "radius": float(proof.radius.max()),
        "evals": float(last.evals.double().mean()),
    }  # fmt: skip
    return outcome(metrics, notes=tuple(dict.fromkeys(proof.reason))[:1])


EXPERIMENT = Nie()
