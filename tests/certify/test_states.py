"""States of every shape, operators that break the rules, and arguments that are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.cells import DOUBLE

from settlepoint import Equation, Segments, certify

ANY: Callable[[object], Any] = lambda v: v  # noqa: E731
"""What a type checker would not let pass."""

METHODS = (*certify.METHODS, "auto")
PROOFS = ("banach", "graph", "perron", "ball", "kantorovich")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (0,), (0, 2, 3)])
def test_empty_states(method, shape):
    found = certify.certificate(Equation(lambda x: 0.5 * torch.tanh(x) + 1), torch.zeros(shape, dtype=DOUBLE), method)
    rows = shape[0] if len(shape) > 1 else 1
    assert len(found.kind) == rows
    assert "proved" not in found.counts() or bool((found.radius < 1e-300).all())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 2, 2), (2, 1, 2, 2)])
def test_states_of_any_shape(method, shape):
    """One row without a batch dimension, or several of several dimensions."""
    eq, x = Equation(lambda x: 0.5 * torch.tanh(x) + 1), torch.full(shape, 1.4, dtype=DOUBLE)
    for _ in range(60):
        x = eq.image(x)
    found = certify.certificate(eq, x, method)
    if method == "perron" and (len(shape) < 2 or len(shape) > 2):
        assert set(found.kind) == {"refused"}
    else:
        assert set(found.kind) == {"estimated" if method == "newton-krylov" else "proved"}, found.reason[0]
        assert bool((found.radius < 1e-10).all())


@pytest.mark.parametrize("method", METHODS)
def test_tuples_and_segments(method):
    pair = Equation(lambda s: (0.3 * torch.tanh(s[1]), 0.3 * torch.sin(s[0]) + 1))
    x = (torch.zeros(3, 2, dtype=DOUBLE), torch.zeros(3, 2, dtype=DOUBLE))
    for _ in range(60):
        x = pair.image(x)
    kinds = set(certify.certificate(pair, x, method).kind)
    assert kinds <= {"proved", "estimated"} or method == "perron"
    eq = Equation(lambda x: 0.3 * torch.tanh(x) + 1, space=Segments(torch.tensor([0, 1, 1, 2]), 4))
    z = torch.ones(4, 2, dtype=DOUBLE)
    for _ in range(60):
        z = eq.image(z)
    found = certify.certificate(eq, z, method)
    assert len(found.kind) == 4
    assert set(found.kind) <= {"proved", "estimated"} or method == "perron", found.reason


@pytest.mark.parametrize("method", METHODS)
def test_operators_that_break_the_rules_are_named(method):
    x = torch.ones(2, 3, dtype=DOUBLE)
    with pytest.raises(ValueError, match="operator must not change its input in place"):
        certify.certificate(Equation(lambda x: x.mul_(0.5)), x, method)
    with pytest.raises(ValueError, match=r"the result of operator must have the shape of x, \(2, 3\), got \(2, 2\)"):
        certify.certificate(Equation(lambda x: 0.5 * x[:, :2]), x, method)
    with pytest.raises(TypeError, match="the result of operator must be a tensor"):
        certify.certificate(Equation(lambda x: (x, x)), x, method)
    with pytest.raises(ValueError, match="the result of operator must have the dtype of x"):
        certify.certificate(Equation(lambda x: x.float()), x, method)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda eq, x: certify.certificate(eq, x, "best"),
            ValueError,
            "method must be 'auto' or one of .*, got 'best'",
        ),
        (
            lambda eq, x: certify.certificate(ANY(torch.tanh), x),
            TypeError,
            "eq must be an Equation, got builtin_function",
        ),
        (lambda eq, x: certify.certificate(eq, ANY("x")), TypeError, "must be a .*tensor.*, got str"),
        (lambda eq, x: certify.certificate(eq, x.long()), ValueError, "must be of a floating or complex dtype"),
        (lambda eq, x: certify.Region(0.0), ValueError, "radius must be a finite number > 0, got 0"),
        (lambda eq, x: certify.Region(math.inf), ValueError, "radius must be a finite number > 0, got inf"),
        (lambda eq, x: certify.Region(1.0, 0), ValueError, "tokens must be an integer >= 1, got 0"),
        (lambda eq, x: certify.Region(1.0, True), ValueError, "tokens must be an integer >= 1, got True"),
        (
            lambda eq, x: certify.lipschitz_upper(ANY(3)),
            TypeError,
            "module must be an nn.Module or a function, got int",
        ),
        (
            lambda eq, x: certify.curvature_upper(ANY("m")),
            TypeError,
            "module must be an nn.Module or a function, got str",
        ),
        (
            lambda eq, x: certify.lipschitz_upper(torch.tanh, norm="l1"),
            ValueError,
            "norm must be one of two, node, sup",
        ),
        (
            lambda eq, x: certify.lipschitz_upper(torch.tanh, example=x),
            TypeError,
            "example must be a tuple.*got Tensor",
        ),
        (lambda eq, x: certify.traced(eq, x, -1.0), ValueError, "radius must be >= 0, got -1"),
    ],
)
def test_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(Equation(lambda x: 0.5 * x), torch.ones(2, 2, dtype=DOUBLE))
