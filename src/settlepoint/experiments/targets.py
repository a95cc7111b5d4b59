"""The rows of the target table: each measures ours and a peer in one process and stands beside the number promised."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.adjoints import Adjoint, Implicit, Unrolled
from settlepoint.equation import Equation
from settlepoint.experiments.cells import Make, Problem, affine, mixed, symmetric
from settlepoint.experiments.certify_bench import CERTIFICATES
from settlepoint.experiments.chains_bench import CHAINS
from settlepoint.experiments.field_bench import FIELDS
from settlepoint.experiments.graph_bench import GRAPHS
from settlepoint.experiments.learned_bench import LEARNED
from settlepoint.experiments.measuring import Measure, alone, cpu_seconds, peak
from settlepoint.experiments.peers import Peer, plain_loop, scipy_newton_krylov, torchdeq
from settlepoint.runs import generator_from
from settlepoint.solution import Solution
from settlepoint.solve import solve
from settlepoint.solvers import Aitken, Anderson, Auto, Broyden, NewtonKrylov, Picard, Solver
from settlepoint.stop import Tolerance

Variants = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Row:
    """measure(repeats) -> (ours, peer). better: "low" or "high". target: None prints a cost without a check."""

    measure: Measure
    target: float | None
    peer: str
    better: str = "low"


def problem(make: Make, seed: int = 0) -> Problem:
    """The problem of a seed."""
    return make(generator_from("bench", seed))


def ours(p: Problem, solver: Solver, *, trace: bool = False) -> Solution:
    """Our answer, without gradients."""
    with torch.no_grad():
        return solve(p.equation(), p.x0, solver, p.stop, trace=trace)


def timed(variants: Variants, repeats: int) -> dict[str, list[float]]:
    """Process seconds of every variant, warmed up once and interleaved."""
    for call in variants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, call in variants.items():
            begin = time.process_time()
            call()
            seconds[name].append(time.process_time() - begin)
    return seconds


def bookkeeping(every: int = 1, relative: bool = False) -> Measure:
    """Microseconds an iteration over the bare operator, 500 iterations that nobody finishes, trace on."""

    def measure(repeats: int) -> tuple[float, float]:
        tolerance = Tolerance(0.0 if relative else 1e-12, 1e-12 if relative else 0.0, max_steps=500, every=every)
        p = problem(affine(64, 64, 0.999, stop=tolerance))
        peer = torchdeq("fixed_point_iter")

        def bare() -> None:
            x = p.x0
            for _ in range(500):
                x = p.whole(x)

        variants = {"ours": lambda: ours(p, Picard(), trace=True), "peer": lambda: peer(p), "bare": bare}
        with torch.no_grad():
            seconds = cpu_seconds(variants, repeats)
        return tuple(1e6 * (seconds[name] - seconds["bare"]) / 500 for name in ("ours", "peer"))  # type: ignore[return-value]

    return measure


def bookkeeping_ratio(repeats: int) -> tuple[float, float]:
    """torchdeq's bookkeeping over ours."""
    mine, peer = bookkeeping()(repeats)
    return peer / mine, 1.0


def equivalents(solver: Callable[[], Solver], peer: str) -> Measure:
    """Row-evaluations over rows on the mixed batch, 1,024 rows of 64 unknowns."""

    def measure(repeats: int) -> tuple[float, float]:
        p = problem(mixed(1024, 64))
        solution = ours(p, solver())
        assert bool(solution.converged.all())
        with torch.no_grad():
            return solution.work / 1024, float(torchdeq(peer)(p).calls)

    return measure


def speed(solver: Callable[[], Solver], peer: str, repeats_at_most: int) -> Measure:
    """torchdeq's process time over ours on the mixed batch."""

    def measure(repeats: int) -> tuple[float, float]:
        p, other = problem(mixed(1024, 64)), torchdeq(peer)
        variants = {"ours": lambda: ours(p, solver()), "peer": lambda: other(p)}
        with torch.no_grad():
            seconds = cpu_seconds(variants, min(repeats, repeats_at_most))
        return seconds["peer"] / seconds["ours"], 1.0

    return measure


def evaluations(make: Make, solver: Solver, peer: Callable[[Problem], float]) -> Measure:
    """Evaluations of the slowest row; inf when one was not solved."""

    def measure(repeats: int) -> tuple[float, float]:
        p = problem(make)
        solution = ours(p, solver)
        count = float(solution.evals.max()) if bool(solution.converged.all()) else float("inf")
        with torch.no_grad():
            return count, peer(p)

    return measure


def scaling(repeats: int) -> tuple[float, float]:
    """Largest change of Anderson's evaluations when the problem is scaled by 1e-6 and 1e6; torchdeq's beside it."""
    counts = {}
    for size in (1.0, 1e-6, 1e6):
        for radius in (0.9, 0.99):
            p = problem(affine(64, 64, radius, size=size))
            with torch.no_grad():
                counts[size, radius] = (int(ours(p, Anderson()).evals.max()), torchdeq("anderson")(p).calls)
    gaps = [[abs(counts[s, r][i] - counts[1.0, r][i]) for s in (1e-6, 1e6) for r in (0.9, 0.99)] for i in (0, 1)]
    return float(max(gaps[0])), float(max(gaps[1]))


def over_picard(repeats: int) -> tuple[float, float]:
    """Largest ratio of Anderson's to Picard's evaluations over the anchors; torchdeq's beside it."""
    ratios = []
    for rows, unknowns, radius in ((1, 64, 0.9), (64, 64, 0.9), (64, 64, 0.99)):
        p = problem(affine(rows, unknowns, radius))
        picard = int(ours(p, Picard()).evals.max())
        with torch.no_grad():
            ratios.append((int(ours(p, Anderson()).evals.max()) / picard, torchdeq("anderson")(p).calls / picard))
    return max(r for r, _ in ratios), max(r for _, r in ratios)


def gradient(radius: float, *, ift: bool = False, budget: int = 40) -> Measure:
    """Relative error of dL/dW at tolerance 1e-6, in units of 10 tol / (1 - rho), against a dense solve."""

    def measure(repeats: int) -> tuple[float, float]:
        generator = generator_from("bench", "gradient", radius)
        matrix = symmetric(generator, 64, radius)
        u, g = (torch.randn(16, 64, generator=generator, dtype=torch.float64) for _ in range(2))
        exact = _exact_gradient(matrix, u, g)
        bound = 10 * 1e-6 / (1 - radius)
        errors = [
            float((_gradient(run, matrix, u, g) - exact).norm() / exact.norm()) / bound
            for run in (_our_state, lambda w, u: _peer_state(w, u, ift, budget))
        ]
        return errors[0], errors[1]

    return measure


def _exact_gradient(matrix: Tensor, u: Tensor, g: Tensor) -> Tensor:
    """dL/dW of L = sum(g * x), x = x W + u, by dense solves: x^T (g (I - W)^-T)."""
    resolvent = torch.linalg.inv(torch.eye(len(matrix), dtype=matrix.dtype) - matrix)
    return (u @ resolvent).T @ (g @ resolvent.T)


def _gradient(run: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, u: Tensor, g: Tensor) -> Tensor:
    w = matrix.clone().requires_grad_()
    return torch.autograd.grad((run(w, u) * g).sum(), w)[0]


def _our_state(w: Tensor, u: Tensor) -> Tensor:
    stop = Tolerance(0.0, 1e-6, max_steps=5000)
    value = solve(Equation(lambda x, u: x @ w + u, context=(u,)), u, stop=stop).value
    assert isinstance(value, Tensor)
    return value


def _peer_state(w: Tensor, u: Tensor, ift: bool, budget: int) -> Tensor:
    from torchdeq import get_deq

    modes = {"f_stop_mode": "rel", "b_stop_mode": "rel"}
    deq = get_deq(ift=ift, f_max_iter=5000, f_tol=1e-6, b_max_iter=budget, b_tol=1e-6, **modes)
    return deq(lambda x: x @ w + u, torch.zeros_like(u))[0][-1]


def memory(repeats: int) -> tuple[float, float]:
    """Growth of the resident set in MB through one forward and backward, B64 D512 .99 float32; unrolling beside it."""
    return tuple(alone(_growth, adjoint) for adjoint in (Implicit(), Unrolled()))  # type: ignore[return-value]


def _growth(adjoint: Adjoint) -> float:
    w = symmetric(generator_from("bench", "memory"), 512, 0.99).float().requires_grad_()
    u = torch.randn(64, 512, generator=generator_from("bench", "memory u"))
    _backward(w, u, adjoint, 3)
    return peak(lambda: _backward(w, u, adjoint, 5000))


def _backward(w: Tensor, u: Tensor, adjoint: Adjoint, steps: int) -> None:
    eq = Equation(lambda x, u: x @ w + u, context=(u,))
    value = solve(eq, u, stop=Tolerance(0.0, 1e-6, max_steps=steps), adjoint=adjoint).value
    assert isinstance(value, Tensor)
    value.sum().backward()


FIXED: Mapping[str, Callable[[], Solver]] = {
    "Picard": Picard,
    "Aitken": Aitken,
    "Anderson": Anderson,
    "Broyden": Broyden,
    "NewtonKrylov": NewtonKrylov,
}


def auto(make: Make) -> Measure:
    """Median process time of Auto over that of the best fixed choice; the median choice beside it."""

    def measure(repeats: int) -> tuple[float, float]:
        p = problem(make)
        solvers = {name: make() for name, make in {**FIXED, "Auto": Auto}.items()}
        variants = {name: (lambda solver=solver: ours(p, solver)) for name, solver in solvers.items()}
        medians = {name: statistics.median(values) for name, values in timed(variants, repeats).items()}
        own, least = medians.pop("Auto"), min(medians.values())
        return own / least, statistics.median(medians.values()) / least

    return measure


def warm(solver: Solver, radius: float) -> Measure:
    """Evaluations after a change of f by 1 %, warm over cold, slowest row; Picard from the old value beside it."""

    def measure(repeats: int) -> tuple[float, float]:
        ratios = []
        for s in (solver, Picard()):
            p = problem(affine(64, 64, radius))
            f = p.x0 * (1 + 0.01 * torch.randn(p.x0.shape, generator=generator_from("bench", "warm"), dtype=p.x0.dtype))
            moved = replace(p, context=(f,))
            with torch.no_grad():
                first = solve(p.equation(), p.x0, s, p.stop, compact=False)
                cold = solve(moved.equation(), p.x0, s, p.stop, compact=False)
                again = solve(moved.equation(), None, s, p.stop, compact=False, warm=first)
            ratios.append(float(again.evals.max()) / float(cold.evals.max()))
        return ratios[0], ratios[1]

    return measure


def imports(repeats: int) -> tuple[float, float]:
    """Seconds of `import settlepoint` beyond torch, and of torch itself, in fresh interpreters."""
    clock = "time.perf_counter()"
    code = f"import time; a={clock}; import torch; b={clock}; import settlepoint; print(b-a, {clock}-b)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    times = [tuple(map(float, run.stdout.split())) for run in runs]
    return min(t[1] for t in times), min(t[0] for t in times)


def calls(peer: Peer) -> Callable[[Problem], float]:
    """Evaluations of a peer; inf when it does not claim every row."""

    def count(p: Problem) -> float:
        answer = peer(p)
        return float(answer.calls) if bool(answer.claimed.all()) else float("inf")

    return count


def _anchor(radius: float, dtype: torch.dtype = torch.float64) -> Make:
    return affine(64, 64, radius, dtype=dtype)


ROWS: Mapping[str, Row] = {
    "Picard bookkeeping over T, us": Row(bookkeeping(), 30, "torchdeq fixed_point_iter"),
    "Picard bookkeeping, torchdeq / ours": Row(bookkeeping_ratio, 4, "parity", "high"),
    "Picard bookkeeping with rtol, us": Row(bookkeeping(relative=True), None, "torchdeq fixed_point_iter"),
    "Picard bookkeeping, every=4, us": Row(bookkeeping(every=4), None, "torchdeq fixed_point_iter"),
    "Picard, mixed batch, batch equivalents": Row(equivalents(Picard, "fixed_point_iter"), 70, "torchdeq"),
    "Picard, mixed batch, torchdeq / ours in time": Row(speed(Picard, "fixed_point_iter", 5), 10, "parity", "high"),
    "Anderson evaluations at .9": Row(
        evaluations(_anchor(0.9), Anderson(), calls(plain_loop)), 50, "plain Picard loop"
    ),
    "Anderson evaluations at .99": Row(
        evaluations(_anchor(0.99), Anderson(), calls(plain_loop)), 300, "plain Picard loop"
    ),
    "Anderson evaluations, change when scaled by 1e+-6": Row(scaling, 2, "torchdeq anderson"),
    "Anderson over Picard evaluations, worst anchor": Row(over_picard, 1.1, "torchdeq anderson"),
    "Anderson, mixed batch, batch equivalents": Row(equivalents(Anderson, "anderson"), 30, "torchdeq anderson"),
    "Anderson, mixed batch, torchdeq / ours in time": Row(speed(Anderson, "anderson", 1), 60, "parity", "high"),
    "Newton-Krylov evaluations at .99, float64": Row(
        evaluations(_anchor(0.99), NewtonKrylov(), calls(scipy_newton_krylov)), 70, "scipy"
    ),
    "Newton-Krylov evaluations at .99, float32": Row(
        evaluations(_anchor(0.99, torch.float32), NewtonKrylov(), calls(scipy_newton_krylov)), 70, "scipy"
    ),
    "gradient error / (10 tol/(1-rho)) at .9": Row(gradient(0.9), 1, "torchdeq default"),
    "gradient error / (10 tol/(1-rho)) at .99": Row(gradient(0.99), 1, "torchdeq default"),
    "gradient error at .99, peer exact in name": Row(gradient(0.99, ift=True), 1, "torchdeq ift=True, its 40 steps"),
    "gradient error at .99, peer given time": Row(
        gradient(0.99, ift=True, budget=5000), 1, "torchdeq ift=True, 5,000 steps"
    ),
    "backward memory, MB": Row(memory, 40, "our Unrolled"),
    "Auto over best fixed, B1 D64 .9": Row(auto(affine(1, 64, 0.9)), 1.2, "median fixed choice"),
    "Auto over best fixed, B64 D64 .9": Row(auto(affine(64, 64, 0.9)), 1.2, "median fixed choice"),
    "Auto over best fixed, B64 D64 .99": Row(auto(affine(64, 64, 0.99)), 1.2, "median fixed choice"),
    "Auto over best fixed, B64 D512 .99": Row(auto(affine(64, 512, 0.99)), 1.2, "median fixed choice"),
    "warm over cold evaluations at .9, Broyden": Row(warm(Broyden(), 0.9), 0.6, "our Picard"),
    "warm over cold evaluations at .99, Broyden(60)": Row(warm(Broyden(60), 0.99), 0.6, "our Picard"),
    "warm over cold evaluations at .99, Anderson": Row(warm(Anderson(), 0.99), None, "our Picard"),
    "import beyond torch, s": Row(imports, 1, "import torch"),
    **{name: Row(*entry) for name, entry in {**LEARNED, **CERTIFICATES, **GRAPHS, **FIELDS, **CHAINS}.items()},
}
"""Name to row, in the order of the table."""
