"""Following an operator: its bound on a ball, or on the whole space, from two runs of its code."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from settlepoint.certify.bound import Bound, joined
from settlepoint.certify.certificate import Refused
from settlepoint.certify.traced import LEAKS, WITNESS, Leaks, Traced, Witness
from settlepoint.equation import Equation
from settlepoint.solvers.solver import map_state
from settlepoint.spaces import Rows, State

_WIDEST = 1000  # states for which a table of all pairs of entries is kept


def traced(eq: Equation, x: State, radius: Tensor | float = torch.inf, *, free: tuple[int, ...] = ()) -> Traced:
    """P(x) with its bound, for all states within radius of x in the 2-norm of a row; inf: for all states.

    eq: an Equation. x: the point. radius: one value, or one a row (R,). free: places in eq.context whose values the
    bound may not depend on. The code is run once more with x moved, to catch what depends on it unseen. Raises
    `Refused` where some step has no bound.
    """
    parts = x if isinstance(x, tuple) else (x,)
    if bool((torch.as_tensor(radius) < 0).any()):
        raise ValueError(f"radius must be >= 0, got {radius}")
    if any(p.is_complex() for p in parts):
        raise Refused("bounds are known for real states")
    witness = Witness()
    token = WITNESS.set(witness)
    try:
        whole = _run(eq, x, _bounds(eq, x, radius), free)
        witness.replay = True
        _run(eq, _moved(x), _bounds(eq, x, radius), free)
    finally:
        WITNESS.reset(token)
        _tidied(eq, x)
    if any(bool(torch.isnan(n).any()) for n in (whole.bound.two, whole.bound.bend)):
        raise Refused("weights or arguments of the operator are not finite")
    return whole


def _tidied(eq: Equation, x: State) -> None:
    """One plain call, after which a module that keeps what it sees keeps plain tensors."""
    with contextlib.suppress(Exception), torch.no_grad():
        eq.image(map_state(torch.clone, x))  # pyright: ignore[reportArgumentType]


def refuse_training(operator: object) -> None:
    """Raise `Refused`, naming the mend, for modules that draw or mix rows in training."""
    for module in (part for whole in _modules(operator) for part in whole.modules()):
        if not module.training:
            continue
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise Refused("BatchNorm mixes the rows of a batch in training; call .eval() on the model first")
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats:
            raise Refused("InstanceNorm keeps running statistics in training; call .eval() on the model first")
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise Refused("Dropout is in training, where the operator is random; call .eval() on the model first")


def _modules(operator: object) -> list[nn.Module]:
    """The operator, or what a function closes over, is bound to, or was partly given."""
    if isinstance(operator, nn.Module):
        return [operator]
    cells = [c.cell_contents for c in getattr(operator, "__closure__", None) or () if _filled(c)]
    given = [*getattr(operator, "args", ()), getattr(operator, "func", None), getattr(operator, "__self__", None)]
    return [v for v in (*cells, *given) if isinstance(v, nn.Module)]


def _filled(cell: object) -> bool:
    try:
        return cell.cell_contents is not None  # pyright: ignore[reportAttributeAccessIssue]
    except ValueError:
        return False


def _bounds(eq: Equation, x: State, radius: Tensor | float) -> list[Bound]:
    """Of every tensor of the state; one for all rows where entries, not rows, lead."""
    parts = x if isinstance(x, tuple) else (x,)
    layout = eq.layout or eq.space.layout(x)
    rows = layout.rows if isinstance(eq.space, Rows) and layout.batched else 1
    ball = torch.as_tensor(radius, dtype=torch.float64, device=parts[0].device)
    ball = ball.reshape(-1).amax(0, keepdim=True) if rows == 1 and ball.numel() else ball.expand(rows)
    plain_rows = len(parts) == 1 and parts[0].ndim == 2 and isinstance(eq.space, Rows)
    width = parts[0].shape[1] if plain_rows and parts[0].shape[1] <= _WIDEST else None
    return [Bound.of_state(ball, width) for _ in parts]


def _run(eq: Equation, x: State, bounds: list[Bound], free: tuple[int, ...]) -> Traced:
    """One run of the operator's code. Autograd is on, since operators may turn it off, and see it, by themselves."""
    parts = x if isinstance(x, tuple) else (x,)
    with torch.enable_grad():
        leaks = Leaks()
        token = LEAKS.set(leaks)
        try:
            given = tuple(Traced.make(p.detach().clone(), b) for p, b in zip(parts, bounds, strict=True))
            context = tuple(_arbitrary(c, bounds[0]) if i in free else c for i, c in enumerate(eq.context))
            with leaks:
                image = _image(eq, given if isinstance(x, tuple) else given[0], context)
        finally:
            LEAKS.reset(token)
    results = image if isinstance(image, tuple) else (image,)
    found = [p for p in results if isinstance(p, Traced)]
    for part in found:
        _ = part.value  # refused where it was changed through another name
    if len(found) < len(results):
        raise Refused("the operator's result does not depend on the state through torch functions; is it NumPy inside?")
    return found[0] if len(found) == 1 else _joined(found)


def _image(eq: Equation, given: State, context: tuple) -> State:
    try:
        return Equation(eq.operator, eq.f, eq.lam, eq.space, context).image(given)
    except Refused:
        raise
    except Exception as error:  # an operator that takes plain tensors alone, as compiled ones do
        first = (str(error).splitlines() or [""])[0]
        raise Refused(f"the operator cannot be followed: {type(error).__name__}: {first}") from error


def _arbitrary(value: Tensor, like: Bound) -> Traced:
    """An argument that the bound may not depend on."""
    zero = torch.zeros_like(like.two[:1])
    return Traced.make(value, Bound(zero, zero, zero, zero, zero, zero + torch.inf, zero, free=True))


def _moved(x: State) -> State:
    """Another point, near by."""
    draw = torch.Generator().manual_seed(0)

    def move(p: Tensor) -> Tensor:
        noise = torch.randn(p.shape, dtype=torch.float64, generator=draw).to(p)
        return p + 0.1 * (1 + p.abs()) * noise

    return tuple(map(move, x)) if isinstance(x, tuple) else move(x)


def _joined(parts: list[Traced]) -> Traced:
    """Several tensors of a state as one row each."""
    rows = parts[0].bound.rows
    values = torch.cat([p.value.reshape(len(p) if p.ndim and rows > 1 else 1, -1) for p in parts], 1)
    return Traced.make(values, joined([p.bound for p in parts], along_last=False).without_node())
