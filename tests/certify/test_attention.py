"""Attention: what is bounded everywhere, what on balls alone, against dense Jacobians."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.cells import DOUBLE
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from settlepoint import certify
from settlepoint.layers import CubicAttention, L2Attention
from settlepoint.layers.attention import composed_l2_attention, l2_attention


def norm_at(operator, x: Tensor) -> Tensor:  # (n, d) -> ()
    """||J||_2 by a dense Jacobian."""
    with sdpa_kernel(SDPBackend.MATH):  # the fused one is slow under vmap, and warns
        J = torch.func.jacrev(lambda z: operator(z[None])[0].reshape(-1))(x)
    return torch.linalg.matrix_norm(J.reshape(-1, x.numel()), 2)


def scaled(module: nn.Module, size: float) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(size)
    return module.double()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_attention_by_distances_is_bounded_everywhere(heads, tokens, generator):
    """The norm is driven up by gradient ascent over the tokens; random points would stay far below."""
    worst = 0.0
    for size in (1.0, 3.0, 6.0):
        module = scaled(L2Attention(4, heads, generator=generator), size)
        x = torch.randn(tokens, 4, dtype=DOUBLE, generator=generator).requires_grad_()
        bound = certify.lipschitz_upper(module, example=(x.detach()[None],))
        ascent = torch.optim.Adam([x], 0.1)
        for _ in range(25):
            ascent.zero_grad()
            measured = norm_at(module, x)
            worst = max(worst, float(measured.detach()) / bound)
            (-measured).backward()
            ascent.step()
    assert 0.05 < worst <= 1


def test_one_token_has_the_norm_of_its_matrices():
    """softmax of one score is 1, so that the map is linear: ||W_Q W_Q^T W_V|| / sqrt(k)."""
    query, value = torch.eye(3, dtype=DOUBLE)[None] * 2, torch.eye(3, dtype=DOUBLE)[None] * 5
    assert certify.l2_attention_norm(query, value, 1) == pytest.approx(20 / math.sqrt(3))
    assert norm_at(lambda z: l2_attention(z, query, value), torch.ones(1, 3, dtype=DOUBLE)) == pytest.approx(
        20 / 3**0.5
    )


def test_the_function_and_its_steps_agree(generator):
    module = L2Attention(6, 3, generator=generator)
    x = torch.randn(2, 4, 6, generator=generator)
    with torch.no_grad():
        whole, steps = (f(x, module.query, module.value) for f in (l2_attention, composed_l2_attention))
    assert torch.equal(whole, steps)


@pytest.mark.parametrize("radius", [0.5, 2.0])
def test_cubic_attention_has_the_constant_of_lemma_2(radius, generator):
    """M = 3 r^2 ||W_Q|| ||W_K|| ||W_V||, which the structure gives to rounding; no more is measured on the sphere."""
    module = scaled(CubicAttention(3, generator=generator), 1.5)
    weights = (module.query, module.key, module.value)
    expected = 3 * radius**2 * math.prod(float(torch.linalg.matrix_norm(w.detach(), 2)) for w in weights)  # type: ignore[arg-type]
    found = certify.lipschitz_upper(module, certify.Region(radius, tokens=4))
    assert found == pytest.approx(expected, rel=1e-6)
    for _ in range(20):
        x = torch.randn(4, 3, dtype=DOUBLE, generator=generator)
        assert norm_at(module, radius * x / x.norm()).detach() <= found


def test_the_derivative_of_cubic_attention_is_the_formula(generator):
    """Lemma 2: T'(X) H = (H W_Q)(X W_K)^T (X W_V) + (X W_Q)(H W_K)^T (X W_V) + (X W_Q)(X W_K)^T (H W_V)."""
    module = CubicAttention(3, generator=generator).double()
    x, h = (torch.randn(2, 4, 3, dtype=DOUBLE, generator=generator) for _ in range(2))
    q, k, v = (w.detach() for w in (module.query, module.key, module.value))
    pieces = [(h, x, x), (x, h, x), (x, x, h)]
    formula = torch.stack([(a @ q) @ (b @ k).mT @ (c @ v) for a, b, c in pieces]).sum(0)
    assert torch.allclose(torch.func.jvp(module, (x,), (h,))[1].detach(), formula, atol=1e-12)


def test_dot_products_have_no_constant_and_grow(generator):
    """The refusal is right: the norm grows like r^2 along a ray."""
    attention = nn.MultiheadAttention(4, 1, bias=False, batch_first=True, dtype=DOUBLE)
    with pytest.raises(certify.Refused, match="has no bound on the whole space"):
        certify.lipschitz_upper(attention)
    call = lambda z: attention(z, z, z, need_weights=False)[0]  # noqa: E731
    x = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0.1, 0, 0], [0, 0, 0, 0]], dtype=DOUBLE)
    norms = [float(max(norm_at(call, r * x).detach(), norm_at(call, r * x.flip(1)).detach())) for r in (1, 4, 16)]
    balls = [certify.lipschitz_upper(attention, certify.Region(3 * r, tokens=3)) for r in (1, 4, 16)]
    assert norms[2] > norms[0]
    assert all(n <= b for n, b in zip(norms, balls, strict=True))
    assert balls[0] < balls[1] < balls[2]


@pytest.mark.parametrize("causal", [False, True])
def test_masks_change_no_bound_into_a_lie(causal, generator):
    W = [torch.randn(4, 4, dtype=DOUBLE, generator=generator) for _ in range(3)]
    call = lambda z: F.scaled_dot_product_attention(z @ W[0], z @ W[1], z @ W[2], is_causal=causal)  # noqa: E731
    bound = certify.lipschitz_upper(call, certify.Region(2.0), example=(torch.zeros(1, 3, 4, dtype=DOUBLE),))
    for _ in range(20):
        x = torch.randn(3, 4, dtype=DOUBLE, generator=generator)
        assert norm_at(call, 2 * x / x.norm()) <= bound


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="heads must divide width, got 3 and 4"):
        L2Attention(4, 3)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        CubicAttention(0)
