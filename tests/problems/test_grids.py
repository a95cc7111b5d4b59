"""Problems on the unit square against matrices assembled entry by entry, and SciPy's solvers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.sparse import csc_array

from settlepoint import Anderson, Picard, Tolerance, solve
from settlepoint.problems import Bratu, ConvectionDiffusion, Family, HeatImplicit, ReactionImplicit
from settlepoint.problems.grid import Grid, through_sines
from settlepoint.problems.newton import newton

DOUBLE = torch.float64
SIZE = 5
H = 1 / (SIZE + 1)


def assembled(weight: Callable[[int, int], float]) -> np.ndarray:
    """The matrix on the inner points with entries weight(di, dj) for the neighbour at that offset."""
    A = np.zeros((SIZE**2, SIZE**2))
    for i in range(SIZE):
        for j in range(SIZE):
            for di, dj in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
                if 0 <= i + di < SIZE and 0 <= j + dj < SIZE:
                    A[i * SIZE + j, (i + di) * SIZE + j + dj] += weight(di, dj)
    return A


LAPLACE = assembled(lambda di, dj: (4.0 if di == dj == 0 else -1.0) / H**2)


def carried(first: float, second: float) -> np.ndarray:
    return assembled(lambda di, dj: (first * di + second * dj) / (2 * H))


def drawn(family: Family, n: int = 4) -> tuple:
    """A batch, states that have nothing to do with it, and their images."""
    generator = torch.Generator().manual_seed(2)
    batch = family.sample(n, generator)
    u = torch.randn(batch.x0.shape, dtype=DOUBLE, generator=generator)
    return batch, u.numpy(), family.equation(batch).image(u).numpy()  # type: ignore[union-attr]


def test_the_grid_is_that_of_the_loops() -> None:
    grid = Grid(SIZE)
    assert np.allclose(grid.laplacian().toarray(), LAPLACE, atol=1e-11)
    assert np.allclose(grid.advection(1.5, -0.7).toarray(), carried(1.5, -0.7), atol=1e-12)
    assert torch.allclose(grid.sines @ grid.sines, torch.eye(SIZE, dtype=DOUBLE), atol=1e-14)
    assert np.allclose(np.sort(grid.eigenvalues.flatten()), np.linalg.eigvalsh(LAPLACE), rtol=1e-12)


def test_sines_give_functions_of_the_laplacian(generator: torch.Generator) -> None:
    grid = Grid(SIZE)
    u = torch.randn(3, SIZE**2, dtype=DOUBLE, generator=generator)
    assert np.allclose(through_sines(u, grid.sines, 1 / grid.eigenvalues), np.linalg.solve(LAPLACE, u.numpy().T).T)
    assert np.allclose(through_sines(u, grid.sines, grid.eigenvalues), u.numpy() @ LAPLACE)


def test_modes_are_products_of_sines() -> None:
    weights = torch.zeros(1, 3, 3, dtype=DOUBLE)
    weights[0, 1, 2] = 2.5
    x = torch.arange(1, SIZE + 1, dtype=DOUBLE) * H
    exact = 2.5 * torch.sin(2 * math.pi * x)[:, None] * torch.sin(3 * math.pi * x)
    assert torch.allclose(Grid(SIZE).modes(weights)[0], exact.flatten(), atol=1e-13)


class TestBratu:
    def test_the_image_inverts_the_laplacian(self) -> None:
        batch, u, image = drawn(Bratu(SIZE))
        assert np.allclose(image @ LAPLACE, batch.parameters["lam"].numpy()[:, None] * np.exp(u), rtol=1e-11)

    def test_the_reference_is_that_of_newton_krylov(self) -> None:
        family = Bratu(SIZE, lam=(6.0, 6.0))
        batch = family.sample(1, torch.Generator())
        found = scipy.optimize.newton_krylov(
            lambda u: LAPLACE @ u - 6 * np.exp(u), np.zeros(SIZE**2), f_tol=1e-9, method="gmres"
        )
        assert np.allclose(family.reference(batch)[0], found, atol=1e-9)

    def test_the_reference_is_the_lower_branch(self) -> None:
        """There, and not on the upper branch, the Picard iteration contracts; and u grows with lam."""
        family = Bratu(10)
        batch = family.sample(12, torch.Generator().manual_seed(0))
        reference = family.reference(batch)
        order = batch.parameters["lam"].argsort()
        assert bool((reference[order].diff(dim=0) > 0).all())
        hardest = batch.rows(order[-1:])
        J = torch.func.jacfwd(lambda u: family.equation(hardest).image(u[None])[0])(reference[order[-1]])
        assert float(torch.linalg.eigvals(J).abs().max()) < 1

    def test_there_is_no_solution_beyond_the_fold(self) -> None:
        batch = Bratu(10, lam=(1.0, 1.0)).sample(2, torch.Generator())
        batch.parameters["lam"][1] = 7.5
        reference = Bratu(10).reference(batch)
        assert bool(torch.isfinite(reference[0]).all())
        assert bool(reference[1].isnan().all())

    def test_large_grids_take_no_more_evaluations(self) -> None:
        """Preconditioned by the Laplacian, Anderson(3) needs 6 to 10 to 1e-8 on any grid."""
        for size in (10, 128):
            family = Bratu(size, lam=(5.0, 5.0))
            batch = family.sample(1, torch.Generator())
            assert 6 <= int(solve(family.equation(batch), batch.x0, Anderson(3), Tolerance(1e-8)).require().evals) <= 10


class TestConvection:
    def test_the_image_solves_with_the_laplacian(self) -> None:
        family = ConvectionDiffusion(SIZE, speed=(2.0, 2.0), modes=2)
        batch, u, image = drawn(family)
        source = Grid(SIZE).modes(batch.parameters["source"]).numpy()
        for i, (first, second) in enumerate(batch.parameters["velocity"].tolist()):
            assert math.hypot(first, second) == pytest.approx(2.0)
            assert np.allclose(LAPLACE @ image[i], source[i] - carried(first, second) @ u[i], atol=1e-9)

    def test_the_reference_is_that_of_dense_algebra(self) -> None:
        family = ConvectionDiffusion(SIZE, modes=3)
        batch, _, _ = drawn(family)
        source = Grid(SIZE).modes(batch.parameters["source"]).numpy()
        for u, s, w in zip(family.reference(batch), source, batch.parameters["velocity"].tolist(), strict=True):
            assert np.allclose(u, np.linalg.solve(LAPLACE + carried(*w), s), atol=1e-12)

    def test_the_spectrum_is_imaginary_and_the_matrix_not_normal(self) -> None:
        """Eigenvalues up to |w| / (2 sqrt(2) pi), as of the continuous problem; Euclidean norms above them."""
        family = ConvectionDiffusion(16, speed=(7.0, 7.0))
        batch = family.sample(3, torch.Generator().manual_seed(0))
        for i in range(3):
            P = family.equation(batch.rows(slice(i, i + 1))).image
            J = torch.func.jacfwd(lambda u, P=P: P(u[None])[0])(batch.x0[0])
            spectrum, bound = torch.linalg.eigvals(J), 7 / (2 * math.sqrt(2) * math.pi)
            assert float(spectrum.real.abs().max()) < 1e-12
            assert 0.97 * bound < float(spectrum.abs().max()) < bound
            assert float(torch.linalg.matrix_norm(J, 2)) > 1.2 * float(spectrum.abs().max())


class TestHeat:
    def test_the_image_is_jacobis(self) -> None:
        batch, u, image = drawn(HeatImplicit(SIZE))
        for i, dt in enumerate(batch.parameters["dt"].tolist()):
            A, v = np.eye(SIZE**2) + dt * LAPLACE, batch.parameters["v"][i].numpy()
            assert np.allclose(image[i], u[i] + (v - A @ u[i]) / np.diag(A), rtol=1e-12)

    def test_the_reference_is_that_of_dense_algebra(self) -> None:
        family = HeatImplicit(SIZE)
        batch, _, _ = drawn(family)
        for u, v, dt in zip(family.reference(batch), batch.x0, batch.parameters["dt"].tolist(), strict=True):
            assert np.allclose(u, np.linalg.solve(np.eye(SIZE**2) + dt * LAPLACE, v), atol=1e-12)

    def test_the_interval_is_attained_at_the_largest_step(self) -> None:
        family = HeatImplicit(SIZE, dt=(0.05, 0.05))
        D = np.diag(np.full(SIZE**2, 1 + 0.05 * 4 / H**2))
        spectrum = np.linalg.eigvalsh(np.eye(SIZE**2) - np.linalg.solve(D, np.eye(SIZE**2) + 0.05 * LAPLACE))
        assert family.interval == pytest.approx((spectrum[0], spectrum[-1]), rel=1e-12)


class TestReaction:
    def test_the_image_solves_the_linear_part(self) -> None:
        batch, u, image = drawn(ReactionImplicit(SIZE, nu=0.02))
        for i, dt in enumerate(batch.parameters["dt"].tolist()):
            right = batch.x0[i].numpy() + dt * (u[i] - u[i] ** 3)
            assert np.allclose((np.eye(SIZE**2) + dt * 0.02 * LAPLACE) @ image[i], right, atol=1e-11)

    def test_the_reference_is_a_step_of_implicit_euler(self) -> None:
        family = ReactionImplicit(SIZE)
        batch, _, _ = drawn(family)
        for u, v, dt in zip(family.reference(batch).numpy(), batch.x0.numpy(), batch.parameters["dt"], strict=True):
            assert np.allclose(u - float(dt) * (-0.01 * LAPLACE @ u + u - u**3), v, atol=1e-11)
            assert np.abs(v).max() <= 1

    def test_picard_contracts_at_the_rate_stated(self) -> None:
        family = ReactionImplicit(8, dt=(0.45, 0.45))
        batch = family.sample(8, torch.Generator().manual_seed(1))
        found = solve(family.equation(batch), batch.x0, Picard(), Tolerance(1e-10), trace=True).require()
        assert found.trace is not None
        ratio = (found.trace.residual[1:] / found.trace.residual[:-1]).nan_to_num(0.0)
        assert float(ratio.max()) <= 2 * 0.45


class TestNewton:
    def test_it_finds_a_root(self) -> None:
        x = newton(lambda x: x**3 - np.array([8.0, 27.0]), lambda x: csc_array(np.diag(3 * x**2)), np.ones(2))
        assert np.allclose(x, [2, 3], rtol=1e-14)

    @pytest.mark.parametrize(
        ("f", "slope"), [(lambda x: x**2 + 1, lambda x: 2 * x), (lambda x: 1 + 0 * x, lambda x: 0 * x)]
    )
    def test_where_there_is_none_it_says_nan(self, f: Callable, slope: Callable) -> None:
        assert np.isnan(newton(f, lambda x: csc_array(np.diag(slope(x))), np.array([0.3, 0.4]))).all()


@pytest.mark.parametrize("family", [Bratu, ConvectionDiffusion, HeatImplicit, ReactionImplicit])
def test_grids_have_at_least_two_points_a_side(family: type) -> None:
    with pytest.raises(ValueError, match="size must be an integer >= 2, got 1"):
        family(size=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bratu(lam=(0.0, 1.0)), "lam must be a pair of finite numbers low <= high > 0"),
        (lambda: ConvectionDiffusion(speed=(-1.0, 1.0)), "speed must be a pair of finite numbers"),
        (lambda: ConvectionDiffusion(size=4, modes=5), "modes must be at most size = 4, got 5"),
        (lambda: HeatImplicit(dt=(0.0, 1.0)), "dt must be a pair of finite numbers"),
        (lambda: HeatImplicit(size=4, modes=5), "modes must be at most size = 4, got 5"),
        (lambda: HeatImplicit(roughness=-1.0), "roughness must be finite and >= 0, got -1.0"),
        (lambda: ReactionImplicit(nu=0.0), "nu must be a pair of finite numbers"),
        (lambda: ReactionImplicit(modes=0), "modes must be an integer >= 1, got 0"),
        (lambda: ReactionImplicit(size=4, modes=5), "modes must be at most size = 4, got 5"),
    ],
)
def test_refusals(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
