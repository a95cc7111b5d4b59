"""How the rows of a trained model settle: evaluations a row, true residuals, curves. Shared by experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from settlepoint import Equation, FixedSteps, Solution, Solver, Status, Tolerance, certify, solve
from settlepoint.experiments.show import curve
from settlepoint.training.settled import Settles


def row_metrics(solution: Solution) -> dict[str, float]:
    """Evaluations a row (mean, median, 90th percentile, largest) and how many rows ended in which status."""
    evals = solution.evals.double()
    p50, p90 = torch.quantile(evals, evals.new_tensor([0.5, 0.9])).tolist()
    counts = {f"rows {status.name}": solution.counts().get(status.name, 0) for status in Status}
    shown = {name: count for name, count in counts.items() if count or name == "rows CONVERGED"}
    spread = {"evals": evals.mean().item(), "evals p50": p50, "evals p90": p90, "evals max": evals.max().item()}
    return {**spread, **shown}


def recheck(eq: Equation, solution: Solution, tolerance: Tolerance) -> dict[str, float]:
    """The residuals of the returned values, measured anew in float64, and the number of rows that claim too much.

    A claim is false when ||P(x) - x|| > atol + rtol*||P(x)|| + 8 eps (||x|| + ||P(x)||), eps of the solve's dtype. eq:
    gives P in float64, for a state in float64.
    """
    value = solution.value
    assert isinstance(value, Tensor)
    eps, x = torch.finfo(value.dtype).eps, value.double()
    with torch.no_grad():
        image = eq.image(x)
    assert isinstance(image, Tensor)
    norm = lambda z: torch.linalg.vector_norm(z.flatten(1), dim=1)  # noqa: E731
    residual, size = norm(image - x), norm(image)
    allowed = tolerance.atol + tolerance.rtol * size + 8 * eps * (norm(x) + size)
    claimed = residual[solution.converged]
    return {
        "largest residual": residual.max().item(),
        "false claims": int((claimed > allowed[solution.converged]).sum()),
    }


def settled_share(solution: Solution) -> dict[str, Any]:
    """Curve: the share of rows that have converged within so many evaluations."""
    evals = solution.evals[solution.converged].sort().values.tolist()
    last = {float(e): 100.0 * (i + 1) / len(solution.evals) for i, e in enumerate(evals)}
    return curve(last, last.values(), x_label="operator evaluations", y_label="samples settled (%)")


def residual_curve(eq: Equation, x0: Tensor, solver: Solver, tolerance: Tolerance, name: str) -> dict[str, Any]:
    """Curve: the residual of the row that is farthest from settling, against the evaluations it has taken part in."""
    with torch.no_grad():
        trace = solve(eq, x0, solver, tolerance, trace=True, compact=False).trace
    assert trace is not None
    running = torch.isfinite(trace.residual)
    residual = trace.residual.where(running, torch.zeros_like(trace.residual)).amax(1)
    evals = trace.evals.where(running, torch.zeros_like(trace.evals)).amax(1)
    seen = running.any(1)
    return curve(evals[seen].tolist(), residual[seen].tolist(), y_label="largest residual", log_y=True, group=name)


def depth_sweep(
    eq: Equation,
    x0: Tensor,
    depth: int,
    multiples: Sequence[float],
    score: Callable[[Tensor], float],
    solver: Solver | None = None,
) -> dict[str, dict[str, Any]]:
    """Curves "depth score" and "depth residual": what solver, or Picard, has reached after multiples of the depth.

    score: of a state, such as the test accuracy of its decoding. The residual is the median over rows.
    """
    scores, residuals = [], []
    for multiple in multiples:
        steps = max(1, round(multiple * depth))
        with torch.no_grad():
            solution = solve(eq, x0, solver, FixedSteps(steps, check=True))
            scores.append(score(solution.value))  # type: ignore[arg-type]
        residuals.append(solution.residual.median().item())
    label = "multiple of the training depth"
    return {
        "depth score": curve(multiples, scores, x_label=label, y_label="test accuracy (%)"),
        "depth residual": curve(multiples, residuals, x_label=label, y_label="median residual", log_y=True),
    }


@torch.no_grad()
def contraction(model: Settles, u: Tensor, depth: int) -> tuple[float, str]:
    """Median factor by which the residual of a sample changes in an iteration behind the depth; what the verdict is."""
    f = model.encode(u)
    eq, start = model.settle.posed(f, model.start(f))
    found = certify.verdict(eq, start, depth, model.settle.solver)
    return float(found.rate.nanmedian()), found.overall
