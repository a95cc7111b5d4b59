"""Initial-value families against closed forms, an implicit integrator of SciPy, and the order of Kutta's method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from settlepoint import R2N2, FixedSteps, solve
from settlepoint.problems import Batch, Family, VanDerPol, from_callable
from settlepoint.solvers.tableaus import KUTTA3

DOUBLE = torch.float64


def family_of(f, x0: list, h: list, timed: bool = False, **extra) -> tuple[Family, Batch]:
    """The family of f and the batch of these starts and steps."""
    given = {"x0": torch.tensor(x0, dtype=DOUBLE), "h": torch.tensor(h, dtype=DOUBLE)} | extra
    family = from_callable(f, lambda n, generator: given, form="rhs", timed=timed)
    return family, family.sample(len(x0), torch.Generator())


def after(family: Family, batch: Batch, steps: int) -> Tensor:
    """steps steps of Kutta's third-order method."""
    solver = R2N2.from_tableau(KUTTA3)
    with torch.no_grad():
        return solve(family.equation(batch), batch.x0, solver, FixedSteps(steps)).value  # type: ignore[return-value]


def test_the_oscillator_turns() -> None:
    family, batch = family_of(lambda x, p: torch.stack((x[:, 1], -x[:, 0]), 1), [[1.0, 0.0], [0.0, 2.0]], [0.1, 0.7])
    t = torch.tensor([[0.1], [0.7]], dtype=DOUBLE) * torch.arange(1, 21)
    exact = torch.stack((torch.stack((t.cos(), -t.sin()), 2)[0], 2 * torch.stack((t.sin(), t.cos()), 2)[1]))
    assert torch.allclose(family.trajectory(batch, 20), exact, rtol=0, atol=1e-10)  # rtol 1e-12 over 14 units of time


def test_van_der_pol_agrees_with_an_implicit_integrator(generator: torch.Generator) -> None:
    family = VanDerPol()
    batch = family.sample(5, generator)
    assert batch.h is not None
    path = family.trajectory(batch, 50)
    for i in range(5):
        a, h = float(batch.parameters["a"][i]), float(batch.h[i])

        def f(t: float, x: np.ndarray, a: float = a) -> list:
            return [x[1], a * (1 - x[0] ** 2) * x[1] - x[0]]

        times = h * np.arange(1, 51)
        found = solve_ivp(f, (0, 50 * h), batch.x0[i].numpy(), "Radau", times, rtol=1e-9, atol=1e-10)
        assert np.allclose(path[i], found.y.T, atol=1e-6)  # Radau's own error


def test_one_system_for_all_rows_is_as_good_as_one_each(generator: torch.Generator) -> None:
    family = VanDerPol()
    batch = family.sample(40, generator)
    together = family.trajectory(batch, 10)
    alone = torch.cat([family.trajectory(batch.rows(slice(i, i + 1)), 10) for i in range(40)])
    assert float((together - alone).abs().max()) < 1e-10


def test_samples_lie_in_their_ranges(generator: torch.Generator) -> None:
    batch = VanDerPol(a=(2.0, 2.5), h=(0.5, 0.5)).sample(500, generator)
    assert batch.h is not None
    assert bool((batch.h == 0.5).all())
    for values, low, high in ((batch.parameters["a"], 2.0, 2.5), (batch.x0[:, 0], -4, -3), (batch.x0[:, 1], 0, 2)):
        assert low <= float(values.min()) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < float(values.max()) <= high


def test_kuttas_method_shows_its_order(generator: torch.Generator) -> None:
    """The error of one step falls as h^4."""
    family = VanDerPol()
    batch = family.sample(50, generator)
    errors = []
    for h in (0.02, 0.01):
        at = replace(batch, h=torch.full_like(batch.x0[:, 0], h))
        errors.append((after(family, at, 1) - family.reference(at)).norm(dim=1))
    order = (errors[0] / errors[1]).log2()
    assert abs(float(order.median()) - 4) < 0.15


def test_a_timed_field_sees_the_times_of_the_stages() -> None:
    """x' = 3 t^2 is exact under a third-order method only if every stage sees its own time."""
    family, batch = family_of(
        lambda x, p, t: 3 * (t * t)[:, None].expand_as(x),
        [[0.0, 1.0], [2.0, 3.0]],
        [0.5, 0.25],
        timed=True,
        t0=torch.tensor([1.0, 2.0], dtype=DOUBLE),
    )
    t0, t = batch.x0[:, 2], batch.x0[:, 2] + 4 * torch.tensor([0.5, 0.25], dtype=DOUBLE)
    exact = torch.cat((batch.x0[:, :2] + (t**3 - t0**3)[:, None], t[:, None]), 1)
    assert torch.allclose(after(family, batch, 4), exact, rtol=1e-13)
    assert torch.allclose(family.trajectory(batch, 4)[:, -1], exact, rtol=1e-11)


def test_time_starts_at_zero() -> None:
    _, batch = family_of(lambda x, p, t: x, [[1.0], [2.0]], [0.5, 0.25], timed=True)
    assert batch.x0.tolist() == [[1.0, 0.0], [2.0, 0.0]]


def test_rows_that_blow_up_are_nan_and_cost_no_other_row() -> None:
    family, batch = family_of(lambda x, p: x * x, [[1.0], [0.5]], [0.6, 0.6])  # x = 1 / (1/x0 - t)
    path = family.trajectory(batch, 2)
    assert bool(path[0].isnan().all())
    assert torch.allclose(path[1, :, 0], 1 / (2 - torch.tensor([0.6, 1.2], dtype=DOUBLE)), rtol=1e-10)


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_steps_are_counted(steps, generator: torch.Generator) -> None:
    family = VanDerPol()
    with pytest.raises(ValueError, match="steps must be an integer >= 1, got"):
        family.trajectory(family.sample(1, generator), steps)


@pytest.mark.parametrize("h", [0.0, -0.1, float("nan"), float("inf")])
def test_a_batch_with_an_impossible_step_is_refused(h: float, generator: torch.Generator) -> None:
    family = VanDerPol()
    batch = family.sample(3, generator)
    wrong = replace(batch, h=torch.tensor([0.1, h, 0.1], dtype=DOUBLE))
    for call in (family.equation, family.reference):
        with pytest.raises(ValueError, match=f"h must be positive and finite, got {h:g}"):
            call(wrong)
    with pytest.raises(ValueError, match="h must hold one step size a row, got None"):
        family.equation(replace(batch, h=None))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"h": (0.0, 0.1)}, ValueError, r"h must be a pair of finite numbers low <= high > 0, got \(0.0, 0.1\)"),
        ({"h": (0.1, float("inf"))}, ValueError, "h must be a pair of finite numbers"),
        ({"a": (2.0, 1.0)}, ValueError, r"a must be a pair of finite numbers low <= high, got \(2.0, 1.0\)"),
        ({"x1": 3.0}, TypeError, r"x1 must be a pair of numbers \(low, high\), got 3.0"),
        ({"x2": ("a", "b")}, TypeError, "x2 must be a pair of numbers"),
    ],
)
def test_refusals(given: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        VanDerPol(**given)
