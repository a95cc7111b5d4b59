"""What iterating a graph convolution costs: rows of the target table."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from settlepoint import Anderson, Equation, FixedSteps, Implicit, Picard, Tolerance, Unrolled, solve
from settlepoint.experiments.measuring import Measure, alone, cpu_seconds, peak
from settlepoint.layers import Blocks, adjacency, pyg
from settlepoint.models import PIGN, Graphs
from settlepoint.runs import generator_from

NODES, LINKS, HIDDEN, STEPS = 2708, 5278, 64, 100
TIGHT = Tolerance(atol=0.0, rtol=1e-8, max_steps=1000)


def citations(*, matrix: bool, dtype: torch.dtype = torch.float32) -> Graphs:
    """A random graph as large as Cora; matrix: its edges as the normalised adjacency."""
    ends = torch.randint(0, NODES, (2, LINKS), generator=generator_from("bench", "citations"))
    edges = torch.cat((ends, ends.flip(0)), 1)
    return Graphs.one(adjacency(edges, NODES, dtype) if matrix else edges, NODES)


def pign(*, matrix: bool, transport: str = "identity") -> PIGN:
    """One that iterates a GCNConv, injection .1, a fixed number of steps of Picard."""
    conv = pyg().GCNConv(HIDDEN, HIDDEN, bias=False, normalize=not matrix, cached=not matrix)
    channels, stop = (8, HIDDEN, 7), FixedSteps(STEPS)
    return PIGN(conv, channels, transport=transport, solver=Picard(), stop=stop).eval()  # type: ignore[arg-type]


def overhead(*, matrix: bool) -> Measure:
    """Process time of an iteration of PIGN over that of the bare convolution, no gradient; a plain loop beside it.

    In a process whose heap keeps its pages: malloc otherwise hands them back between some iterations and not others,
    and what faulting them in again costs falls on either side by chance.
    """

    def measure(repeats: int) -> tuple[float, float]:
        seconds = alone(_iterations, matrix, repeats, MALLOC_TRIM_THRESHOLD_=2**30, MALLOC_MMAP_THRESHOLD_=2**25)
        return seconds["ours"] / seconds["bare"], seconds["peer"] / seconds["bare"]

    return measure


@torch.no_grad()
def _iterations(matrix: bool, repeats: int) -> Mapping[str, float]:
    graphs, model = citations(matrix=matrix), pign(matrix=matrix)
    u = torch.randn(1, NODES, HIDDEN, generator=generator_from("bench", "pign"))
    conv, context = model.operator.conv, model.context(graphs)
    assert isinstance(conv, torch.nn.Module)

    def bare() -> None:
        h = u[0]
        for _ in range(STEPS):
            h = conv(h, graphs.edges)

    def plain() -> None:
        h = u[0]
        for _ in range(STEPS):
            h = torch.lerp(conv(h, graphs.edges), u[0], 0.1)

    return cpu_seconds({"ours": lambda: model.settle(u, u, context), "peer": plain, "bare": bare}, repeats)


def evaluations(repeats: int) -> tuple[float, float]:
    """Anderson(5) and Picard to 1e-8 at injection .1, float64."""
    del repeats
    graphs, model = citations(matrix=True, dtype=torch.float64), pign(matrix=True).double()
    u = torch.randn(1, NODES, HIDDEN, generator=generator_from("bench", "pign"), dtype=torch.float64)
    eq = Equation(model.operator, context=(u, *model.context(graphs)))
    with torch.no_grad():
        found = [solve(eq, u, solver, TIGHT) for solver in (Anderson(5), Picard())]
    return tuple(float(s.evals) if s.converged else float("inf") for s in found)  # type: ignore[return-value]


def growth(repeats: int) -> tuple[float, float]:
    """MB by which the peak of a forward and backward pass grows from 40 to 160 iterations: implicit, and unrolled.

    In processes that hand back each tensor as it goes, so that the peak is what is held and not what malloc keeps.
    """
    del repeats
    found = []
    for name in ("implicit", "unrolled"):
        few, many = (alone(_peak, name, steps, MALLOC_MMAP_THRESHOLD_=2**16) for steps in (40, 160))
        found.append(many - few)
    return found[0], found[1]


def _peak(name: str, steps: int) -> float:
    """MB over what is resident before."""
    graphs, model = citations(matrix=True), pign(matrix=True, transport="learned")
    model.operator.conv.lin = Blocks(HIDDEN, HIDDEN, bias=False)  # type: ignore[union-attr]
    u = torch.randn(1, NODES, HIDDEN, generator=generator_from("bench", "pign"), requires_grad=True)
    _backward(model, u, graphs, name, 3)
    return peak(lambda: _backward(model, u, graphs, name, steps))


def _backward(model: PIGN, u: Tensor, graphs: Graphs, name: str, steps: int) -> None:
    within = Tolerance(atol=0.0, rtol=1e-4, max_steps=200)
    model.settle.adjoint = Unrolled() if name == "unrolled" else Implicit(Anderson(5), within)
    model.settle.stop = FixedSteps(steps)
    model.settle(u, u, model.context(graphs)).square().mean().backward()  # type: ignore[union-attr]


GRAPHS: Mapping[str, tuple[Measure, float | None, str, str]] = {
    "PIGN iteration over its GCNConv, messages": (
        overhead(matrix=False),
        1.1,
        "plain loop with the same update",
        "low",
    ),
    "PIGN iteration over its GCNConv, matrix": (overhead(matrix=True), 1.4, "plain loop with the same update", "low"),
    "PIGN evaluations to 1e-8, Anderson(5)": (evaluations, 60, "our Picard", "low"),
    "PIGN backward memory, 160 over 40 steps, MB": (growth, 1, "our Unrolled", "low"),
}
"""Name to measure, target, peer and the better side."""
