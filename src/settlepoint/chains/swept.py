"""`Swept`: what the sweeps of a chain give back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from settlepoint.solution import Solution


@dataclass(frozen=True)
class Swept:
    """Answer of `Sweeps.run`.

    solution: value (B, ...), the state at the end of the chain; status, steps (sweeps), evals (pairs evaluated), all
    (B,); work, pairs evaluated for the whole batch; residual (B,), the sum over the positions of the measured
    ||x_{k+1} - step(x_k, k)|| / ||step(x_k, k)||: CONVERGED says that it is within the tolerance. A NONFINITE row
    has the last finite state of its chain as value, one out of sweeps the last state of its window and residual NaN.
    calls: calls of step, one a sweep: what is sequential. settled: (B,), positions that are final. trace: (calls, B),
    the same after every sweep. course: (B, n + 1, ...) where it was asked for; NaN where nothing is settled.
    """

    solution: Solution
    calls: int
    settled: Tensor
    trace: Tensor
    course: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The state at the end of the chain, as good as the status of its row says."""
        return self.solution.value  # type: ignore[return-value]

    def require(self) -> Swept:
        """This, if every row converged; SolveError naming the first row that did not."""
        self.solution.require()
        return self
