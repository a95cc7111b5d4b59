"""Rows: those that talk are refused, those that are not finite leave the others alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import Equation, certify

METHODS = (*certify.METHODS, "auto")
PROOFS = ("banach", "graph", "perron", "ball", "kantorovich")


TALKS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch mean": lambda x: 0.5 * x + 0.3 * x.mean(0, keepdim=True),
    "first row": lambda x: 0.5 * x + 0.4 * x[:1],
    "last row": lambda x: 0.5 * x + 0.4 * x[-1:],
    "row before": lambda x: 0.5 * x + 0.4 * torch.roll(x, 1, 0),
    "row before, open": lambda x: 0.5 * x + 0.4 * torch.cat((0 * x[:1], x[:-1])),
    "halves": lambda x: 0.45 * torch.cat([sum(x.chunk(2)), sum(x.chunk(2))]),  # type: ignore[list-item]
    "quarters": lambda x: 0.225 * x.reshape(4, -1, x.shape[1]).sum(0).repeat(4, 1),
    "turned round": lambda x: 0.5 * x + 0.4 * x.flip(0),
    "sums": lambda x: 0.2 * x + 0.05 * (torch.ones(len(x), len(x), dtype=x.dtype).tril() @ x),
    "soft-max over rows": lambda x: 0.5 * torch.softmax(x, 0),
}


@pytest.mark.parametrize("rows", [2, 4, 8, 16, 20])
@pytest.mark.parametrize("name", TALKS)
def test_rows_that_talk_are_refused(name, rows, generator):
    """The radius of a row would speak of its own residual alone."""
    if name == "quarters" and rows % 4:
        return
    eq = Equation(TALKS[name], torch.ones(rows, 3, dtype=DOUBLE))
    x = torch.randn(rows, 3, dtype=DOUBLE, generator=generator)
    for method in METHODS:
        found = certify.certificate(eq, x, method)
        assert found.counts() == {"refused": rows}, method
        assert "rows depend on each other" in found.reason[0], found.reason[0]


@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize("name", ["batch mean", "first row", "halves"])
def test_rows_that_talk_in_float32_are_refused(name, share, generator):
    """Closures over float32 weights keep the operator in float32; rounding must not hide what rows say."""
    W = torch.randn(20, 20, generator=generator)
    W = 0.3 * W / torch.linalg.matrix_norm(W, 2)
    eq = Equation(lambda x: torch.tanh(x @ W) + share * TALKS[name](x), torch.ones(8, 20))
    found = certify.certificate(eq, torch.randn(8, 20, generator=generator), "graph")
    assert found.counts() == {"refused": 8}


@pytest.mark.parametrize("rows", [2, 5, 8, 16])
def test_one_row_that_hears_another_is_enough(rows, generator):
    """For many pairs of few rows."""
    x, unit = torch.randn(rows, 2, dtype=DOUBLE, generator=generator), torch.eye(rows, dtype=DOUBLE)
    for hears in range(rows):
        for told in {(hears + 1) % rows, (hears + 8) % rows, 0} - {hears}:

            def operator(x: Tensor, i: int = hears, j: int = told) -> Tensor:
                return 0.5 * x + 0.4 * unit[i][:, None] * x[j]

            found = certify.certificate(Equation(operator), x, "graph")
            assert "proved" not in found.counts(), (hears, told)


def test_a_false_proof_of_rows_that_talk():
    """What the refusal is for: row 1 satisfies its own equation, and is 1.4 from its fixed point, 10."""
    eq = Equation(TALKS["first row"], torch.ones(4, 3, dtype=DOUBLE))
    x = torch.full((4, 3), 10.0, dtype=DOUBLE)
    x[0] += 1
    x[1:] = (0.4 * x[0] + 1) / 0.5
    found = certify.certificate(eq, x)
    error = (x - 10).norm(dim=1)
    assert float(eq.residual(x)[1].norm()) < 1e-14  # type: ignore[index]
    assert bool((error <= found.radius).all())


def test_constants_of_rows_may_be_closed_over(generator):
    """An operator that knows its rows by their place is no operator whose rows talk."""
    u = torch.randn(4, 3, dtype=DOUBLE, generator=generator)
    eq = Equation(lambda x: 0.5 * torch.tanh(x) + u)
    for method in PROOFS:
        found = certify.certificate(eq, 1.5 * u, method)
        assert sum(found.counts().values()) == 4
    assert certify.certificate(eq, u).counts() == {"proved": 4}


@pytest.mark.parametrize(
    "operator",
    [
        lambda x: 0.5 * torch.tanh(x) + 1,
        lambda x: 0.1 * torch.nn.functional.layer_norm(x, (4,)) + x.new_tensor([1.0, 2, 3, 4]),
        lambda x: 0.1 * torch.exp(torch.tanh(x)) * torch.tanh(x) + 0.1,
        lambda x: 0.1 / (1 + x.square()) + 0.1 * torch.relu(x),
    ],
    ids=["tanh", "norm", "product", "quotient"],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("method", METHODS)
def test_bad_rows_are_refused_and_leave_the_others_alone(method, bad, operator):
    x = torch.ones(4, 4, dtype=DOUBLE)
    for _ in range(100):
        x = operator(x)
    good = certify.certificate(Equation(operator), x, method)
    spoilt = x.clone()
    spoilt[1] = bad
    spoilt[3, 2] = bad
    found = certify.certificate(Equation(operator), spoilt, method)
    kept = [found.kind[0], found.kind[2]] == [good.kind[0], good.kind[2]]
    assert kept, (good.kind, found.kind, found.reason[0])
    if not math.isfinite(bad):
        assert [found.kind[1], found.kind[3]] == ["refused", "refused"]
        assert bool(torch.isinf(found.radius[[1, 3]]).all())
    if good.kind[0] == "proved":
        assert torch.allclose(found.radius[[0, 2]], good.radius[[0, 2]], rtol=1e-3)


def test_nothing_but_bad_rows():
    x = torch.full((3, 2), math.nan, dtype=DOUBLE)
    for method in METHODS:
        assert certify.certificate(Equation(lambda x: 0.5 * x), x, method).counts() == {"refused": 3}
