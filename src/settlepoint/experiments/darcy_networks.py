"""The networks of fno-deq-darcy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

import torch
from torch import nn

from settlepoint import Anderson, FixedPoint, FixedSteps, Implicit, Picard, Tolerance, Unrolled, certify
from settlepoint.data import Fields
from settlepoint.experiments import settling
from settlepoint.experiments.darcy_task import relative
from settlepoint.experiments.experiment import Scale, curve
from settlepoint.layers import FourierCell, Frame
from settlepoint.models import FNO, FNODEQ

SERVER, SERVED = Anderson(5), Tolerance(atol=0.0, rtol=1e-4, max_steps=200)
"""What every test sample is solved by, and to."""

DEPTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48)
NETWORKS = ("fno", "fno long", "gated", "gated long", "tied", "tied deep", "unrolled", "fno-deq")


@dataclass(frozen=True, kw_only=True)
class DarcyScale(Scale):
    """Sizes of the experiment."""

    train: Annotated[int, "samples to train on, of 1,000"] = 900
    val: Annotated[int, "samples held out, to choose settings by"] = 100
    noise: Annotated[float, "noise on the input, in its standard deviations, in training and test alike"] = 0.5
    width: Annotated[int, "channels of the networks of one layer"] = 16
    modes: Annotated[int, "frequencies of the networks of one layer"] = 8
    own_width: Annotated[int, "channels of FNO, whose layers have weights of their own"] = 13
    own_modes: Annotated[int, "frequencies of FNO"] = 5
    layers: Annotated[int, "layers of FNO and of the tied FNO"] = 4
    evals: Annotated[int, "evaluations of the unrolled cell and of the deep tied FNO"] = 10
    epochs: Annotated[int, "passes over the training samples"] = 8
    longer: Annotated[int, "times as many for the long rows"] = 4
    batch: Annotated[int, "samples a step of AdamW"] = 25
    lr: Annotated[float, "learning rate at the start; it falls to 0 along a cosine"] = 2e-2
    thresholds: Annotated[bool, "hold the table to its thresholds"] = True


def build(cell: str, scale: DarcyScale) -> nn.Module:
    """The network of a cell; weights from torch's global generator."""
    tied, own = (1, scale.width, 1), (1, scale.own_width, 1)
    match cell:
        case "fno" | "fno long":
            return FNO(own, scale.own_modes, scale.layers)
        case "gated" | "gated long":
            return FNO(own, scale.own_modes, scale.layers, sees_input=True)
        case "tied" | "tied deep":
            return FNO(tied, scale.modes, scale.layers if cell == "tied" else scale.evals, tied=True)
        case "unrolled":
            solver, stop, adjoint = Picard(), FixedSteps(scale.evals), Unrolled()
        case "fno-deq":
            solver, stop = Anderson(3), Tolerance(0.0, 1e-2, max_steps=40)
            adjoint = Implicit(Anderson(3), Tolerance(0.0, 3e-2, max_steps=40), order=1)
        case _:
            raise ValueError(f"cell must be one of {', '.join(NETWORKS)}, got {cell!r}")
    settle = FixedPoint(FourierCell(scale.width, scale.modes), solver, stop, adjoint, inject="input")
    return FNODEQ(Frame(tied), settle)


def evaluations(model: nn.Module) -> float:
    """Layers evaluated for a sample; of a model that iterates, the mean of its latest pass."""
    if isinstance(model, FNO):
        return model.depth
    last = cast(FNODEQ, model).settle.last
    assert last is not None
    return float(last.evals.double().mean())


@torch.no_grad()
def error(model: nn.Module, part: Fields) -> float:
    """Relative L2 in per cent."""
    return 100.0 * float(relative(model(part.x), part.y))


@torch.no_grad()
def settled(model: FNODEQ, part: Fields) -> tuple[dict[str, float], list[int], dict[str, int]]:
    """How the latest pass, over part, ended: metrics, evaluations of each sample, and statuses; residuals anew.

    rate: the median over samples of the factor by which Picard's residual changes a step (certify.verdict); from 1 on
    Picard alone would not settle, and Anderson does what it does.
    """
    last = model.settle.last
    assert last is not None
    eq, _ = model.double().posed(part.x.double())
    claims = settling.recheck(eq, last, SERVED)
    eq, start = model.float().posed(part.x)
    found = {
        "settled": last.counts().get("CONVERGED", 0),
        "evals": float(last.evals.double().mean()),
        "evals max": float(last.evals.max()),
        "false claims": claims["false claims"],
        "rate": float(certify.verdict(eq, start, 12).rate.median()),
    }
    return found, last.evals.tolist(), last.counts()


@torch.no_grad()
def by_evaluations(model: FNODEQ, part: Fields, cell: str) -> dict[str, Any]:
    """Curve: the error after fixed numbers of evaluations, whatever the model would choose."""
    kept, errors = model.settle.stop, []
    for steps in DEPTHS:
        model.settle.stop = FixedSteps(steps)
        errors.append(error(model, part))
    model.settle.stop = kept
    return curve(DEPTHS, errors, y_label="relative L2 (%)", log_y=True, group=cell)


def parameters(model: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(p.numel() for p in model.parameters())
