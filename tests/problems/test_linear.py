"""Linear families: the matrices, the embedding, singular ones, and the generators of the supplement."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from settlepoint import FixedSteps, Picard, problems, solve
from settlepoint.problems import MATRICES, LinearFamily
from settlepoint.problems.generators import DIAGONAL, normal_products, right_side, shifted, uniform_products
from settlepoint.problems.matrices import SHIFT

DOUBLE = torch.float64
FILE = Path(os.environ.get("SETTLEPOINT_DATA", ".")) / "r2n2" / "matrices.npz"


def matrix(name: str) -> torch.Tensor:
    return torch.tensor(MATRICES[name], dtype=DOUBLE)


@pytest.mark.skipif(not FILE.exists(), reason="needs $SETTLEPOINT_DATA with r2n2/matrices.npz")
def test_the_literals_are_those_of_the_file() -> None:
    with np.load(FILE) as printed:
        assert len(MATRICES) == 19
        assert all(np.array_equal(printed[name], np.array(MATRICES[name])) for name in MATRICES)
        assert np.array_equal(printed["btilde"], np.array(SHIFT))


def test_the_literals_keep_the_laws_of_the_supplement() -> None:
    assert all(torch.equal(matrix(f"A{i}"), matrix(f"A{i}").mT) for i in range(1, 20))
    for name, s in (("A4", -1.0), ("A5", 0.5), ("A6", 1.3), ("A7", 2.5)):
        assert torch.allclose(shifted(matrix("A1"), s), matrix(name), rtol=0, atol=1e-15)
    for three in (("A14", "A16", "A18"), ("A15", "A17", "A19")):  # affine in sigma = .5, .7, 1, six digits printed
        a, b, c = map(matrix, three)
        assert float((b - (0.6 * a + 0.4 * c)).abs().max()) < 2e-6
    assert np.allclose(5 * np.random.RandomState(42).randn(5), SHIFT, atol=1e-6)


def test_the_residual_is_minus_the_papers_f(generator: torch.Generator) -> None:
    family = LinearFamily("A3")
    batch = family.sample(7, generator)
    x = torch.randn(7, 5, dtype=DOUBLE, generator=generator)
    f = x @ matrix("A3").mT - batch.parameters["b"]
    assert torch.allclose(family.equation(batch).residual(x), -f, atol=1e-14)  # type: ignore[arg-type]
    assert not batch.x0.any()


def test_right_sides_lie_around_the_shift(generator: torch.Generator) -> None:
    off = LinearFamily(spread=2.0).sample(4000, generator).parameters["b"] - torch.tensor(SHIFT, dtype=DOUBLE)
    assert float(off.abs().max()) <= 2.0
    assert float(off.abs().max()) > 1.99  # 20,000 draws
    plain = LinearFamily(spread=5.0, shift=False).sample(4000, generator).parameters["b"]
    assert float(plain.mean(0).abs().max()) < 4 * 5 / 3**0.5 / 4000**0.5  # four standard errors
    assert LinearFamily(spread=0.0).sample(1, generator).parameters["b"][0].tolist() == list(SHIFT)


def test_the_interval_is_that_of_dense_algebra() -> None:
    for name in MATRICES:
        interval = LinearFamily(name).interval
        assert interval is not None
        spectrum = np.linalg.eigvals(np.eye(5) - np.array(MATRICES[name]))
        assert np.allclose(interval, (spectrum.real.min(), spectrum.real.max()), atol=1e-12)
    assert LinearFamily(((1.0, 0.5), (0.0, 1.0)), shift=False).interval is None


def test_the_embedding_follows_the_same_path(seed: int) -> None:
    """R2N2, Fig 6: nothing that is made of A b, A^2 b, ... sees the embedding."""
    small = LinearFamily("A1")
    large = small.embedded(15, torch.Generator().manual_seed(seed))
    Q = torch.tensor(large.frame, dtype=DOUBLE)
    a, b = (family.sample(20, torch.Generator().manual_seed(1)) for family in (small, large))
    assert torch.allclose(b.parameters["b"], a.parameters["b"] @ Q.mT, atol=1e-14)
    for k in (1, 5):
        x, y = (
            solve(family.equation(batch), batch.x0, Picard(), FixedSteps(k)).value
            for family, batch in ((small, a), (large, b))
        )
        assert torch.allclose(y, x @ Q.mT, rtol=0, atol=1e-13)  # type: ignore[operator]
    assert torch.allclose(large.reference(b), small.reference(a) @ Q.mT, atol=1e-12)
    assert large.interval == small.interval
    outside = torch.eye(15, dtype=DOUBLE) - Q @ Q.mT
    assert float((large.dense @ outside).abs().max()) < 1e-14


def test_singular_matrices_give_least_norm_or_nan(generator: torch.Generator) -> None:
    solvable = LinearFamily(((2.0, 0.0), (0.0, 0.0)), spread=0.0, shift=(3.0, 0.0))
    assert torch.allclose(solvable.reference(solvable.sample(1, generator)), torch.tensor([[1.5, 0.0]], dtype=DOUBLE))
    not_so = LinearFamily(((2.0, 0.0), (0.0, 0.0)), shift=False)
    batch = not_so.sample(3, generator)
    assert bool(not_so.reference(batch).isnan().all())
    assert not_so.interval == (-1.0, 1.0)
    with pytest.raises(Exception, match="row 0"):
        solve(not_so.equation(batch), batch.x0).require()


def test_a_matrix_may_be_a_tensor_or_an_array() -> None:
    rows = ((2.0, 1.0), (1.0, 3.0))
    families = [LinearFamily(A, shift=False) for A in (rows, torch.tensor(rows), np.array(rows), list(rows))]  # type: ignore[arg-type]
    assert all(family == families[0] and hash(family) == hash(families[0]) for family in families)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"matrix": "A20"}, ValueError, "matrix must be one of A1 to A19 or a square matrix, got 'A20'"),
        ({"matrix": ((1.0, 2.0),), "shift": False}, ValueError, r"matrix must be square, got rows of \[2\]"),
        ({"matrix": (1.0, 2.0)}, ValueError, r"matrix must have two dimensions and an entry, got shape \(2,\)"),
        ({"matrix": ((1.0,), (1.0, 2.0))}, TypeError, "matrix must be a matrix of numbers"),
        ({"matrix": ((float("nan"),),)}, ValueError, "matrix must be finite"),
        ({"matrix": ((1.0,),)}, ValueError, "shift must have 1 entries as the matrix has rows, got 5"),
        ({"shift": (1.0, 2.0)}, ValueError, "shift must have 5 entries"),
        ({"spread": -1.0}, ValueError, "spread must be finite and >= 0, got -1.0"),
        ({"spread": float("inf")}, ValueError, "spread must be finite and >= 0, got inf"),
        ({"frame": ((1.0,), (0.0,))}, ValueError, "frame must have 5 columns as the matrix has rows, got 1"),
        ({"frame": ((1.0,) * 5,) * 6}, ValueError, "frame must have orthonormal columns"),
    ],
)
def test_refusals(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LinearFamily(**given)


def test_an_embedding_needs_room(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="dimension must be an integer >= 5, got 4"):
        LinearFamily().embedded(4, generator)
    with pytest.raises(ValueError, match="embedded needs a family without a frame"):
        LinearFamily().embedded(6, generator).embedded(7, generator)


def test_the_generators_draw_what_the_text_says(generator: torch.Generator) -> None:
    draws = torch.stack([normal_products(generator, 0.3) for _ in range(2000)])
    excess = draws.diagonal(dim1=1, dim2=2).mean(0) - torch.tensor(DIAGONAL, dtype=DOUBLE)
    error = (2 * 5) ** 0.5 * 0.3 / 2000**0.5  # of 0.3 times a chi^2 of 5 degrees, averaged
    assert float((excess - 5 * 0.3).abs().max()) < 4 * error
    assert torch.allclose(draws, draws.mT, atol=1e-15)
    assert float(torch.linalg.eigvalsh(draws).min()) > 0.1 - 1e-12  # the smallest entry of the diagonal
    products = torch.stack([uniform_products(generator) for _ in range(500)])
    assert float(products.min()) >= 0
    assert float(products.max()) < 125  # 5 s^2 with s < 5
    diagonal = products.diagonal(dim1=1, dim2=2).mean()  # 5/3 s^2 on average, mean of s^2 25/3, deviation 7.5
    assert abs(float(diagonal) - 125 / 9) < 4 * (5 / 3) * 8 / 500**0.5
    b = torch.stack([right_side(generator) for _ in range(2000)])
    assert abs(float(b.std()) - 5) < 4 * 5 / 20_000**0.5


@pytest.mark.parametrize("draw", [normal_products, uniform_products, right_side])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf")])
def test_the_generators_refuse(draw: Any, value: float, generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="must be positive and finite, got"):
        draw(generator, value)


def test_shifted_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"A must have shape \(5, 5\), got \(4, 4\)"):
        problems.generators.shifted(torch.eye(4), 1.0)  # type: ignore[attr-defined]
