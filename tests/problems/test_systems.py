"""Eigenvectors, Neumann series and small systems against dense algebra and SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch

from settlepoint import FixedSteps, Picard, Tolerance, solve
from settlepoint.problems import Eigenvector, NeumannSeries, SmallSystems

DOUBLE = torch.float64


class TestEigenvector:
    def test_the_matrices_are_what_is_said(self, generator: torch.Generator) -> None:
        A = Eigenvector(ratio=(0.6, 0.7)).sample(50, generator).parameters["A"]
        assert torch.equal(A, A.mT)
        spectrum = torch.linalg.eigvalsh(A)
        assert torch.allclose(spectrum[:, -1], torch.ones(50, dtype=DOUBLE))
        assert 0.6 - 1e-12 <= float(spectrum[:, -2].min())
        assert float(spectrum[:, -2].max()) <= 0.7 + 1e-12
        assert float(spectrum.min()) > 0

    def test_the_reference_leads_and_keeps_the_side(self, generator: torch.Generator) -> None:
        family = Eigenvector(m=6)
        batch = family.sample(30, generator)
        x, A = family.reference(batch), batch.parameters["A"]
        assert torch.allclose((A @ x[:, :, None])[:, :, 0], x, atol=1e-12)  # the largest eigenvalue is 1
        assert torch.allclose(x.norm(dim=1), torch.ones(30, dtype=DOUBLE))
        assert bool(((x * batch.x0).sum(1) > 0).all())
        assert torch.allclose(batch.x0.norm(dim=1), torch.ones(30, dtype=DOUBLE))

    def test_the_power_method_converges_at_the_ratio(self, generator: torch.Generator) -> None:
        family = Eigenvector(m=6, ratio=(0.8, 0.8))
        batch = family.sample(20, generator)
        found = solve(family.equation(batch), batch.x0, Picard(), Tolerance(1e-12, max_steps=500), trace=True).require()
        assert found.trace is not None
        ratio = found.trace.residual[60] / found.trace.residual[59]
        assert float(ratio.max()) < 0.8 + 1e-6
        assert float(ratio.median()) > 0.8 - 1e-3  # of some rows the third eigenvalue is close to the second


class TestNeumann:
    def test_picard_sums_the_series(self, generator: torch.Generator) -> None:
        family = NeumannSeries(m=4)
        batch = family.sample(5, generator)
        B, b = batch.parameters["B"], batch.parameters["b"]
        term, total = b, torch.zeros_like(b)
        for _ in range(6):
            total, term = total + term, (B @ term[:, :, None])[:, :, 0]
        found = solve(family.equation(batch), batch.x0, Picard(), FixedSteps(6)).value
        assert torch.allclose(found, total, atol=1e-13)  # type: ignore[arg-type]

    def test_the_norms_are_what_is_said(self, generator: torch.Generator) -> None:
        family = NeumannSeries(norm=(0.7, 0.8))
        batch = family.sample(40, generator)
        norms = np.linalg.norm(batch.parameters["B"].numpy(), 2, axis=(1, 2))
        assert 0.7 - 1e-12 <= norms.min() < 0.72
        assert 0.78 < norms.max() <= 0.8 + 1e-12
        exact = np.linalg.solve(np.eye(10) - batch.parameters["B"].numpy(), batch.parameters["b"].numpy()[:, :, None])
        assert np.allclose(family.reference(batch), exact[:, :, 0], atol=1e-12)


class TestSmallSystems:
    def test_the_equation_is_what_is_said(self, generator: torch.Generator) -> None:
        family = SmallSystems(m=6, reach=0.5)
        batch = family.sample(3, generator)
        K = np.array([[np.exp(-abs(i - j) / 3) for j in range(6)] for i in range(6)])
        K /= np.linalg.eigvalsh(K)[-1]
        x = torch.randn(3, 6, dtype=DOUBLE, generator=generator)
        s = x.numpy() / np.sqrt(1 + x.numpy() ** 2)
        exact = batch.parameters["b"].numpy() + batch.parameters["g"].numpy()[:, None] * (s @ K)
        assert np.allclose(family.equation(batch).image(x), exact, rtol=1e-13)

    def test_the_reference_is_that_of_hybr(self, generator: torch.Generator) -> None:
        family = SmallSystems()
        batch = family.sample(3, generator)
        reference = family.reference(batch)
        for i in range(3):
            P = family.equation(batch.rows(slice(i, i + 1))).image
            found = scipy.optimize.root(
                lambda x, P=P: P(torch.from_numpy(x)[None])[0].numpy() - x, np.zeros(20), tol=1e-12
            )
            assert np.allclose(reference[i], found.x, atol=1e-10)

    def test_picard_contracts_at_the_rate_stated(self, generator: torch.Generator) -> None:
        family = SmallSystems(rate=(0.7, 0.7))
        batch = family.sample(20, generator)
        found = solve(family.equation(batch), batch.x0, Picard(), Tolerance(1e-10), trace=True).require()
        assert found.trace is not None
        ratio = (found.trace.residual[1:] / found.trace.residual[:-1]).nan_to_num(0.0)
        assert 0.5 < float(ratio.max()) <= 0.7

    def test_ten_thousand_systems_are_referenced_at_once(self, generator: torch.Generator) -> None:
        family = SmallSystems()
        batch = family.sample(10_000, generator)
        reference = family.reference(batch)
        assert bool(torch.isfinite(reference).all())
        some = torch.tensor([0, 4095, 4096, 9999])  # both sides of a block's end
        assert torch.allclose(family.reference(batch.rows(some)), reference[some], atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Eigenvector(m=1), "m must be an integer >= 2, got 1"),
        (lambda: Eigenvector(ratio=(0.5, 1.0)), "ratio must lie below 1, where there is one leading eigenvector"),
        (lambda: NeumannSeries(norm=(0.5, 1.0)), "norm must lie below 1, where the series converges"),
        (lambda: NeumannSeries(m=0), "m must be an integer >= 1, got 0"),
        (lambda: SmallSystems(rate=(0.5, 1.0)), "rate must lie below 1, where P contracts"),
        (lambda: SmallSystems(reach=0.0), "reach must be a pair"),
        (lambda: SmallSystems(spread=float("nan")), "spread must be a pair"),
    ],
)
def test_refusals(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
