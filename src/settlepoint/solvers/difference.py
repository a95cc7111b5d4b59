"""Forward differences as a layer: (f(x + eps d) - f(x)) / eps, with its backward written out."""

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def forward_difference(f: Map, x: Tensor, d: Tensor, fx: Tensor, epsilon: float) -> Tensor:  # all (R, W)
    """(f(x + eps d) - fx) / eps with fx = f(x): the derivative of f along d to first order in eps (R2N2, SM1.3).

    Backward, for a gradient g: J^T g to d, (J^T g)/eps to x and -g/eps to fx, all with J = f'(x + eps d). (The paper
    prints J at d.) f is called once more in the backward instead of being kept. Under the transforms of torch.func, and
    where f has trainable parameters of its own, ordinary differentiation is used, which reaches them; the latter shows
    in a first call and costs a second.
    """
    needed = torch.is_grad_enabled() and (x.requires_grad or d.requires_grad or fx.requires_grad)
    if not needed or torch._C._are_functorch_transforms_active():
        return (f(torch.add(x, d, alpha=epsilon)) - fx) / epsilon
    with torch.enable_grad():
        at = torch.add(x.detach(), d.detach(), alpha=epsilon).requires_grad_()
        y = f(at)
    if _reaches_beyond(y, at):
        return (f(torch.add(x, d, alpha=epsilon)) - fx) / epsilon
    return _Difference.apply(f, epsilon, x, d, fx, y.detach())  # type: ignore[return-value]


def _reaches_beyond(y: Tensor, x: Tensor) -> bool:
    """True when y depends on something that wants a gradient besides the leaf x."""
    waiting, seen = [y.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = node.variable if node.name() == "torch::autograd::AccumulateGrad" else None  # pyright: ignore
        if leaf is not None and leaf is not x:
            return True
        waiting += [parent for parent, _ in node.next_functions]
    return False


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f: Map, epsilon: float, x: Tensor, d: Tensor, fx: Tensor, y: Tensor) -> Tensor:
        ctx.f, ctx.epsilon = f, epsilon
        ctx.save_for_backward(x, d)
        return (y - fx) / epsilon

    @staticmethod
    def backward(ctx, g: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, d = ctx.saved_tensors
        pulled = torch.func.vjp(ctx.f, torch.add(x, d, alpha=ctx.epsilon))[1](g)[0]
        return None, None, pulled / ctx.epsilon, pulled, -g / ctx.epsilon, None
