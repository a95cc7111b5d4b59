"""What the cycles of a structure predictor say: steps, errors to a reference, and whether each target settles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from settlepoint.certify.verdict import DRIFTING, MARGINAL, SETTLING, slope
from settlepoint.chains.cycles import Cycle
from settlepoint.chains.structures import gdt_ts, kabsch

SETTLED, CYCLING = "settled", "cycling"
KINDS = (SETTLED, SETTLING, MARGINAL, CYCLING, DRIFTING)

_FACTOR = 2.0  # by which a step must fall, or grow, in the second half of the cycles, as for verdicts
_PERIODS = (2, 3, 4)
_SAME = 0.1  # of a step: structures that come so close again have come back
_CONSTANT = 1e-9  # relative range of a curve that has none


@dataclass(frozen=True, eq=False)
class TraceMetrics:
    """Course of B targets over the cycles 0 ... K; what was not recorded is None.

    step: (K, B), RMSD of cycles k - 1 and k after superposition, in Angstrom, or of cycle k - 1 and its image. rmsd,
    gdt: (K + 1, B), to the reference, in Angstrom and per cent. single, pair: (K, B), ||s_k - s_{k-1}|| / ||s_k|| of
    the representations. confidence: (K + 1, B), mean over the residues. inner: (K + 1, k - 1, B), the step between
    blocks of the structure module.

    kind: (B,) strings. "settled": the last step is within the tolerance. "cycling": the last structure has come back to
    that of 2, 3 or 4 cycles ago, within a tenth of the last move. Else by the trend of the steps over the second half
    of the cycles, as for `certify.Verdict`: "settling" when they at least halve, "drifting" when they at least double,
    "marginal" when neither.
    """

    step: Tensor
    kind: tuple[str, ...]
    rmsd: Tensor | None = None
    gdt: Tensor | None = None
    single: Tensor | None = None
    pair: Tensor | None = None
    confidence: Tensor | None = None
    inner: Tensor | None = None

    def counts(self) -> dict[str, int]:
        """Number of targets of every kind that occurs."""
        return {kind: self.kind.count(kind) for kind in KINDS if kind in self.kind}

    def share(self, kind: str) -> float:
        """Share of the targets of that kind, in per cent."""
        return 100 * self.kind.count(kind) / max(1, len(self.kind))


@torch.no_grad()
def trace_metrics(
    cycles: Sequence[Cycle],
    reference: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    tolerance: float = 0.1,
    images: Sequence[Tensor] | None = None,
) -> TraceMetrics:
    """Metrics of B targets of one length over their cycles.

    reference: (B, n, 3) or (n, 3), the true CA atoms. mask: (B, n) or (n,), False for residues that are left out, such
    as those that the reference lacks. tolerance: of a step, in Angstrom, at which a target has settled. images: K
    coordinates (B, n, 3), what plain recycling makes of cycles 0 ... K - 1, for cycles that a solver has smoothed or
    combined: their own steps say less, or more, than how far a recycle still goes.

    Raises ValueError for fewer than two cycles, cycles of different shape, a reference or mask of another shape, and
    coordinates that are not finite or not real.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be > 0, got {tolerance}")
    x = _stacked(cycles, mask)  # (K + 1, B, n, 3)
    reference = None if reference is None else _fitting(reference, x).to(x)
    step = kabsch(x[1:] if images is None else _images(images, x), x[:-1], mask).rmsd
    inner = [kabsch(c.blocks[1:], c.blocks[:-1], mask).rmsd for c in cycles if c.blocks is not None]
    sure = [_mean(c.confidence, mask) for c in cycles if c.confidence is not None]
    return TraceMetrics(
        step,
        _kinds(x, step, mask, tolerance),
        None if reference is None else kabsch(x, reference, mask).rmsd,
        None if reference is None else gdt_ts(x, reference, mask),
        _changes([c.single for c in cycles]),
        _changes([c.pair for c in cycles]),
        torch.stack(sure) if len(sure) == len(cycles) else None,
        torch.stack(inner) if len(inner) == len(cycles) else None,
    )


def _stacked(cycles: Sequence[Cycle], mask: Tensor | None) -> Tensor:
    if len(cycles) < 2:
        raise ValueError(f"cycles must be at least two, got {len(cycles)}")
    shapes = [tuple(c.coordinates.shape) for c in cycles]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3:
        raise ValueError(f"cycles must hold coordinates (B, n, 3) of one shape, got {sorted(set(shapes))}")
    if any(c.coordinates.is_complex() for c in cycles):
        raise ValueError(f"cycles must hold real coordinates, got {cycles[0].coordinates.dtype}")
    if mask is not None and tuple(mask.shape) not in (shapes[0][:2], shapes[0][1:2], (1, shapes[0][1])):
        raise ValueError(f"mask must be of shape {shapes[0][:2]} or {shapes[0][1:2]}, got {tuple(mask.shape)}")
    x = torch.stack([c.coordinates for c in cycles]).double()
    lost = ~x.isfinite().all(-1) if mask is None else ~x.isfinite().all(-1) & mask.bool()
    if bool(lost.any()):
        k, row, residue = lost.nonzero()[0].tolist()
        raise ValueError(
            f"cycles must hold finite coordinates, got {int(lost.sum())} atoms that are not, the first in cycle {k}, "
            f"chain {row}, residue {residue}"
        )
    return x


def _fitting(reference: Tensor, x: Tensor) -> Tensor:
    whole = tuple(x.shape[1:])
    if tuple(reference.shape) not in (whole, whole[1:], (1, *whole[1:])):
        raise ValueError(f"reference must be of shape {whole} or {whole[1:]}, got {tuple(reference.shape)}")
    if reference.is_complex():
        raise ValueError(f"reference must be real, got {reference.dtype}")
    return reference


def _images(images: Sequence[Tensor], x: Tensor) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(images) != len(x) - 1 or shapes != {tuple(x.shape[1:])}:
        raise ValueError(
            f"images must be {len(x) - 1} coordinates of the shape {tuple(x.shape[1:])}, got {len(images)}"
        )
    return torch.stack(list(images)).double()


def _mean(confidence: Tensor, mask: Tensor | None) -> Tensor:  # (B, n) -> (B,)
    kept = confidence.double()
    return kept.nanmean(-1) if mask is None else kept.where(mask.bool(), torch.nan).nanmean(-1)


def _changes(states: Sequence[Tensor | None]) -> Tensor | None:  # (B, ...) each -> (K, B)
    """||s_k - s_{k-1}|| / ||s_k||, 0 where both are zero."""
    flat = [s.flatten(1).double() for s in states if s is not None]
    if len(flat) < len(states):
        return None
    moved = torch.stack([(b - a).norm(dim=1) for a, b in pairwise(flat)])
    size = torch.stack([b.norm(dim=1) for b in flat[1:]])
    return moved / torch.where(moved > 0, size, 1.0)


def _kinds(x: Tensor, step: Tensor, mask: Tensor | None, tolerance: float) -> tuple[str, ...]:
    behind = step[(len(step) - 1) // 2 :].clamp(min=tolerance)
    change = slope(behind) * (len(behind) - 1)
    last = kabsch(x[-1], x[-2], mask).rmsd
    back = [kabsch(x[-1], x[-1 - p], mask).rmsd < _SAME * last for p in _PERIODS if p < len(x)]
    cycling = torch.stack(back).any(0) if back else torch.zeros_like(step[-1], dtype=torch.bool)
    place = torch.where(change <= -math.log(_FACTOR), 1, torch.where(change >= math.log(_FACTOR), 4, 2))
    place = torch.where(step[-1] <= tolerance, 0, torch.where(cycling, 3, place))
    return tuple(KINDS[k] for k in place.tolist())


def joined_metrics(metrics: Sequence[TraceMetrics]) -> TraceMetrics:
    """Several traces side by side, such as those of targets of different length.

    A target that has stopped early keeps its last value; what one trace lacks all lack.
    """
    if not metrics:
        raise ValueError("metrics must be at least one trace, got none")
    names = ("rmsd", "gdt", "single", "pair", "confidence", "inner")
    parts = {name: _side_by_side([vars(m)[name] for m in metrics]) for name in ("step", *names)}
    return TraceMetrics(kind=sum((m.kind for m in metrics), ()), **parts)  # pyright: ignore[reportArgumentType]


def _side_by_side(values: Sequence[Tensor | None]) -> Tensor | None:  # (k, ..., B) each -> (K, ..., sum of B)
    known = [v for v in values if v is not None]
    if len(known) < len(values):
        return None
    longest = max(len(v) for v in known)
    return torch.cat([torch.cat((v, v[-1:].expand(longest - len(v), *v.shape[1:]))) for v in known], -1)


def min_max(values: Tensor) -> Tensor:  # (K + 1, B)
    """(v - min) / (max - min) of every target over its cycles; NaN for targets whose curve is constant.

    >>> min_max(torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))[:, 0]
    tensor([0.0000, 0.5000, 1.0000])
    """
    low, high = values.amin(0), values.amax(0)
    constant = high - low <= _CONSTANT * torch.maximum(low.abs(), high.abs())
    return torch.where(constant, torch.nan, (values - low) / torch.where(constant, 1.0, high - low))


def average_curve(values: Tensor, targets: Sequence[str] | None = None) -> tuple[Tensor, int]:
    """The mean over targets of their min-max normalised curves, (K + 1,), and how many targets have one.

    values: (K + 1, B), a prediction each. targets: whose prediction each is; the predictions of a target are averaged
    before they are normalised. Constant curves are left out; NaN where all are.
    """
    if targets is not None:
        if len(targets) != values.shape[1]:
            raise ValueError(f"targets must name each of the {values.shape[1]} predictions, got {len(targets)}")
        names = list(dict.fromkeys(targets))
        place = torch.tensor([names.index(t) for t in targets], device=values.device)
        values = torch.stack([values[:, place == k].mean(1) for k in range(len(names))], 1)
    curves = min_max(values)
    return curves.nanmean(1), int((~curves[0].isnan()).sum())
