"""nie and nide, small: what the cells show, references checked by other means, checks that can fail."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from settlepoint.experiments import REGISTRY, nide, nie
from settlepoint.experiments.experiment import Context, Experiment, Results
from settlepoint.experiments.nide_systems import operator_of
from settlepoint.experiments.nie_kernel import Network, Samples, kernel_error, linear_kernel, samples, truth
from settlepoint.experiments.nie_problems import PROBLEMS, collocated
from settlepoint.layers import gauss_legendre
from settlepoint.runs import Record

TINY = replace(nie.EXPERIMENT.scales["smoke"], panels=4, drawn=20, met=4, settled=1)
TINY_NIDE = replace(nide.EXPERIMENT.scales["smoke"], panels=4, train=4, test=3, met=3, settled=1)


@pytest.mark.parametrize("cell", list(PROBLEMS))
def test_solutions_solve_their_equations(cell: str) -> None:
    """y - f - int G(y, t, s) ds = 0 at three times, the integral by scipy.integrate.quad."""
    problem = PROBLEMS[cell]()
    double = lambda v: torch.tensor([v], dtype=torch.float64)  # noqa: E731
    for t in (0.2 * problem.end, 0.5 * problem.end, problem.end):
        at = lambda s, t=t: problem.kernel(problem.exact(double(s)), double(t), double(s)).item()  # noqa: E731
        integral = quad(at, 0, t if problem.volterra else problem.end, epsabs=1e-10, epsrel=1e-10)[0]
        expected = float(problem.f(double(t))) + integral
        assert float(problem.exact(double(t))) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("cell", list(PROBLEMS))
def test_bounds_of_kernels_hold(cell: str, generator: torch.Generator) -> None:
    """|G(a) - G(b)| <= L(t, s) |a - b| at random places."""
    problem = PROBLEMS[cell]()
    a, b, t, s = torch.randn(4, 2000, generator=generator, dtype=torch.float64)
    t, s = t.abs() % problem.end, s.abs() % problem.end
    moved = (problem.kernel(a, t, s) - problem.kernel(b, t, s)).abs()
    assert bool((moved <= problem.bound(t, s) * (a - b).abs() * (1 + 1e-9) + 1e-15).all())


def test_a_reference_that_does_not_settle_is_an_error() -> None:
    with pytest.raises(AssertionError, match="the reference has a residual of"):
        collocated(lambda y, t, s: 1 + y * y, lambda t: 1 + t)  # y = 1 + t + int 1 + y^2 has no real solution


@pytest.mark.parametrize("cell", ["fredholm ts", "fredholm beyond", "random nodes", "volterra c=4", "urysohn"])
def test_a_known_equation_gives_what_its_table_shows(cell: str) -> None:
    found = nie.EXPERIMENT.run(cell, 0, Context(TINY))
    assert {c.key for c in nie.EXPERIMENT.tables[0].columns} <= set(found["metrics"])
    metrics = found["metrics"]
    assert metrics["error"] < (0.5 if cell == "random nodes" else 1e-7)
    assert metrics["proved"] == (0.0 if cell == "fredholm beyond" else 100.0)
    assert math.isnan(metrics["picard evals"]) == (cell == "fredholm beyond")
    assert not metrics["distance over radius"] > 1


def test_constants_are_swept() -> None:
    found = nie.EXPERIMENT.run(nie.SWEEP, 0, Context(TINY))["curves"]
    assert set(found) == {"picard", "anderson", "factorial"}
    ahead, taken = np.array(found["factorial"]["y"]), np.array(found["picard"]["y"])
    assert bool((np.abs(taken - ahead) <= 4).all())  # a norm other than the sup, f in the place of f's own image
    assert bool((np.diff(taken) > 0).all())
    assert nie.factorial_count(1.0, 0.3) == 2.0  # 1 / 2! <= .3 e < 1


@pytest.mark.parametrize("cell", nie.LEARNED)
def test_a_learned_kernel_gives_what_its_table_shows(cell: str) -> None:
    found = nie.EXPERIMENT.run(cell, 0, Context(TINY))
    assert {c.key for c in nie.EXPERIMENT.tables[1].columns} <= set(found["metrics"])
    assert all(math.isfinite(found["metrics"][key]) for key in ("kernel error", "solution error", "linear", "mean"))


def test_models_of_nide_are_of_like_size() -> None:
    """The control that sees the time has as many parameters as the model with memory, to 2 %."""
    sizes = {kind: sum(p.numel() for p in operator_of(kind, 24).parameters()) for kind in nide.MODELS}
    assert sizes["timed"] == pytest.approx(sizes["nide"], rel=0.02)
    assert sizes["ode"] < sizes["nide"] / 2


def test_errors_of_kernels_by_hand() -> None:
    rule = gauss_legendre(6)
    test = samples(5, rule, torch.Generator().manual_seed(0), gauss_legendre(12))
    assert kernel_error(truth, test, rule) == 0.0
    assert kernel_error(lambda y, t, s: 0 * truth(y, t, s), test, rule) == pytest.approx(100.0)
    zero = Network(4).double()(torch.zeros(2, 1, 6, 1).double(), rule.nodes[:, None, None], rule.nodes[:, None])
    assert float(zero.detach().abs().max()) < 1e-15


def test_the_linear_control_finds_a_linear_kernel(generator: torch.Generator) -> None:
    M = 0.1 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    f = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    y = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - M, f.T).T
    data = Samples(f[..., None], y[..., None])
    torch.testing.assert_close(linear_kernel(data, data, ridge=1e-14), data.y, atol=1e-8, rtol=0)


@pytest.mark.parametrize("cell", ["sinh", "cos", "fading", "spirals, nide", "lotka-volterra, ode", "spirals, timed"])
def test_a_cell_of_nide_gives_what_its_table_shows(cell: str) -> None:
    found = nide.EXPERIMENT.run(cell, 0, Context(TINY_NIDE))
    table = nide.EXPERIMENT.tables[cell not in nide.EXACT]
    assert {c.key for c in table.columns} <= set(found["metrics"])
    if cell in nide.EXACT:
        assert found["metrics"]["error"] < 1e-3  # four panels
        assert not found["metrics"]["distance over radius"] > (1 if cell == "sinh" else 1e6)  # the quadrature's share


def metrics_of(experiment: Experiment, **over: float) -> Results:
    """Results that pass all checks, but for what is given."""
    scale = experiment.scales["cpu"]
    good = {
        "error": 1e-9, "distance over radius": 0.5, "proved": 0.0, "solution error": 1.0, "no integral": 20.0,
        "mean": 100.0, "linear": 9.0, "kernel error": 5.0, "persistence": 50.0,
    }  # fmt: skip
    learned = {f"{system}, {kind}": 20.0 for system in nide.SYSTEMS for kind in ("ode", "timed")}
    records = []
    for cell in experiment.cells(scale):
        kept = {k: v for k, v in good.items() if k not in ("solution error", "kernel error") or cell in nie.LEARNED}
        records.append(Record(cell, 0, {**kept, "error": learned.get(cell, 1e-9), **over}))
    return Results("cpu", scale, records)


@pytest.mark.parametrize("experiment", [nie.EXPERIMENT, nide.EXPERIMENT], ids=["nie", "nide"])
def test_checks_can_fail(experiment: Experiment) -> None:
    assert all(check.passed for check in experiment.checks(metrics_of(experiment)))
    for wrong in ({"error": 1e-3}, {"distance over radius": 1.5}, {"error": math.nan}):
        assert not all(check.passed for check in experiment.checks(metrics_of(experiment, **wrong)))
    for name in ("nie", "nide"):
        assert REGISTRY.load(name).id == name
