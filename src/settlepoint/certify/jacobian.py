"""Jacobians of P row by row: dense ones, their spectral radius by Arnoldi, and norms by power iteration."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from settlepoint.certify.certificate import Refused
from settlepoint.equation import Equation

_CHUNK = 4_000_000  # numbers of a block of Jacobian columns
_ALIKE = 1e-6  # by which a derivative may differ from the difference of values, in float64


@contextmanager
def unfused() -> Iterator[None]:
    """Inside: autograd on, transformer layers and attention by their parts, which have all derivatives."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def jacobians(eq: Equation, z: Tensor) -> Tensor:  # (R, W) -> (R, W, W)
    """J[r] = dP_r/dz_r at z, for a bound equation whose rows do not mix; W forward products.

    Raises `Refused` for operators that cannot be differentiated.
    """
    rows, width = z.shape
    if not width:
        return z.new_zeros(rows, 0, 0)
    basis = torch.eye(width, dtype=z.dtype, device=z.device)
    size = max(1, _CHUNK // max(1, rows * width))
    push = lambda e: product(eq, z, e.expand_as(z).contiguous())  # noqa: E731
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # ops that vmap takes one by one
        try:
            return torch.cat([torch.func.vmap(push)(part) for part in basis.split(size)]).permute(1, 2, 0)
        except (RuntimeError, Refused):  # an operator that vmap or forward mode cannot take
            return _by_reverse(eq, z)


def _by_reverse(eq: Equation, z: Tensor) -> Tensor:  # (R, W, W)
    """J from W backward products, for operators without forward mode."""
    with unfused(), _told():
        leaf = z.detach().requires_grad_()
        image = eq.flat(leaf)
        if not image.requires_grad:
            return torch.zeros_like(z)[:, :, None].expand(-1, -1, z.shape[1])
        rows = [torch.autograd.grad(image[:, i].sum(), leaf, retain_graph=True)[0] for i in range(z.shape[1])]
    return torch.stack(rows, 1)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of an operator that autograd cannot pass through become refusals."""
    try:
        yield
    except (RuntimeError, TypeError, NotImplementedError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise Refused(f"the operator has no derivative along its state: {first}") from None


def product(eq: Equation, z: Tensor, v: Tensor) -> Tensor:
    """J v at z, in forward mode. Raises `Refused` for operators without one."""
    with unfused(), _told():
        return torch.func.jvp(eq.flat, (z,), (v,))[1].detach()


def along(eq: Equation, z: Tensor, v: Tensor) -> Tensor:
    """J v, in forward mode or by two backward passes."""
    try:
        return product(eq, z, v)
    except Refused:
        with unfused(), _told():
            leaf = z.detach().requires_grad_()
            image = eq.flat(leaf)
            w = torch.zeros_like(image, requires_grad=True)
            (g,) = torch.autograd.grad(image, leaf, w, create_graph=True)
            return torch.autograd.grad(g, w, v)[0]


def transposed(eq: Equation, z: Tensor) -> Callable[[Tensor], Tensor]:
    """v -> J^T v at z."""
    with unfused():
        leaf = z.detach().requires_grad_()
        image = eq.flat(leaf)
    if not image.requires_grad:
        return torch.zeros_like

    def pull(v: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(image, leaf, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(v) if g is None else g

    return pull


@torch.no_grad()
def differentiable(eq: Equation, z: Tensor, image: Tensor, unit: float) -> Tensor:  # (R,) bool
    """Rows in which J v agrees with a difference of values, along one random direction.

    unit: rounding unit of what the operator works in.
    What rounds, sorts, detaches or takes an argmax has a derivative by autograd that is not that of its values.
    """
    if not z.shape[1]:
        return torch.ones(len(z), dtype=torch.bool, device=z.device)
    v = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(0)).to(z.device)
    v = v / torch.linalg.vector_norm(v, dim=1, keepdim=True)
    slope, size = along(eq, z, v), torch.linalg.vector_norm(z, dim=1, keepdim=True)
    change = torch.linalg.vector_norm(slope, dim=1)
    loose = min(1e-2, _ALIKE * (unit / torch.finfo(torch.float64).eps) ** (2 / 3))
    agree = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for h in _strides(size, unit):
        difference = (eq.flat(z + h * v) - eq.flat(z - h * v)) / (2 * h)
        hidden = 16 * unit * (size[:, 0] + torch.linalg.vector_norm(image, dim=1)) / h[:, 0]
        gap = torch.linalg.vector_norm(difference - slope, dim=1)
        seen = hidden <= 1e-2 * (1 + change)  # rounding hides nothing that counts
        agree = agree | (seen & ~(gap > loose * (1 + change) + hidden))
        if bool(agree.all()):
            break
    return agree


def _strides(size: Tensor, unit: float) -> Iterator[Tensor]:
    """Steps of a difference, for values large and small, and functions that are steep or have a kink near by."""
    for power in (1 / 3, 1 / 2):
        for scale in (size + 1, torch.where(size > 0, size, 1.0), torch.ones_like(size)):
            yield unit**power * scale


def power_bound(J: Tensor, doublings: int = 8) -> Tensor:  # (R, W, W) -> (R,)
    """An upper bound of the spectral radius: ||J^m||_F^{1/m} with m = 2^doublings, by squaring        (Gelfand)

    Above the radius by at most a factor (W k)^{1/m} with k the condition of the eigenvectors: 2 % for W = 100.
    """
    if not J.shape[1]:
        return J.new_zeros(len(J))
    largest = J.abs().amax((1, 2))
    largest = torch.where(largest > 0, largest, 1.0)
    power, logarithm, m = J / largest[:, None, None], largest.log(), 1
    for _ in range(doublings):
        size = torch.linalg.matrix_norm(power)
        scale = torch.where(size > 0, size, 1.0)
        logarithm = 2 * (logarithm + scale.log())
        power = power / scale[:, None, None]
        power, m = power @ power, 2 * m
    size = torch.linalg.matrix_norm(power)
    return torch.where(size > 0, ((logarithm + size.log()) / m).exp(), torch.zeros_like(size)) * (1 + 1e-12)


@torch.no_grad()
def spectral_radius(
    eq: Equation, x: Tensor | tuple[Tensor, ...], steps: int = 30, *, generator: torch.Generator | None = None
) -> Tensor:  # (R,)
    """The largest |eigenvalue| of the Jacobian of P at x, estimated row by row: never a proof.

    Arnoldi's method from a random start by Jacobian-vector products, `steps` of them: unlike a Rayleigh quotient it is
    right for rotations and other Jacobians that are not symmetric. Exact when steps >= the number of unknowns.
    """
    counted(steps)
    bound = eq.at(x)
    assert bound.layout is not None
    z = bound.layout.flatten(x).detach()
    if not z.shape[1]:
        return z.new_zeros(len(z))
    start = torch.randn(z.shape, dtype=z.dtype, generator=generator or torch.Generator().manual_seed(0)).to(z.device)
    hessenberg = _arnoldi(lambda v: along(bound, z, v), start, min(steps, z.shape[1]))
    return torch.linalg.eigvals(hessenberg.nan_to_num()).abs().amax(1)


def _arnoldi(push: Callable[[Tensor], Tensor], v: Tensor, count: int) -> Tensor:  # (R, W) -> (R, count, count)
    """H = V^T J V on the Krylov space of v, orthonormalised twice; columns after a breakdown are zero."""
    tiny = torch.finfo(v.dtype).eps
    basis = [v / torch.linalg.vector_norm(v, dim=1, keepdim=True)]
    H = v.new_zeros(len(v), count, count)
    for j in range(count):
        w = push(basis[j])
        scale = torch.linalg.vector_norm(w, dim=1, keepdim=True)
        for _ in range(2):
            for i, q in enumerate(basis):
                h = (q * w).sum(1, keepdim=True)
                H[:, i, j] += h[:, 0]
                w = w - h * q
        size = torch.linalg.vector_norm(w, dim=1, keepdim=True)
        going = size > 8 * tiny * scale
        if j + 1 < count:
            H[:, j + 1, j] = torch.where(going, size, 0.0)[:, 0]
            basis.append(torch.where(going, w / torch.where(going, size, 1.0), 0.0))
    return H


@torch.no_grad()
def lipschitz_estimate(
    eq: Equation, x: Tensor | tuple[Tensor, ...], steps: int = 30, *, generator: torch.Generator | None = None
) -> Tensor:  # (R,)
    """||J||_2 of the Jacobian of P at x, estimated from below by power iteration on J^T J: never a proof.

    steps: products with J and with J^T each. Says nothing of other points than x.
    """
    counted(steps)
    bound = eq.at(x)
    assert bound.layout is not None
    z = bound.layout.flatten(x).detach()
    v = torch.randn(z.shape, dtype=z.dtype, generator=generator or torch.Generator().manual_seed(0)).to(z.device)
    norm, pull = z.new_zeros(len(z)), transposed(bound, z)
    for _ in range(steps):
        size = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        u = along(bound, z, v / torch.where(size > 0, size, 1.0))
        norm = torch.linalg.vector_norm(u, dim=1)
        v = pull(u)
    return norm


def counted(steps: int) -> None:
    """Raise ValueError unless steps is a count."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
