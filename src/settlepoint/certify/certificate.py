"""A `Certificate` says how far a fixed point can be from a value, and how it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PROVED, ESTIMATED, REFUSED = "proved", "estimated", "refused"


class Refused(ValueError):
    """No bound is known here; the message says why, and what could be done."""


@dataclass(frozen=True)
class Certificate:
    """||x - x*|| <= radius for a fixed point x*, row by row.

    kind: (R,) strings. "proved": every constant is an upper bound, computed in float64 and rounded outward; this is not
    interval arithmetic, since what an evaluation of P is off by is a model, 16 eps sqrt(W) (||x|| + ||P(x)||).
    "estimated": some constant was sampled or iterated. "refused": no claim; radius is inf.
    radius, rate, unique_in: (R,) float64. rate: a bound on the contraction of P near x*. unique_in: x* is the only
    fixed point in the ball of that radius around x; 0 where uniqueness is not claimed. reason: (R,) strings, what the
    claim rests on, or why there is none. method: (R,) strings, whose claim it is.
    """

    kind: tuple[str, ...]
    radius: Tensor
    rate: Tensor
    unique_in: Tensor
    reason: tuple[str, ...]
    method: tuple[str, ...] = ()

    def __post_init__(self):
        sizes = {len(v) for v in (self.kind, self.radius, self.rate, self.unique_in, self.reason, self.method)}
        assert len(sizes) == 1, f"one entry a row in every field, got {sizes}"

    @property
    def proved(self) -> Tensor:  # (R,) bool
        """Rows with a proof."""
        return self._rows(PROVED)

    @property
    def estimated(self) -> Tensor:  # (R,) bool
        """Rows with an estimate."""
        return self._rows(ESTIMATED)

    @property
    def refused(self) -> Tensor:  # (R,) bool
        """Rows without a claim."""
        return self._rows(REFUSED)

    def counts(self) -> dict[str, int]:
        """Number of rows of every kind that occurs."""
        return {kind: self.kind.count(kind) for kind in (PROVED, ESTIMATED, REFUSED) if kind in self.kind}

    def as_estimate(self, why: str) -> Certificate:
        """The same claims as estimates, where a proof rests on something that was not proved."""
        kind = tuple(ESTIMATED if k == PROVED else k for k in self.kind)
        reason = tuple(f"{r}; {why}" if k == PROVED else r for r, k in zip(self.reason, self.kind, strict=True))
        return replace(self, kind=kind, reason=reason)

    def _rows(self, kind: str) -> Tensor:
        return torch.tensor([k == kind for k in self.kind], dtype=torch.bool, device=self.radius.device)


def claimed(
    holds: Tensor,
    radius: Tensor,
    rate: Tensor,
    unique_in: Tensor,
    texts: tuple[str, str | Sequence[str]],
    method: str,
    *,
    kind: str = PROVED,
) -> Certificate:
    """A certificate of `kind` in the rows where it holds, refused elsewhere; texts: what it rests on, and why not."""
    inf, zero = torch.full_like(radius, torch.inf), torch.zeros_like(unique_in)
    good, (rests, lacks) = holds.tolist(), texts
    lacking = (lacks,) * len(good) if isinstance(lacks, str) else lacks
    return Certificate(
        tuple(kind if g else REFUSED for g in good),
        torch.where(holds, radius, inf),
        rate,
        torch.where(holds, unique_in, zero),
        tuple(rests if g else text for g, text in zip(good, lacking, strict=True)),
        (method,) * len(good),
    )


def refused(rows: int, like: Tensor, reason: str, method: str) -> Certificate:
    """No claim in any row."""
    none = like.new_full((rows,), torch.inf, dtype=torch.float64)
    return Certificate(
        (REFUSED,) * rows, none, none.clone(), torch.zeros_like(none), (reason,) * rows, (method,) * rows
    )


def stacked(parts: Sequence[Certificate]) -> Certificate:
    """The rows of several certificates one after the other."""
    join = lambda name: tuple(entry for part in parts for entry in getattr(part, name))  # noqa: E731
    cat = lambda name: torch.cat([getattr(part, name) for part in parts])  # noqa: E731
    return Certificate(join("kind"), cat("radius"), cat("rate"), cat("unique_in"), join("reason"), join("method"))


def chosen(found: Sequence[Certificate], place: Tensor) -> Certificate:
    """Row i from found[place[i]]."""
    pick = lambda name: torch.stack([getattr(c, name) for c in found]).gather(0, place[None])[0]  # noqa: E731
    best = [found[k] for k in place.tolist()]
    words = lambda name: tuple(getattr(c, name)[i] for i, c in enumerate(best))  # noqa: E731
    return Certificate(words("kind"), pick("radius"), pick("rate"), pick("unique_in"), words("reason"), words("method"))


def strongest(found: Sequence[Certificate]) -> Certificate:
    """Row by row the proof with the smallest radius, else the smallest estimate, else a refusal, with every reason."""
    stack = lambda name: torch.stack([getattr(c, name) for c in found])  # noqa: E731
    weakness = stack("estimated").double() + 2 * stack("refused").double()
    radius = stack("radius").clamp(max=torch.finfo(torch.float64).max)
    place = torch.where(weakness > weakness.amin(0), torch.inf, radius).argmin(0)
    reasons = tuple(_told(found, found[k], i) for i, k in enumerate(place.tolist()))
    return replace(chosen(found, place), reason=reasons)


def _told(found: Sequence[Certificate], best: Certificate, i: int) -> str:
    """Why this one, and why not the others."""
    others = [f"{c.method[i]}: {c.reason[i]}" for c in found if c is not best and c.kind[i] == REFUSED]
    return "; ".join([f"{best.method[i]}: {best.reason[i]}", *others])
