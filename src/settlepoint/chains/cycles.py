"""What one cycle of a recycled structure predictor has made, and the cycles of one prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cycle:
    """One cycle, for B chains of n residues.

    coordinates: (B, n, 3), of the CA atoms in Angstrom. confidence: (B, n), of a residue, on the predictor's scale.
    single, pair: (B, n, c) and (B, n, n, c), the representations behind it. blocks, frames: (k, B, n, 3) and
    (k, B, n, 7), CA atoms and rigid frames (quaternion, translation) behind each block of the structure module.
    """

    coordinates: Tensor
    confidence: Tensor | None = None
    single: Tensor | None = None
    pair: Tensor | None = None
    blocks: Tensor | None = None
    frames: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Track:
    """The cycles 0, 1, ... of one prediction of one target. residues: "A 12" each; empty when not known."""

    target: str
    cycles: Sequence[Cycle]
    prediction: str = ""
    residues: tuple[str, ...] = ()
