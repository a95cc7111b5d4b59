"""The rule of attention by distances, which has a Lipschitz constant on the whole space."""

from __future__ import annotations

import math

import torch
from scipy.special import lambertw
from torch import Tensor

from settlepoint.certify.bound import Bound, times
from settlepoint.certify.certificate import Refused
from settlepoint.certify.norms import finite
from settlepoint.certify.traced import Traced, plain, rule
from settlepoint.layers.attention import composed_l2_attention, l2_attention


def l2_attention_norm(query: Tensor, value: Tensor, tokens: int) -> float:
    """(sqrt(n) (1 + 2 c) + 2 c) sqrt(sum_h ||W_Q^h||^4 ||W_V^h||^2) / sqrt(k) with c = W_0((n - 1) / e).

    A Lipschitz constant of `layers.l2_attention` in the 2-norm on n tokens, after Kim, Papamakarios and Mnih (2021).
    With q = x W_Q / k^{1/4} a head is g(q) W_Q^T / k^{1/4}, g_i = sum_j P_ij q_j, P = softmax(-||q_i - q_j||^2), and

        dg_i = sum_j P_ij dq_j + 2 Cov_i dq_i + 2 sum_j P_ij (q_j - g_i) (q_i - q_j)^T dq_j,

    where Cov_i and, by Cauchy and Schwarz, the last sum are bounded by sum_j P_ij ||q_i - q_j||^2 <= c, Lambert's W at
    (n - 1) / e, and ||P|| by sqrt(n). query, value: (h, d, k).
    """
    norms = [torch.linalg.matrix_norm(finite(w), ord=2) for w in (query, value)]
    heads = float(torch.linalg.vector_norm(norms[0] ** 2 * norms[1])) / math.sqrt(query.shape[-1])
    c = float(lambertw((tokens - 1) / math.e).real)
    return (math.sqrt(tokens) * (1 + 2 * c) + 2 * c) * heads * (1 + 1e-12)


@rule(l2_attention)
def _(y: Tensor, x: Traced, query: Tensor, value: Tensor) -> Bound:
    """The theorem, and on balls what its steps give, whichever is less."""
    constant = l2_attention_norm(plain(query), plain(value), x.shape[-2])
    two = times(constant, x.bound.two)
    unknown = torch.full_like(two, torch.inf)
    whole = Bound(two, unknown, unknown, two, unknown, unknown, x.bound.radius)
    try:
        steps = composed_l2_attention(x, query, value).bound  # pyright: ignore[reportAttributeAccessIssue]
    except Refused:
        return whole
    if steps.rows != whole.rows:
        return whole
    return steps.kept(two=torch.minimum(steps.two, two), bend=steps.bend)
