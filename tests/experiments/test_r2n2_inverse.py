"""The inverse use: frozen methods by hand, the implicit step and its gradient, baselines that must find a cubic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from settlepoint.experiments import REGISTRY
from settlepoint.experiments.experiment import Context, Results
from settlepoint.experiments.r2n2_inverse import (
    CENTRAL,
    EXPERIMENT,
    FORWARD,
    IMPLICIT,
    NETWORKS,
    TABLEAUS,
    TRUE,
    A,
    Cubic,
    H,
    Network,
    differenced,
    explicit,
    field_error,
    implicit,
    integrated,
    monomials,
    true_field,
)
from settlepoint.runs import Record

TINY = replace(EXPERIMENT.scales["smoke"], trajectories=4, length=3, width=4, updates=3, polish=2, tried=2)


def states(generator: torch.Generator, n: int = 5) -> torch.Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("cell", [*NETWORKS, FORWARD, CENTRAL, TRUE])
def test_a_cell_gives_what_its_table_shows(cell: str) -> None:
    found = EXPERIMENT.run(cell, 0, Context(TINY))
    lacks = {"own p50", "half p50"} if cell in (FORWARD, CENTRAL) else set()
    lacks |= {"loss", "training seconds"} if cell not in NETWORKS else set()
    assert {c.key for c in EXPERIMENT.tables[0].columns} - set(found["metrics"]) == lacks
    assert "rollout" in found["curves"]


def test_frozen_methods_are_their_formulas(generator: torch.Generator) -> None:
    x, f = states(generator), true_field
    euler = x + H * f(x)
    heun = x + H / 2 * (f(x) + f(x + H * f(x)))
    k1 = f(x)
    k2 = f(x + H / 2 * k1)
    k3 = f(x + H / 2 * k2)
    k4 = f(x + H * k3)
    rk4 = x + H / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    for name, value in (("Euler", euler), ("Heun", heun), ("RK4", rk4)):
        torch.testing.assert_close(explicit(TABLEAUS[name], 1)(f, x)[0], value, rtol=1e-13, atol=1e-13)


def test_the_methods_train_the_field_alone(generator: torch.Generator) -> None:
    x, network = states(generator), Network(4, generator)
    explicit(TABLEAUS["RK4"], 2)(network, x)[-1].sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


def test_the_implicit_step_solves_its_equation(generator: torch.Generator) -> None:
    x, spent = states(generator), []
    after = implicit(1, H, spent)(true_field, x)[0]
    torch.testing.assert_close(after, x + H * true_field(after), rtol=0, atol=1e-8)  # the tolerance is 1e-9
    assert spent[0] > 1


def test_the_implicit_gradient_is_that_of_the_linear_case() -> None:
    """x' = B x: x_1 = (I - h B)^-1 x_0, differentiated by autograd through the dense inverse."""
    field = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        field.weight.copy_(torch.tensor([[0.3, -1.0], [0.8, -0.4]]))
    x = torch.tensor([[1.0, 2.0], [-0.5, 0.3]], dtype=torch.float64)
    implicit(1)(field, x)[0].square().sum().backward()
    B = field.weight.detach().clone().requires_grad_()
    exact = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - H * B, x.T).T
    exact.square().sum().backward()
    torch.testing.assert_close(field.weight.grad, B.grad, rtol=1e-6, atol=1e-8)  # the solve ends at 1e-9


def test_the_cubic_basis_holds_the_field(generator: torch.Generator) -> None:
    x = states(generator, 50)
    weights = torch.linalg.lstsq(monomials(x), true_field(x)).solution
    assert field_error(Cubic(weights)) < 1e-10
    assert field_error(lambda x: 0 * x) == pytest.approx(1.0)


def test_central_differences_are_of_second_order() -> None:
    """On exact paths the error of the difference quotients falls by the order of the formula; path by SciPy."""
    x = np.array([[1.0, 0.5], [-1.0, 2.0], [0.3, -1.5], [2.0, 0.1], [-0.7, -0.6]])
    slope = lambda t, z: true_field(torch.from_numpy(z).reshape(5, 2)).numpy().ravel()  # noqa: E731
    times = H * np.arange(12)
    path = solve_ivp(slope, (0, times[-1]), x.ravel(), "DOP853", times, rtol=1e-11, atol=1e-12).y.T.reshape(12, 5, 2)
    exact = torch.from_numpy(path.copy()).transpose(0, 1)
    assert field_error(differenced(exact, central=True)) < 0.3 * field_error(differenced(exact, central=False))
    torch.testing.assert_close(integrated(true_field, exact[:, 0], 11), exact, rtol=0, atol=1e-6)


def test_a_field_that_blows_up_gives_nan() -> None:
    x = torch.full((1, 2), 3.0, dtype=torch.float64)
    assert bool(integrated(lambda z: z**3, x, 400).isnan().all())


def _results(**changes: dict[str, float]) -> Results:
    good = {"rollout p50": 1e-2, "trivial": 2.0, "field": 1.0, "own p50": 1e-2, "half p50": 1.0}
    cells = {n: {**good, "field": 1.0 if n == "RK4" else 5.0} for n in (*NETWORKS, FORWARD, CENTRAL)}
    cells[TRUE] = {**good, "own p50": 1e-4, "field": 0.0}
    for name, metrics in changes.items():
        cells[name.replace("_", " ")] |= metrics
    return Results("cpu", EXPERIMENT.scales["cpu"], [Record(cell, 0, m) for cell, m in cells.items()])


@pytest.mark.parametrize(
    "change",
    [{"RK4": {"field": 4.0}}, {"Euler": {"half p50": 1e-2}}, {IMPLICIT.replace(" ", "_"): {"half p50": 1e-2}},
     {TRUE: {"own p50": 1e-2}}, {"RK4": {"rollout p50": 3.0}}],
)  # fmt: skip
def test_each_claim_can_fail(change: dict[str, dict[str, float]]) -> None:
    assert all(check.passed for check in EXPERIMENT.checks(_results()))
    assert not all(check.passed for check in EXPERIMENT.checks(_results(**change)))


def test_it_is_registered() -> None:
    assert REGISTRY.load("r2n2-inverse") is EXPERIMENT
    assert A == 1.5
