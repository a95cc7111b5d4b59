"""Families of a user's own function: what works, and what is refused with which words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.optimize
import torch
from torch import Tensor

from settlepoint import Anderson, Status, Tolerance, solve
from settlepoint.problems import Batch, from_callable

DOUBLE = torch.float64


def kepler(E: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["M"] + p["e"] * torch.sin(E)


def orbits(n: int, generator: torch.Generator) -> dict:
    draw = torch.rand(2, n, 1, generator=generator, dtype=DOUBLE)
    return {"x0": draw[0], "parameters": {"M": draw[0], "e": 0.8 * draw[1]}}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def changed(**changes: Any) -> Callable:
    """The sampler of three orbits with some entries replaced."""
    return lambda n, g: orbits(n, g) | changes


class TestEveryForm:
    def test_a_root_and_a_fixed_point_agree(self) -> None:
        fixed = from_callable(kepler, orbits)
        root = from_callable(lambda E, p: E - kepler(E, p), orbits, form="root")
        batch = fixed.sample(20, generator())
        assert fixed.form == root.form == "fixed_point"
        a, b = (family.equation(batch).image(batch.x0) for family in (fixed, root))
        assert torch.allclose(a, b, rtol=1e-15)  # type: ignore[arg-type]
        assert torch.allclose(fixed.reference(batch), root.reference(batch), rtol=1e-12)

    def test_the_reference_is_that_of_brentq(self) -> None:
        family = from_callable(kepler, orbits)
        batch = family.sample(10, generator())
        pairs = zip(batch.parameters["M"].flatten().tolist(), batch.parameters["e"].flatten().tolist(), strict=True)
        found = [
            scipy.optimize.brentq(lambda E, M=M, e=e: E - M - e * math.sin(E), 0, 4, xtol=1e-14, rtol=1e-14)
            for M, e in pairs
        ]
        assert torch.allclose(family.reference(batch)[:, 0], torch.tensor(found, dtype=DOUBLE), atol=1e-9)

    def test_a_users_reference_is_taken(self) -> None:
        family = from_callable(kepler, orbits, reference=lambda batch: batch.x0 + 1)
        batch = family.sample(3, generator())
        assert torch.equal(family.reference(batch), batch.x0 + 1)
        narrow = from_callable(kepler, orbits, reference=lambda batch: batch.x0[:, 0])
        with pytest.raises(ValueError, match=r"reference must return a tensor of shape \(3, 1\), got \(3,\)"):
            narrow.reference(batch)

    def test_parameters_may_be_missing(self) -> None:
        family = from_callable(lambda x, p: x.cos(), lambda n, g: {"x0": torch.rand(n, 2, generator=g)})
        batch = family.sample(4, generator())
        assert batch.x0.dtype == DOUBLE
        assert torch.allclose(family.reference(batch), torch.full((4, 2), 0.7390851332151607, dtype=DOUBLE))

    def test_one_problem_is_no_duplicate(self) -> None:
        assert len(from_callable(kepler, orbits).sample(1, generator())) == 1

    def test_any_difference_is_enough(self) -> None:
        zeros = torch.zeros(3, 1)
        for entry in ({"x0": torch.tensor([[0.0], [0.0], [1.0]])}, {"parameters": {"M": torch.arange(3.0)}}):
            given = {"x0": zeros} | entry
            assert len(from_callable(lambda x, p: x, lambda n, g, d=given: d).sample(3, generator())) == 3

    def test_names_and_forms_are_in_the_settings(self) -> None:
        settings = from_callable(kepler, orbits, form="root", name="kepler").settings()
        assert settings["name"] == "kepler"
        assert settings["form"] == "root"
        assert settings["f"].endswith("kepler")
        assert from_callable(kepler, changed(h=torch.ones(3)), form="rhs", timed=True).settings()["timed"] is True


def test_nan_from_f_is_a_status_and_no_solution() -> None:
    def f(x: Tensor, p: dict) -> Tensor:
        return torch.where(p["M"] > 0.5, torch.nan, kepler(x, p))

    family = from_callable(f, orbits)
    batch = family.sample(12, generator())
    lost = batch.parameters["M"][:, 0] > 0.5
    found = solve(family.equation(batch), batch.x0, Anderson(2), Tolerance(1e-8))
    assert torch.equal(found.status == Status.NONFINITE, lost)
    assert torch.equal(family.reference(batch).isnan()[:, 0], lost)
    assert 0 < int(lost.sum()) < 12


@pytest.mark.parametrize(
    ("sampler", "error", "message"),
    [
        (lambda n, g: torch.zeros(n, 1), TypeError, "sampler must return a dict with 'x0', got Tensor"),
        (lambda n, g: None, TypeError, "sampler must return a dict with 'x0', got NoneType"),
        (lambda n, g: {"parameters": {}}, ValueError, r"sampler must return 'x0', got a dict of \['parameters'\]"),
        (changed(x1=torch.zeros(3)), ValueError, "sampler may return x0, parameters for this form, got 'x1' as well"),
        (changed(h=torch.ones(3)), ValueError, "sampler may return x0, parameters for this form, got 'h' as well"),
        (changed(x0=torch.zeros(2, 1)), ValueError, r"x0 must have 3 rows as asked of the sampler, got \(2, 1\)"),
        (changed(x0=torch.zeros(0, 1)), ValueError, r"x0 must have 3 rows as asked of the sampler, got \(0, 1\)"),
        (changed(x0=torch.zeros(3)), ValueError, r"x0 must have shape \(3, m\) with m >= 1, got \(3,\)"),
        (changed(x0=torch.zeros(3, 0)), ValueError, r"x0 must have shape \(3, m\) with m >= 1, got \(3, 0\)"),
        (changed(x0=torch.zeros(3, 1).long()), TypeError, "x0 must be a tensor of a floating dtype, got torch.int64"),
        (changed(x0=torch.zeros(3, 1, dtype=torch.complex64)), TypeError, "x0 must be a tensor of a floating dtype"),
        (changed(x0=[[0.0]] * 3), TypeError, "x0 must be a tensor of a floating dtype, got list"),
        (changed(x0=torch.tensor([[0.0], [float("nan")], [1.0]])), ValueError, "x0 must be finite, got 1 entries"),
        (changed(x0=torch.full((3, 1), float("inf"))), ValueError, "x0 must be finite, got 3 entries"),
        (changed(parameters=[torch.zeros(3)]), TypeError, "parameters must be a dict of tensors by name"),
        (changed(parameters={1: torch.zeros(3)}), TypeError, "parameters must be a dict of tensors by name"),
        (changed(parameters={"c": torch.zeros(2)}), ValueError, "parameter 'c' must have 3 rows as asked"),
        (changed(parameters={"c": 1.0}), TypeError, "parameter 'c' must be a tensor of a floating dtype, got float"),
        (changed(parameters={"c": torch.arange(3)}), TypeError, "parameter 'c' must be a tensor of a floating dtype"),
        (changed(parameters={"c": torch.tensor([0.0, 1.0, float("inf")])}), ValueError, "parameter 'c' must be finite"),
        (lambda n, g: {"x0": torch.ones(n, 2), "parameters": {"c": torch.ones(n)}}, ValueError, "got 3 copies of one"),
    ],
)  # fmt: skip
def test_samples_are_refused(sampler: Callable, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_callable(kepler, sampler).sample(3, generator())


@pytest.mark.parametrize(
    ("h", "error", "message"),
    [
        (torch.tensor([0.1, 0.0, 0.1]), ValueError, "h must be positive, got a smallest step of 0"),
        (torch.tensor([0.1, -0.5, 0.1]), ValueError, "h must be positive, got a smallest step of -0.5"),
        (torch.tensor([0.1, float("nan"), 0.1]), ValueError, "h must be finite, got 1 entries"),
        (torch.tensor([0.1, float("inf"), 0.1]), ValueError, "h must be finite, got 1 entries"),
        (torch.ones(2), ValueError, "h must have 3 rows as asked of the sampler"),
        (torch.ones(3, 1), ValueError, r"h must have shape \(3,\), got \(3, 1\)"),
        (torch.tensor(0.1), ValueError, "h must have 3 rows as asked of the sampler"),
        (0.1, TypeError, "h must be a tensor of a floating dtype, got float"),
    ],
)
def test_step_sizes_are_refused(h: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_callable(kepler, changed(h=h), form="rhs").sample(3, generator())


def test_initial_values_need_step_sizes() -> None:
    with pytest.raises(ValueError, match=r"sampler must return 'h', got a dict of \['parameters', 'x0'\]"):
        from_callable(kepler, orbits, form="rhs").sample(3, generator())
    with pytest.raises(ValueError, match="sampler may return x0, parameters, h for this form, got 't0' as well"):
        from_callable(kepler, changed(h=torch.ones(3), t0=torch.ones(3)), form="rhs").sample(3, generator())
    with pytest.raises(ValueError, match=r"t0 must have shape \(3,\), got \(3, 2\)"):
        from_callable(kepler, changed(h=torch.ones(3), t0=torch.ones(3, 2)), form="rhs", timed=True).sample(
            3, generator()
        )


@pytest.mark.parametrize("form", ["fixed_point", "root", "rhs"])
@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x, p: x[:, 0], ValueError, r"f must return the shape of x, \(1, 1\), got \(1,\)"),
        (lambda x, p: x.repeat(1, 2), ValueError, r"f must return the shape of x, \(1, 1\), got \(1, 2\)"),
        (lambda x, p: x.float(), ValueError, r"f must return the dtype of x, torch.float64, got torch.float32"),
        (lambda x, p: x.numpy(), TypeError, "f must return a tensor, got ndarray"),
        (lambda x, p: None, TypeError, "f must return a tensor, got NoneType"),
        (
            lambda x: x,
            ValueError,
            r"f must take x \(1, 1\) of torch.float64 and the parameters \['M', 'e'\], but raised",
        ),
        (lambda x, p: x + p["q"], ValueError, "but raised KeyError"),
    ],
)
def test_functions_are_refused(f: Callable, error: type[Exception], message: str, form: str) -> None:
    sampler = changed(h=torch.ones(3)) if form == "rhs" else orbits
    family = from_callable(f, sampler, form=form)
    with pytest.raises(error, match=message):
        family.equation(family.sample(3, generator()))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"f": 3}, TypeError, "f must be callable, got int"),
        ({"sampler": {"x0": 1}}, TypeError, "sampler must be callable, got dict"),
        ({"form": "ode"}, ValueError, "form must be one of 'fixed_point', 'root', 'rhs', got 'ode'"),
        ({"name": ""}, ValueError, "name must be a string that is not empty, got ''"),
        ({"reference": 1.0}, TypeError, "reference must be callable or None, got float"),
        ({"timed": True}, ValueError, "timed must be False unless form is 'rhs', got form 'fixed_point'"),
    ],
)
def test_constructions_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_callable(**{"f": kepler, "sampler": orbits} | given)


def test_a_batch_may_come_without_a_sampler() -> None:
    family = from_callable(kepler, orbits)
    batch = Batch(torch.ones(2, 1), {"M": torch.ones(2, 1), "e": torch.zeros(2, 1)})
    assert family.equation(batch).image(batch.x0).tolist() == [[1.0], [1.0]]  # type: ignore[union-attr]
