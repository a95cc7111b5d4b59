"""What certificates cost: rows of the target table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from settlepoint import Equation, Picard, Solution, Tolerance, certify, solve
from settlepoint.layers import TanhCell
from settlepoint.runs import generator_from

Measure = Callable[[int], tuple[float, float]]


def _solved(rows: int, width: int, gain: float, atol: float) -> tuple[Equation, Solution, Callable[[], Solution]]:
    """tanh(W z + u) with ||W|| > 1, settled; and the solve once more."""
    generator = generator_from("bench", "certificates", width)
    cell = TanhCell(width, gain=gain, generator=generator, dtype=torch.float64)
    u = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    eq = Equation(cell, context=(u,))

    def again() -> Solution:
        with torch.no_grad():
            return solve(eq, torch.zeros_like(u), Picard(), Tolerance(atol, max_steps=2000))

    return eq, again(), again


def _least(call: Callable[[], object], repeats: int) -> float:
    """The least process seconds of a call, after one."""
    call()
    return min(_seconds(call) for _ in range(repeats))


def _seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def dense(repeats: int) -> tuple[float, float]:
    """Milliseconds a row for a proof at 100 unknowns, 397 rows as one batch; the peer takes 40 of them one by one."""
    eq, solution, _ = _solved(397, 100, 1.2, 1e-10)
    found = certify.certificate(eq, solution, "kantorovich")
    if not bool(found.proved.all()):
        return float("inf"), float("inf")
    assert isinstance(solution.value, Tensor)
    batch = _least(lambda: certify.certificate(eq, solution, "kantorovich"), min(3, repeats)) / 397
    x, (u,) = solution.value, eq.context

    def singly() -> None:
        for i in range(40):
            certify.certificate(Equation(eq.operator, context=(u[i : i + 1],)), x[i : i + 1], "kantorovich")

    return 1e3 * batch, 1e3 * _least(singly, 1) / 40


def wide(repeats: int) -> tuple[float, float]:
    """An estimate at 2,000 unknowns as a share of the solve, 16 rows; the peer inverts I - J of every row."""
    eq, solution, again = _solved(16, 2000, 1.5, 1e-8)
    if not bool(certify.certificate(eq, solution, "newton-krylov").estimated.all()):
        return float("inf"), float("inf")
    solving = _least(again, min(3, repeats))
    estimate = _least(lambda: certify.certificate(eq, solution, "newton-krylov"), min(3, repeats))
    assert isinstance(solution.value, Tensor)
    slopes = 1 - solution.value[0] ** 2
    J = slopes[:, None] * eq.operator.weight.detach()  # pyright: ignore[reportFunctionMemberAccess]
    inverse = _least(lambda: torch.linalg.inv(torch.eye(2000, dtype=J.dtype) - J), 1)
    return estimate / solving, 16 * inverse / solving


CERTIFICATES: Mapping[str, tuple[Measure, float | None, str, str]] = {
    "certificate, 100 unknowns, ms a row": (dense, 3, "ours, one row at a time", "low"),
    "certificate, 2,000 unknowns, share of the solve": (wide, 0.2, "inverting I - J of every row", "low"),
}
"""Name to measure, target, peer and the better side."""
