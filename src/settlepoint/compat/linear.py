"""`linear_solve`: A x = b under the signature of scipy.sparse.linalg.gmres, by any solver of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from settlepoint.compat.bridge import length
from settlepoint.compat.count import Calls, Count
from settlepoint.compat.observed import Observed, watched
from settlepoint.compat.system import Defect, LinearSystem
from settlepoint.equation import Equation
from settlepoint.solvers.newton_krylov import NewtonKrylovState
from settlepoint.solvers.solver import Solver
from settlepoint.stop import Tolerance

_WINDOW = 50  # looks without progress after which nothing more is expected
_TYPES = ("x", "pr_norm", "legacy")


def linear_solve(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    restart: int | None = None,
    maxiter: int | None = None,
    M: Any = None,
    callback: Callable[[Any], Any] | None = None,
    callback_type: str | None = None,
    solver: Solver | None = None,
) -> tuple[Any, int]:
    """Solve A x = b to ||b - A x|| <= max(rtol ||b||, atol), called like scipy.sparse.linalg.gmres.

    A: (N, N) array, sparse array, LinearOperator or tensor. b: (N,) or (N, 1). M: approximate inverse of A, applied
    from the right. restart: Krylov vectors kept, min(20, N) by default, 50 for complex systems. maxiter: cycles of
    `restart` products, 10 N by default; with callback_type "legacy", the default, products. callback gets the iterate
    ("x", every cycle) or ||b - A x|| / ||b|| ("pr_norm", "legacy", every product).

    solver: None for NewtonKrylov, which is GMRES here; or any Solver, a learned one among them, which then iterates
    P(x) = x - (A x - b). Its steps are what maxiter (max(1000, 10 N) by default) and callback count.

    Returns x (N,), of the kind b is, and info: 0 only when the residual, computed from A, x and b in the end, is within
    the tolerance; else the number of iterations made. NaN or Inf anywhere give info > 0. No gradients are carried.

        >>> import numpy as np
        >>> from settlepoint.compat.scipy import linear_solve
        >>> x, info = linear_solve(np.array([[3.0, 2.0, 0.0], [1.0, -1.0, 0.0], [0.0, 5.0, 1.0]]), [2.0, 4.0, -1.0])
        >>> info, x.round(3).tolist()
        (0, [2.0, -2.0, 9.0])
    """
    if callback_type not in (None, *_TYPES):
        raise ValueError(f"callback_type must be one of {', '.join(_TYPES)}, got {callback_type!r}")
    if solver is not None and not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as R2N2(4), got {solver!r}")
    rtol, atol = _checked("rtol", rtol), _checked("atol", atol)
    system = LinearSystem.of(A, b, x0, M)
    finish = Tensor.clone if isinstance(b, Tensor) else lambda x: x.cpu().numpy().copy()
    size = float(length(system.b))
    if not size:
        return finish(torch.zeros_like(system.b)), 0
    kind = None if callback is None else callback_type or "legacy"
    count = Count.of(system.b, restart, maxiter, kind, given=solver is not None)
    if not size < float("inf"):
        return finish(system.x0), count.maxiter
    calls = Calls(_told(callback, finish) if kind == "x" else callback, kind, size)
    with torch.no_grad():
        x, info = _Search(system, solver, count, max(rtol * size, atol), calls).run()
    return finish(x), info


class _Search:
    """The search under way: rounds of `solve`, each from the best x so far, until the true residual is small."""

    def __init__(self, system: LinearSystem, solver: Solver | None, count: Count, tol: float, calls: Calls):
        self.system, self.solver, self.count, self.tol, self.calls = system, solver, count, tol, calls
        self.done = 0  # steps

    def run(self) -> tuple[Tensor, int]:
        """x and info. A round is worth its start while the one before has halved the residual."""
        x, before = self.system.x0, float("inf")
        best, least = x, float("inf")
        while True:
            r = self.system.residual(x)
            norm = float(length(r))
            if norm <= self.tol:
                return x, 0
            if norm < least:
                best, least = x, norm
            left = self.count.steps - self.done
            if left < 1 or not norm < float("inf") or not norm <= 0.5 * before:
                return best, max(1, -(-self.done // self.count.cycle))
            before = norm
            x = self._given(x, r, left, self.solver) if self.solver is not None else self._krylov(x, r, left)

    def _given(self, x: Tensor, r: Tensor, left: int, solver: Solver) -> Tensor:
        """A round of the user's solver, with at most `left` steps."""
        defect, system, calls = Defect(self.system, x, r, 1.0), self.system, self.calls
        started = False

        def tell(x: Tensor, iterations: int | None = None) -> None:
            calls.iterate(lambda: x, iterations)
            calls.norms(lambda: [float(length(system.residual(x)))])

        def arrive(u: Tensor) -> None:
            nonlocal started
            if started:
                tell(defect.solution(u), self.done)
            started = True

        def depart(state) -> None:
            self.done += 1

        x = self._solved(defect, Observed(solver, arrive, depart), left)
        if started:
            tell(x)
        return x

    def _krylov(self, x: Tensor, r: Tensor, left: int) -> Tensor:
        """A round of NewtonKrylov, with at most `left` products."""
        solver, defect = self.count.krylov(left), Defect(self.system, x, r, self.system.scale(r))
        unit = float(defect.unit)

        def arrive(u: Tensor) -> None:
            self.calls.iterate(lambda: defect.solution(u), self.done // self.count.cycle)

        def depart(state) -> None:
            self.done += solver.inner
            self.calls.norms(lambda: self._shown([n * unit for n in norms_foretold(state, solver.inner)]))

        x = self._solved(defect, Observed(solver, arrive, depart), left // solver.inner)
        self.calls.iterate(lambda: x)
        return x

    def _solved(self, defect: Defect, solver: Observed, steps: int) -> Tensor:
        stop = Tolerance(self.tol / float(defect.unit), max_steps=steps + 1, window=_WINDOW)
        found = watched(Equation(defect), torch.zeros_like(defect.x)[None], solver, stop)
        return defect.solution(found.value)  # type: ignore[arg-type]

    def _shown(self, norms: list[float]) -> list[float]:
        """One norm an iteration, down to the tolerance."""
        norms = norms[self.count.unit - 1 :: self.count.unit]
        ended = next((i for i, n in enumerate(norms) if n <= self.tol), len(norms))
        return norms[: ended + 1]


def norms_foretold(state: NewtonKrylovState, products: int) -> list[float]:
    """The residual's norm after each of the last products, squared: |rest|^2 + sum of the later <c_j, r>^2."""
    latest = (state.made + torch.arange(-products, 0, device=state.made.device)) % state.images.shape[1]
    shares = (state.images[0] @ state.base_r[0]).double().square()
    unseen = shares[latest].flip(0).cumsum(0).flip(0) - shares[latest]
    return (state.rest[0].double().square().sum() + unseen).sqrt().tolist()


def _told(callback: Callable[[Any], Any] | None, finish: Callable[[Tensor], Any]) -> Callable[[Tensor], Any] | None:
    return None if callback is None else lambda x: callback(finish(x))


def _checked(name: str, value: Any) -> float:
    """A tolerance as a number."""
    if value is None or isinstance(value, str) or not float(value) >= 0:
        raise ValueError(f"{name} must be a number >= 0, got {value!r}")
    return float(value)
