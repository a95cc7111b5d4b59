"""Equation: what P is, how f, lam and context are fitted, and selections of rows. Oracle: the formula by hand."""

from __future__ import annotations

import pytest
import torch
from tests.cells import DOUBLE

from settlepoint import Equation, Rows, Segments, solve

X = torch.arange(6, dtype=DOUBLE).reshape(2, 3)


@pytest.mark.parametrize("lam", [1, 1.0, 2.5, 0, -1, torch.tensor(2.0), torch.tensor([3.0])], ids=str)
@pytest.mark.parametrize(
    "f", [None, torch.ones(3, dtype=DOUBLE), torch.ones(2, 1, dtype=DOUBLE)], ids=["none", "row", "column"]
)
def test_image_is_lam_T_plus_f(lam, f):
    eq = Equation(lambda x: x**2, f, lam)
    expected = float(lam) * X**2 + (0 if f is None else f)
    assert torch.equal(eq.at(X).image(X), expected)
    assert torch.equal(eq.at(X).residual(X), expected - X)
    assert torch.equal(eq.at(X).flat(X), expected)


def test_lam_of_one_costs_nothing():
    """The operator's own tensor comes back when there is nothing to add."""
    assert Equation(lambda x: x, lam=1.0).at(X).image(X) is X


def test_lam_a_row():
    lam = torch.tensor([2.0, 3.0], dtype=DOUBLE)
    assert torch.equal(Equation(lambda x: x, lam=lam).at(X).image(X), lam[:, None] * X)
    images = torch.ones(2, 4, 5, dtype=DOUBLE)
    assert torch.equal(Equation(lambda x: x, lam=lam).at(images).image(images), lam[:, None, None] * images)


def test_several_tensors():
    state, f = (X, X[:, :1]), (torch.ones(3, dtype=DOUBLE), torch.zeros(2, 1, dtype=DOUBLE))
    eq = Equation(lambda x: (x[0] * 2, x[1] * 3), f, lam=torch.tensor([1.0, 10.0], dtype=DOUBLE)).at(state)
    a, b = eq.image(state)
    scale = torch.tensor([[1.0], [10.0]], dtype=DOUBLE)
    assert torch.equal(a, scale * 2 * X + 1)
    assert torch.equal(b, scale * 3 * X[:, :1])
    assert torch.equal(eq.residual(state)[0], a - X)
    assert torch.equal(eq.flat(torch.cat((X, X[:, :1]), 1)), torch.cat((a, b), 1))
    assert torch.equal(Equation(lambda x: x, lam=2.0).image(state)[1], 2 * X[:, :1])


def test_context_is_handed_to_the_operator():
    u, shared = torch.tensor([[1.0], [2.0]], dtype=DOUBLE), torch.tensor(5.0, dtype=DOUBLE)
    eq = Equation(lambda x, u, s: u * x + s, context=(u, shared))
    assert torch.equal(eq.at(X).image(X), u * X + 5)


def test_from_root():
    """F(x) = x^2 - 2 as x = x - F(x): the image at 1.5 is 1.25."""
    eq = Equation.from_root(lambda x: x**2 - 2)
    assert eq.image(torch.tensor([1.5])).item() == 1.25
    pair = Equation.from_root(lambda x: (x[0], x[1] - 1))
    assert [t.item() for t in pair.image((torch.tensor(3.0), torch.tensor(3.0)))] == [0.0, 1.0]
    sol = solve(Equation.from_root(lambda x, c: (x**2 - c) / 4, context=(torch.tensor([[2.0], [9.0]], dtype=DOUBLE),)),
                torch.ones(2, 1, dtype=DOUBLE))  # fmt: skip
    assert torch.allclose(sol.require().value, torch.tensor([[2.0], [9.0]], dtype=DOUBLE).sqrt(), atol=1e-6)


def test_rows_gathers_everything():
    lam, f = torch.tensor([1.0, 2.0], dtype=DOUBLE), torch.tensor([[1.0], [2.0]], dtype=DOUBLE)
    u, shared = torch.tensor([7.0, 8.0]), "a word"
    eq = Equation(lambda x, u, s: x, f, lam, context=(u, shared), scale=torch.tensor([0.1, 0.2])).at(X)
    part = eq.rows(torch.tensor([1]))
    assert part.f.tolist() == [[2, 2, 2]]
    assert part.lam.tolist() == [2]
    assert part.context[0].tolist() == [8]
    assert part.context[1] == "a word"
    assert part.scale.tolist() == [pytest.approx(0.2)]
    assert part.layout.rows == 1
    assert torch.equal(part.image(X[1:]), 2 * X[1:] + 2)


def test_norms_of_an_unbound_equation():
    eq = Equation(lambda x: x)
    assert eq.norm(X).tolist() == X.norm(dim=1).tolist()
    assert eq.dot(X, X).tolist() == X.square().sum(1).tolist()
    assert eq.flat(X) is X


def test_norms_are_those_of_the_space():
    eq = Equation(lambda x: x, space=Rows(torch.tensor([4.0, 1.0, 1.0], dtype=DOUBLE))).at(X)
    assert eq.norm(X)[0].item() == pytest.approx(5**0.5)  # 4*0 + 1 + 4
    assert eq.dot(X, X)[1].item() == pytest.approx(4 * 9 + 16 + 25)


def test_an_equation_is_a_value():
    eq = Equation(torch.cos, lam=0.5)
    with pytest.raises(AttributeError):
        eq.lam = 1.0
    assert eq.at(torch.zeros(2, 2)) is not eq
    assert eq.layout is None


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Equation(3), TypeError, "operator must be callable, got int"),
        (lambda: Equation(None), TypeError, "operator must be callable, got NoneType"),
        (lambda: Equation(torch.cos, lam="2"), TypeError, "lam must be a number or a tensor, got str"),
        (lambda: Equation(torch.cos, lam=[1.0]), TypeError, "lam must be a number or a tensor, got list"),
        (lambda: Equation(torch.cos, context=torch.ones(2)), TypeError, "context must be a tuple, got Tensor"),
        (lambda: Equation.from_root(7), TypeError, "F must be callable, got int"),
        (lambda: Equation(torch.cos, torch.ones(4, dtype=DOUBLE)).at(X), ValueError, r"broadcast .* got \(4,\)"),
        (lambda: Equation(torch.cos, torch.ones(5, 2, 3, dtype=DOUBLE)).at(X), ValueError, "f must broadcast"),
        (lambda: Equation(torch.cos, torch.ones(3)).at(X), ValueError, "f must have the dtype .*float64, got .*32"),
        (lambda: Equation(torch.cos, 1.0).at(X), TypeError, "f must be a tensor, got float"),
        (lambda: Equation(torch.cos, (X,)).at(X), TypeError, "f must be a tuple of tensors exactly when x0 is one"),
        (lambda: Equation(torch.cos, X).at((X, X)), TypeError, "f must be a tuple"),
        (lambda: Equation(torch.cos, (X,)).at((X, X)), ValueError, "f must hold 2 tensors as x0 does, got 1"),
        (lambda: Equation(torch.cos, lam=torch.ones(3)).at(X), ValueError, r"each of the 2 rows, got \(3,\)"),
        (lambda: Equation(torch.cos, lam=torch.ones(2, 1)).at(X), ValueError, r"lam must be .* got \(2, 1\)"),
        (lambda: Equation(torch.cos, context=(X[0],)).at(X), ValueError, r"context must .* got \(3,\); what all"),
        (lambda: Equation(torch.cos, scale=torch.ones(5)).at(X), ValueError, r"scale must .* 2 rows, got \(5,\)"),
    ],
)  # fmt: skip
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_lam_of_another_dtype():
    """float64 lam beside a float32 state: the message must name lam, as it names f."""
    with pytest.raises(ValueError, match="lam"):
        solve(Equation(lambda x: 0.5 * x, lam=torch.tensor([1.0, 0.5], dtype=DOUBLE)), torch.zeros(2, 3))


def test_lam_a_row_of_segments():
    """x = lam x/2 + 1 with lam 1 and 1/2: 2 and 4/3 at the entries of rows 0 and 1."""
    lam, index = torch.tensor([1.0, 0.5], dtype=DOUBLE), torch.tensor([0, 0, 0, 1, 1])
    eq = Equation(lambda x: 0.5 * x, torch.ones(5, 1, dtype=DOUBLE), lam, Segments(index, 2))
    expected = torch.tensor([2, 2, 2, 4 / 3, 4 / 3], dtype=DOUBLE)
    assert torch.allclose(solve(eq).value.flatten(), expected, atol=1e-5)
