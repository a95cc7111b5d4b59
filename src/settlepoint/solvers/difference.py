"""Forward differences as a layer: (f(x + eps d) - f(x)) / eps, with its backward written out."""

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def forward_difference(f: Map, x: Tensor, d: Tensor, fx: Tensor, epsilon: float) -> Tensor:  # all (R, W)
    """(f(x + eps d) - fx) / eps with fx = f(x): the derivative of f along d to first order in eps (R2N2, SM1.3).

    Backward, for a gradient g: J^T g to d, (J^T g)/eps to x and -g/eps to fx, all with J = f'(x + eps d). (The paper
    prints J at d.) f is called once more in the backward instead of being kept. Where f has trainable parameters of its
    own, and under the transforms of torch.func, ordinary differentiation is used: it reaches them.
    """
    if not torch.is_grad_enabled() or not (x.requires_grad or d.requires_grad or fx.requires_grad):
        return (f(torch.add(x, d, alpha=epsilon)) - fx) / epsilon
    if torch._C._are_functorch_transforms_active() or _trainable(f, x):
        return (f(torch.add(x, d, alpha=epsilon)) - fx) / epsilon
    return _Difference.apply(f, epsilon, x, d, fx)  # type: ignore[return-value]


def _trainable(f: Map, x: Tensor) -> bool:
    """True when f depends on something that wants a gradient besides x. Costs a call on one row at most."""
    with torch.enable_grad():
        return f(x.detach()).requires_grad


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f: Map, epsilon: float, x: Tensor, d: Tensor, fx: Tensor) -> Tensor:
        at = torch.add(x, d, alpha=epsilon)
        ctx.f, ctx.epsilon = f, epsilon
        ctx.save_for_backward(at)
        return (f(at) - fx) / epsilon

    @staticmethod
    def backward(ctx, g: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (at,) = ctx.saved_tensors
        pulled = torch.func.vjp(ctx.f, at)[1](g)[0]
        return None, None, pulled / ctx.epsilon, pulled, -g / ctx.epsilon
