"""Comparing structures: superposition after Kabsch, and GDT_TS."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CUTOFFS = (1.0, 2.0, 4.0, 8.0)
"""Of GDT_TS, in Angstrom."""

_SHORTEST = 4  # residues of the shortest window that a superposition is seeded with
_TRIPLETS = 64  # drawn; one is of the right atoms all but surely where every second atom is right, (7/8)^64
_DRAW = 9  # of twelve seeds the one that misses fewest: no second, 5 % of third residues of chains of 6 to 512
_KEPT = 4  # of them, for each cutoff, are superposed anew
_ROUNDS = 20
_PAIRS = 20_000  # superpositions done at once


@dataclass(frozen=True)
class Superposition:
    """The rigid motion that brings a onto b. rotation: (..., 3, 3); translation: (..., 3); rmsd: (...,), float64."""

    rotation: Tensor
    translation: Tensor
    rmsd: Tensor

    def __call__(self, x: Tensor) -> Tensor:  # (..., n, 3)
        """R x + t."""
        return x.double() @ self.rotation.mT + self.translation[..., None, :]


def kabsch(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Superposition:
    """min over rotations R (det R = 1) and t of  sqrt(mean_i |R a_i + t - b_i|^2)             (Kabsch 1976, 1978)

    a, b: (..., n, 3), in float64 inside. mask: (..., n), False where an atom is missing; what stands there is not read.
    A mirror image is no rigid copy: a negative determinant turns the sign of the smallest singular value.

    Raises ValueError for coordinates that are not finite or not real, fewer than 3 atoms, and chains of different
    length or of batches that do not broadcast.
    """
    a, b, here = checked(a, b, mask)
    return _fitted(a, b, here.double())


def gdt_ts(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:  # (...,)
    """Mean over 1, 2, 4 and 8 A of the share of atoms that one superposition brings so close, in per cent.

    (Zemla 2003, LGA.) For every cutoff the largest share is looked for from superpositions of windows of 4, 8, 16, ...
    and all n residues, and of the best of 64 triplets of atoms, the same in every call: those within the cutoff are
    superposed anew until they stay the same ones. As with LGA what is found is a lower bound of the largest share.
    Shares are of the atoms in mask. a, b, mask, errors: as in `kabsch`.
    """
    a, b, here = checked(a, b, mask)
    lead, n = a.shape[:-2], a.shape[-2]
    a, b, here = a.reshape(-1, n, 3), b.reshape(-1, n, 3), here.reshape(-1, n)
    windows = _windows(n, a.device)
    at_once = max(1, _PAIRS // ((len(windows) + _TRIPLETS) * len(CUTOFFS)))
    parts = zip(a.split(at_once), b.split(at_once), here.split(at_once), strict=True)
    found = [_shares(*part, windows).mean(-1) for part in parts]
    return 100 * torch.cat(found).reshape(lead) if found else a.new_zeros(lead)


def checked(a: Tensor, b: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """a and b in float64 with zeros where an atom is missing, and the mask, all of one shape; or ValueError."""
    for name, x in (("a", a), ("b", b)):
        if x.ndim < 2 or x.shape[-1] != 3:
            raise ValueError(f"{name} must be coordinates (..., n, 3), got {tuple(x.shape)}")
        if x.is_complex():
            raise ValueError(f"{name} must be real, got {x.dtype}")
    if a.shape[-2] != b.shape[-2]:
        raise ValueError(f"a and b must be chains of one length, got {a.shape[-2]} and {b.shape[-2]} atoms")
    here = torch.ones(a.shape[-2], dtype=torch.bool, device=a.device) if mask is None else mask.bool()
    if here.shape[-1:] != a.shape[-2:-1]:
        raise ValueError(f"mask must have an entry for each of the {a.shape[-2]} atoms, got {tuple(here.shape)}")
    here = here.expand(*_together(a.shape[:-2], b.shape[:-2], here.shape[:-1]), -1)
    if here.numel() and int(here.sum(-1).min()) < 3:
        raise ValueError(f"a and b must share at least 3 atoms, got {int(here.sum(-1).min())}")
    return _finite("a", a, here), _finite("b", b, here), here


def _together(*leads: torch.Size) -> torch.Size:
    try:
        return torch.broadcast_shapes(*leads)
    except RuntimeError:
        got = ", ".join(str(tuple(lead)) for lead in leads)
        raise ValueError(f"a, b and mask must be of batches that broadcast, got {got}") from None


def _finite(name: str, x: Tensor, here: Tensor) -> Tensor:
    x = torch.where(here[..., None], x.double(), 0.0)
    lost = ~x.isfinite().all(-1)
    if bool(lost.any()):
        place = tuple(lost.nonzero()[0].tolist())
        raise ValueError(f"{name} must be finite, got {int(lost.sum())} atoms that are not, the first at {place}")
    return x


def _fitted(a: Tensor, b: Tensor, weight: Tensor) -> Superposition:
    """The superposition of atoms that weigh so much, (..., n)."""
    share = (weight / weight.sum(-1, keepdim=True).clamp(min=1.0))[..., None]
    p, q = (share * a).sum(-2, keepdim=True), (share * b).sum(-2, keepdim=True)
    u, _, v = torch.linalg.svd((share * (a - p)).mT @ (b - q))
    turn = torch.ones_like(p[..., 0, :])
    turn[..., 2] = torch.where(torch.linalg.det(u @ v) < 0, -1.0, 1.0)
    rotation = (u * turn[..., None, :] @ v).mT
    rmsd = (share * ((a - p) @ rotation.mT - (b - q)).square()).sum((-1, -2)).sqrt()
    return Superposition(rotation, (q - p @ rotation.mT)[..., 0, :], rmsd)


def _windows(n: int, device: torch.device) -> Tensor:  # (windows, n) bool
    """Runs of 4, 8, 16, ... and n residues, each overlapping half of the one before."""
    places, found = torch.arange(n, device=device), []
    length = min(_SHORTEST, n)
    while length < n:
        starts = torch.arange(0, n - length + 1, length // 2, device=device)[:, None]
        found.append((places >= starts) & (places < starts + length))
        length *= 2
    return torch.cat([*found, torch.ones(1, n, dtype=torch.bool, device=device)])


def _triplets(here: Tensor) -> Tensor:  # (B, n) -> (B, triplets, n) bool
    """Three of the atoms that are there, drawn with the same numbers for every chain."""
    drawn = torch.rand(_TRIPLETS, here.shape[-1], generator=torch.Generator().manual_seed(_DRAW), dtype=torch.float64)
    order = drawn.to(here.device).where(here[:, None], -1.0)
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order.topk(3).indices, True)


def _close(a: Tensor, b: Tensor, here: Tensor, seeds: Tensor) -> Tensor:  # (B, S, n) -> (B, S, cutoffs, n)
    """The atoms within every cutoff after superposing the seeds; none for a seed of fewer than three atoms."""
    first = _apart(a[:, None], b[:, None], seeds)[:, :, None]  # (B, S, 1, n)
    enough = seeds.sum(-1) >= 3
    return (first <= a.new_tensor(CUTOFFS)[:, None]) & here[:, None, None] & enough[..., None, None]


def _best(close: Tensor) -> Tensor:  # (B, S, cutoffs, n) -> (B, kept, cutoffs, n)
    """For every cutoff the seeds that bring most atoms close."""
    place = close.sum(-1).topk(_KEPT, 1).indices[..., None]
    return close.gather(1, place.expand(*place.shape[:-1], close.shape[-1]))


def _shares(a: Tensor, b: Tensor, here: Tensor, windows: Tensor) -> Tensor:  # (B, n, 3), (B, n) -> (B, cutoffs)
    """The largest share that was found within every cutoff."""
    rows, cutoffs = len(a), a.new_tensor(CUTOFFS)
    drawn = _best(_close(a, b, here, _triplets(here)))
    close = torch.cat((_close(a, b, here, here[:, None] & windows), drawn), 1)  # (B, S, cutoffs, n)
    most = close.sum(-1).amax(1)
    row, _, cut = (close.sum(-1) >= 3).nonzero(as_tuple=True)
    chosen = close[close.sum(-1) >= 3]  # (P, n), those still on the move
    for _ in range(_ROUNDS):
        if not len(row):
            break
        now = (_apart(a[row], b[row], chosen) <= cutoffs[cut, None]) & here[row]
        count = now.sum(-1)
        most.view(-1).scatter_reduce_(0, row * len(cutoffs) + cut, count, "amax")
        going = (now != chosen).any(-1) & (count >= 3)
        row, cut, chosen = row[going], cut[going], now[going]
    return most / here.sum(-1, keepdim=True).to(a) if rows else a.new_zeros(0, len(cutoffs))


def _apart(a: Tensor, b: Tensor, chosen: Tensor) -> Tensor:  # (..., n)
    """Distances of all atoms after superposing the chosen ones."""
    return torch.linalg.vector_norm(_fitted(a, b, chosen.double())(a) - b, dim=-1)
