"""NumPy functions in torch: families, training without derivatives, and what asking for derivatives gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from settlepoint import R2N2, Anderson, Tolerance, solve
from settlepoint.compat.bridge import tensor_of
from settlepoint.compat.scipy import torched
from settlepoint.learn import LevenbergMarquardt, fit
from settlepoint.problems import from_callable


def kepler(E, p):
    return p["M"] + p["e"] * np.sin(E)


def orbits(n: int, generator: torch.Generator) -> dict:
    M, e = (torch.rand(n, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    return {"x0": 3 * M, "parameters": {"M": 3 * M, "e": 0.9 * e}}


def torch_kepler(E, p):
    return p["M"] + p["e"] * torch.sin(E)


@pytest.fixture
def families():
    return from_callable(torched(kepler), orbits), from_callable(torch_kepler, orbits)


def test_a_family_of_numpy_is_that_of_torch(families, generator):
    ours, theirs = families
    batch = ours.sample(7, generator)
    for family in families:
        assert torch.equal(ours.equation(batch).image(batch.x0), family.equation(batch).image(batch.x0))
    found = solve(ours.equation(batch), batch.x0, Anderson(2), Tolerance(1e-12)).require()
    assert torch.allclose(found.value, theirs.reference(batch), atol=1e-10)


def test_a_solver_learns_a_numpy_function_by_differences(families):
    """The same training on the same function in torch, with exact derivatives, gets the same loss."""
    losses = [
        fit(R2N2(2), family, 1, trainer=LevenbergMarquardt(1, 5, jacobian=how), samples=20).loss
        for family, how in zip(families, ("difference", "forward"), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_derivatives_are_refused_with_advice(families):
    with pytest.raises(RuntimeError, match=r"no derivative.*LevenbergMarquardt\(jacobian='difference'\)"):
        fit(R2N2(2), families[0], 1, trainer=LevenbergMarquardt(2, 1), samples=10)
    f, x = torched(np.cos), torch.ones(2, 1)
    with pytest.raises(RuntimeError, match="no derivative"):
        f(x.clone().requires_grad_()).sum().backward()
    with pytest.raises(RuntimeError, match="no derivative"):
        torch.func.jvp(f, (x,), (x,))
    with pytest.raises(RuntimeError, match="no vmap"):
        torch.func.vmap(f)(x)


def test_parameters_that_want_a_gradient_are_refused_too():
    f = torched(lambda x, p: x * p["a"])
    a = torch.ones(2, 1, requires_grad=True)
    with pytest.raises(RuntimeError, match="no derivative"):
        f(torch.ones(2, 1), {"a": a}).sum().backward()


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (np.cos, np.cos(1.0)),
        (lambda x: 2 * x, 2.0),
        (lambda x, p: x + p["a"], 4.0),
        (lambda x, p, t: x + p["a"] + t[:, None], 9.0),
        (lambda x, scale=3.0: scale * x, 3.0),
        (lambda *args: sum(1.0 for _ in args) * args[0], 3.0),
        (lambda x: [[1.5], [1.5]], 1.5),
    ],
    ids=["ufunc", "x", "x p", "x p t", "default", "any", "list"],
)
def test_f_gets_what_it_asks_for(f, expected):
    x = torch.ones(2, 1, dtype=torch.float64)
    y = torched(f)(x, {"a": torch.full((2, 1), 3.0)}, torch.full((2,), 5.0))
    assert torch.allclose(y, torch.full_like(x, expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_the_dtype_is_that_of_x(dtype):
    x = torch.ones(2, 3, dtype=dtype)
    y = torched(lambda x: np.asarray(x) * 2)(x)
    assert y.dtype == dtype
    assert torch.equal(y, 2 * x)


def test_f_may_keep_and_write_into_its_arrays():
    buffer = np.empty((2, 1))

    def f(x):
        buffer[:] = 2 * x
        x[:] = np.nan
        return buffer

    x = torch.ones(2, 1, dtype=torch.float64)
    first = torched(f)(x)
    buffer[:] = 7
    assert torch.equal(first, 2 * torch.ones_like(x))
    assert torch.equal(x, torch.ones_like(x))


def test_wrong_functions_are_named():
    with pytest.raises(TypeError, match="f must be callable, got int"):
        torched(3)  # pyright: ignore[reportArgumentType]
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"f must return the shape it is given, \(2, 3\), got \(2, 2\)"):
        torched(lambda x: x[:, :2])(x)
    with pytest.raises(TypeError, match="f must return numbers"):
        torched(lambda x: None)(x)
    with pytest.raises(ValueError, match="real numbers"):
        torched(lambda x: 1j * x)(x)


@pytest.mark.parametrize(
    "y", [np.ones(3)[::-1], np.ones(3, ">f8"), np.ones(3, np.longdouble), [1, 1, 1], np.ones(6)[::2]]
)
def test_arrays_of_every_layout_become_tensors(y):
    assert torch.equal(tensor_of(y, torch.float32), torch.ones(3))
