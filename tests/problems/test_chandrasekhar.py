"""The H-equation against its own first integral, plain loops, SciPy, and the evaluations we know."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch

from settlepoint import Anderson, Picard, Tolerance, solve
from settlepoint.problems import Batch, Chandrasekhar


def by_loops(x: np.ndarray, c: float) -> np.ndarray:
    """P(x), entry by entry as the paper writes it."""
    m = len(x)
    mu = [(i - 0.5) / m for i in range(1, m + 1)]
    A = [[c * mu[j] / (2 * m * (mu[j] + mu[i])) for i in range(m)] for j in range(m)]
    return np.array([1 / (1 - sum(A[j][i] * x[i] for i in range(m))) for j in range(m)])


@pytest.mark.parametrize("family", [Chandrasekhar(), Chandrasekhar(m=7, c=0.9), Chandrasekhar(m=(3, 5, 8), c=0.5)])
def test_the_equation_is_that_of_the_paper(family: Chandrasekhar, generator: torch.Generator) -> None:
    batch = family.sample(6, generator)
    image = family.equation(batch).image(batch.x0)
    for row, (m, c) in enumerate(
        zip(batch.parameters["m"].long().tolist(), batch.parameters["c"].tolist(), strict=True)
    ):
        assert np.allclose(image[row, :m], by_loops(batch.x0[row, :m].numpy(), c), rtol=1e-13)  # type: ignore[index]
        assert not image[row, m:].any()  # type: ignore[index]


def test_the_reference_has_the_mean_of_theory(generator: torch.Generator) -> None:
    """sum_j H_j / m = 2 (1 - sqrt(1 - c)) / c, also for the discrete equation (symmetrise its double sum)."""
    family = Chandrasekhar(m=(4, 10, 20, 100), c=(0.5, 0.85, 0.935, 0.99))
    batch = family.sample(16, generator)
    c, m = batch.parameters["c"], batch.parameters["m"]
    assert torch.allclose(family.reference(batch).sum(1) / m, 2 * (1 - (1 - c).sqrt()) / c, rtol=1e-9)


def test_the_reference_is_scipys() -> None:
    family = Chandrasekhar(m=10, c=0.9)
    batch = family.sample(1, torch.Generator())
    found = scipy.optimize.newton_krylov(lambda x: x - by_loops(x, 0.9), np.ones(10), f_tol=1e-12)
    assert np.allclose(family.reference(batch)[0], found, atol=1e-10)


def test_padding_changes_no_norm(generator: torch.Generator) -> None:
    both, narrow = Chandrasekhar(m=(10, 20), c=0.9), Chandrasekhar(m=10, c=0.9)
    wide = both.sample(8, generator).rows(slice(0, None, 2))  # every other problem has 10 unknowns
    slim = Batch(wide.x0[:, :10], wide.parameters)
    assert not wide.x0[:, 10:].any()
    a, b = (
        solve(family.equation(batch), batch.x0, Picard(), Tolerance(1e-8), trace=True)
        for family, batch in ((both, wide), (narrow, slim))
    )
    assert torch.equal(a.evals, b.evals)
    assert a.trace is not None
    assert b.trace is not None
    assert torch.allclose(a.trace.residual, b.trace.residual, rtol=1e-6, atol=1e-14, equal_nan=True)


def test_problems_cycle_through_all_pairs(generator: torch.Generator) -> None:
    batch = Chandrasekhar().sample(702, generator)
    pairs = torch.stack((batch.parameters["m"], batch.parameters["c"]), 1).unique(dim=0, return_counts=True)
    assert pairs[1].tolist() == [117] * 6
    x = batch.x0[batch.parameters["m"] == 20]
    assert abs(float(x.mean()) - 1) < 4 * math.sqrt(0.2 / x.numel())
    assert abs(float(x.var()) - 0.2) < 4 * 0.2 * math.sqrt(2 / x.numel())


def test_the_evaluations_we_know(generator: torch.Generator) -> None:
    """To 1e-8: Picard 24 to 33, Anderson(2) 8 to 9 (median), from starts of variance 0.2 around 1."""
    family = Chandrasekhar()
    batch = family.sample(60, generator)
    eq = family.equation(batch)
    picard = solve(eq, batch.x0, Picard(), Tolerance(1e-8)).require()
    assert 24 <= float(picard.evals.median()) <= 33
    assert 8 <= float(solve(eq, batch.x0, Anderson(2), Tolerance(1e-8)).require().evals.median()) <= 9


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"m": 0}, "m must be an integer >= 1, got 0"),
        ({"m": (10, 2.5)}, "m must be an integer >= 1, got 2.5"),
        ({"m": ()}, "m and c must not be empty"),
        ({"c": ()}, "m and c must not be empty"),
        ({"c": 1.2}, r"c must lie in \(0, 1\], where the equation has a real solution, got 1.2"),
        ({"c": (0.9, float("nan"))}, r"c must lie in \(0, 1\]"),
        ({"variance": -0.1}, "mean must be finite and variance >= 0, got 1.0 and -0.1"),
        ({"mean": float("inf")}, "mean must be finite"),
    ],
)
def test_refusals(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chandrasekhar(**given)
