"""Every solver against what a user would take instead: evaluations, CPU time, and whether its claims are true."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch

from settlepoint.experiments.cells import HONEST, TIMED, Problem, true_claims
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Scale,
    Table,
    curve,
    outcome,
)
from settlepoint.experiments.peers import PEERS, Answer, Peer, required
from settlepoint.runs import generator_from
from settlepoint.solve import solve
from settlepoint.solvers import (
    Aitken,
    Anderson,
    Auto,
    Broyden,
    Chebyshev,
    Halpern,
    Mann,
    NewtonKrylov,
    Picard,
    Safeguarded,
    Solver,
)

OURS: Mapping[str, Callable[[], Solver]] = {
    "Picard": Picard,
    "Picard(damping=.5)": partial(Picard, 0.5),
    "Mann 1/(k+2)": lambda: Mann(lambda k: 1 / (k + 2)),
    "Halpern": Halpern,
    "Aitken": Aitken,
    "Chebyshev(-.99, .99)": partial(Chebyshev, -0.99, 0.99),
    "Anderson(5)": Anderson,
    "Anderson(5, damping=.5)": partial(Anderson, 5, 0.5),
    "Broyden": Broyden,
    "NewtonKrylov": NewtonKrylov,
    "Safeguarded(Anderson, Picard)": lambda: Safeguarded(Anderson(), Picard()),
    "Auto": Auto,
}


@dataclass(frozen=True, kw_only=True)
class SolversScale(Scale):
    """Which problems, and how often each is timed."""

    timed: Annotated[tuple[str, ...], "problems that are timed"] = tuple(TIMED)
    honest: Annotated[tuple[str, ...], "problems on which claims are checked"] = tuple(HONEST)
    repeats: Annotated[int, "runs of a timed problem; the fastest counts"] = 3
    peers: Annotated[bool, "whether torchdeq, SciPy and plain loops run too"] = True


class Solvers(Experiment):
    """Rows of the tables are solvers, columns are problems."""

    id = "solvers"
    title = "Solvers: evaluations, seconds, and honest claims"
    claim = "No row is called converged whose true residual says otherwise, at fewer evaluations than plain iteration."
    source = "anchors measured against torchdeq, SciPy and plain loops"
    needs: ClassVar = (lambda context: required() if context.scale.peers else None,)
    scales: ClassVar = {
        "smoke": SolversScale(seeds=1, timed=("B64 D64 .9",), honest=("mixed", "rotation", "escape"), repeats=2),
        "cpu": SolversScale(seeds=1),
        "paper": SolversScale(seeds=5, repeats=10),
    }
    scaled_down: ClassVar = {"smoke": "one anchor of four, three of twelve problems of doubt, each timed once"}
    tables: ClassVar = (
        Table(
            "Evaluations of the slowest row to a relative 1e-6",
            [Column(f"evals {name}", name, fmt=".0f", better="low") for name in TIMED],
            caption="Calls of P the slowest row took part in; inf where some row of the problem was not solved. "
            "torchdeq and SciPy stop the batch as a whole. Chebyshev is told the interval, which no other method is.",
        ),
        Table(
            "CPU time to a relative 1e-6",
            [Column(f"ms {name}", name, "ms", fmt=".3g", better="low") for name in TIMED],
            caption="Process time of one solve on one thread, the fastest of the repeats.",
        ),
        Table(
            "Claims of convergence re-checked in float64",
            [
                Column("rows", "rows solved for", fmt=".0f"),
                Column("claimed", "claimed converged", fmt=".0f"),
                Column("false", "false claims", fmt=".0f", better="low"),
                Column("evals", "row-evaluations", fmt=".0f"),
            ],
            caption="Over all problems of both kinds. False: claimed, but ||P(x)-x|| exceeds atol + rtol ||P(x)|| + "
            "8 eps (||x|| + ||P(x)||). Some problems have no fixed point, or none within the reach of their precision.",
        ),
    )
    figures = (
        Figure("Residual against evaluations, B64 D64 .99", ("residual",), "Median over the rows; 2-norm, absolute."),
    )

    def cells(self, scale: SolversScale) -> tuple[str, ...]:
        return (*OURS, *(PEERS if scale.peers else ()))

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        scale: SolversScale = context.scale
        metrics: dict[str, float] = {"rows": 0, "claimed": 0, "false": 0, "evals": 0}
        notes, curves = [], {}
        problems = {**{n: TIMED[n] for n in scale.timed}, **{n: HONEST[n] for n in scale.honest}}
        for name, make in problems.items():
            context.progress(f"{cell} on {name}")
            problem = make(generator_from("solvers", name, seed))
            repeats = scale.repeats if name in TIMED else 1
            answer, seconds, note = _solved(cell, problem, repeats)
            notes += [f"{name}: {text}" for text in note]
            _count(metrics, problem, answer)
            if name in TIMED:
                metrics[f"evals {name}"] = float(answer.calls) if bool(answer.claimed.all()) else float("inf")
                metrics[f"ms {name}"] = 1e3 * seconds
        if cell in OURS and "B64 D64 .99" in scale.timed:
            curves["residual"] = _course(cell, TIMED["B64 D64 .99"](generator_from("solvers", "B64 D64 .99", seed)))
        return outcome(metrics, curves, notes)

    def checks(self, results: Results) -> tuple[Check, ...]:
        ours = [cell for cell in results.cells if cell in OURS]
        false = sum(sum(results.values(cell, "false")) for cell in ours)
        claimed = sum(sum(results.values(cell, "claimed")) for cell in ours)
        honest = Check.at_most("false claims of convergence, ours", false, 0, f"among {claimed:.0f} claims")
        some = Check.at_least(
            "claims of convergence, ours", claimed, 1, "a solver that claims nothing is not honest but idle"
        )
        checks = [honest, some]
        for name in results.scale.timed:
            key = f"evals {name}"
            ratio = results.mean("Anderson(5)", key) / results.mean("Picard", key)
            checks.append(Check.at_most(f"Anderson over Picard, evaluations, {name}", ratio, 1.1))
        return tuple(checks)


def _solved(cell: str, problem: Problem, repeats: int) -> tuple[Answer, float, tuple[str, ...]]:
    """The answer of one contender, its least process time, and what it has to say."""
    best, notes = float("inf"), ()
    answer: Answer | None = None
    for _ in range(repeats):
        begin = time.process_time()
        with torch.no_grad():
            answer, notes = _ours(cell, problem) if cell in OURS else (_peer(PEERS[cell], problem), ())
        best = min(best, time.process_time() - begin)
    assert answer is not None
    return answer, best, notes


def _ours(cell: str, problem: Problem) -> tuple[Answer, tuple[str, ...]]:
    solution = solve(problem.equation(), problem.x0, OURS[cell](), problem.stop)
    assert isinstance(solution.value, torch.Tensor)
    return Answer(solution.value, int(solution.evals.max()), solution.converged), solution.notes


def _peer(peer: Peer, problem: Problem) -> Answer:
    """The peer's answer; one that raises has claimed nothing."""
    try:
        return peer(problem)
    except (RuntimeError, ValueError, ArithmeticError):
        return Answer(problem.x0, 0, torch.zeros(len(problem.x0), dtype=torch.bool))


def _count(metrics: dict[str, float], problem: Problem, answer: Answer) -> None:
    true = true_claims(problem, answer.value, problem.stop)
    metrics["rows"] += len(problem.x0)
    metrics["claimed"] += int(answer.claimed.sum())
    metrics["false"] += int((answer.claimed & ~true).sum())
    metrics["evals"] += answer.calls * len(problem.x0)


def _course(cell: str, problem: Problem) -> dict[str, Any]:
    """Median residual over the rows against evaluations, of at most 400 looks."""
    stop = replace(problem.stop, max_steps=1500)
    with torch.no_grad():
        trace = solve(problem.equation(), problem.x0, OURS[cell](), stop, trace=True, compact=False).trace
    assert trace is not None
    every = max(1, len(trace.residual) // 400)
    y = trace.residual.nanmedian(1).values[::every]
    x = trace.evals.double().median(1).values[::every]
    return curve(x.tolist(), y.tolist(), y_label="residual, 2-norm", log_y=True, group=cell)


EXPERIMENT = Solvers()
