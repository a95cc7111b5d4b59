"""Refining a structure from a noisy, incomplete map of distances, as a recycled operator with a known answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from settlepoint.chains.cycles import Cycle

BOND = 3.8
"""Angstrom between consecutive CA atoms."""

_CLASH = 4.5  # Angstrom that other CA atoms keep apart
_TRIES = 32


@dataclass(frozen=True, eq=False)
class Maps:
    """What a predictor is given of B chains of n residues. The truth: coordinates (B, n, 3) in Angstrom.

    distances: (B, n, n), noisy, zero where not known; known: (B, n, n) bool; step: (B,), how far a recycle goes.
    """

    truth: Tensor
    distances: Tensor
    known: Tensor
    step: Tensor


def chains(count: int, residues: int, generator: torch.Generator) -> Tensor:  # (count, residues, 3) float64
    """Smooth, compact, mostly self-avoiding chains of steps of 3.8 A, more right-handed than left-handed.

    Each step is the best of 32 random turns of the one before: away from clashes below 4.5 A, towards the centre of
    what has been laid, and turning to the right.
    """
    if residues < 4:
        raise ValueError(f"residues must be at least 4, got {residues}")
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    way = nn.functional.normalize(draw(count, 1, 3), dim=-1)
    x = torch.cat((torch.zeros(count, 1, 3, dtype=torch.float64), BOND * way), 1)
    before = nn.functional.normalize(draw(count, 3), dim=-1)
    for _ in range(residues - 2):
        way = nn.functional.normalize(x[:, -1] - x[:, -2], dim=-1)[:, None]
        tries = nn.functional.normalize(way + 0.7 * draw(count, _TRIES, 3), dim=-1)
        places = x[:, -1:] + BOND * tries
        near = torch.cdist(places, x[:, :-1]).amin(-1)
        hand = torch.linalg.cross(before[:, None].expand_as(tries), way.expand_as(tries), dim=-1).mul(tries).sum(-1)
        far = (places - x.mean(1, keepdim=True)).norm(dim=-1)
        score = -4.0 * (_CLASH - near).clamp(min=0) - 0.5 * far + 1.0 * hand
        best = score.argmax(1)
        before = way[:, 0]
        x = torch.cat((x, places[torch.arange(count), best][:, None]), 1)
    return x - x.mean(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard maps are; each target draws its own from these ranges, evenly.

    noise: relative deviation of a distance. reach: Angstrom up to which distances can be known. known: share of these
    that is. wrong: share of all pairs, times known, that get a random distance within reach, a false contact. step: of
    a recycle.
    """

    noise: tuple[float, float] = (0.02, 0.25)
    reach: float = 15.0
    known: tuple[float, float] = (0.05, 0.8)
    wrong: tuple[float, float] = (0.0, 0.004)
    step: tuple[float, float] = (0.6, 2.3)


def maps(truth: Tensor, generator: torch.Generator, difficulty: Difficulty | None = None) -> Maps:
    """Noisy, incomplete maps of distances of chains (B, n, 3); consecutive residues are always known."""
    hard = difficulty or Difficulty()
    b, n = truth.shape[:2]
    draw = lambda *size: torch.rand(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    within = lambda ends: (ends[0] + (ends[1] - ends[0]) * draw(b))[:, None, None]  # noqa: E731
    noise, known, wrong, step = (within(ends) for ends in (hard.noise, hard.known, hard.wrong, hard.step))
    exact = torch.cdist(truth, truth)
    noisy = exact * (1 + noise * torch.randn(b, n, n, generator=generator, dtype=torch.float64)).clamp(min=0.1)
    false = (draw(b, n, n) < wrong) & (draw(b, n, n) < known)
    there = ((exact < hard.reach) & (draw(b, n, n) < known)) | false
    found = torch.where(false, BOND + (hard.reach - BOND) * draw(b, n, n), noisy).triu(2)
    there = there.triu(2)
    there, found = there | there.mT, found + found.mT
    return Maps(truth, torch.where(there, found, 0.0), there, step[:, 0, 0])


class Refinement(nn.Module):
    """One recycle: x <- x + g (V^+ B(x) x - x), V^+ B(x) x the Guttman transform of a map of distances    (SMACOF)

    (De Leeuw 1977; Borg and Groenen 2005, section 8.6.) V: the Laplacian of the weights w; B(x): that of
    w_ij d_ij / |x_i - x_j|. d, w: 1 where a distance is known; the prior of a chain, 3.8 A with weight `chain` between
    consecutive residues; where nothing is known, the present distance made `apart` times as large, with the weight
    `loose`: what a predictor fills in from its own last structure, the wrong way when it is believed for long. g: the
    step of each target; from 2 on a recycle overshoots where the map is stiff.

    context of the operator: `Refinement.of(maps)`, with one leading entry a target. x: (B, n, 3).
    """

    def __init__(self, chain: float = 4.0, loose: float = 0.01, apart: float = 1.15):
        super().__init__()
        self.chain, self.loose, self.apart = chain, loose, apart

    def of(self, given: Maps) -> tuple[Tensor, ...]:
        """The context: distances, weights, V^+ and step."""
        n = given.distances.shape[1]
        bonds = torch.ones(n - 1, dtype=torch.float64).diag(1)
        bonds = (bonds + bonds.T).bool()
        weights = torch.where(given.known, 1.0, self.loose) * (1 - torch.eye(n, dtype=torch.float64))
        weights = torch.where(bonds, self.chain, weights)
        goals = torch.where(bonds, BOND, given.distances)
        ones = torch.full((n, n), 1 / n, dtype=torch.float64)
        inverse = torch.linalg.inv(laplacian(weights) + ones) - ones
        return goals, weights, inverse, given.step

    def pair(self, x: Tensor, goals: Tensor) -> Tensor:  # (B, n, n)
        """The whole map that a recycle from x believes in."""
        return torch.where(goals > 0, goals, self.apart * torch.cdist(x, x))

    def forward(self, x: Tensor, goals: Tensor, weights: Tensor, inverse: Tensor, step: Tensor) -> Tensor:
        d = torch.cdist(x, x)
        ratio = torch.where(d > 0, self.pair(x, goals) / torch.where(d > 0, d, 1.0), 0.0)
        image = inverse @ laplacian(weights * ratio) @ x
        return x + step[:, None, None] * (image - x)

    def cycle(self, x: Tensor, goals: Tensor) -> Cycle:
        """What a tracer sees of x. confidence: (B, n), 100 / (1 + mean misfit of the known distances in Angstrom)."""
        known = goals > 0
        misfit = ((torch.cdist(x, x) - goals).abs() * known).sum(-1) / known.sum(-1)
        return Cycle(x, 100 / (1 + misfit), pair=self.pair(x, goals)[..., None])


def laplacian(weights: Tensor) -> Tensor:  # (B, n, n)
    """diag(W 1) - W."""
    return torch.diag_embed(weights.sum(-1)) - weights


def classical(given: Maps) -> Tensor:  # (B, n, 3)
    """Classical multidimensional scaling of the shortest paths through the known distances, right-handed.

    (Torgerson 1952; Tenenbaum, De Silva and Langford 2000.) Distances say nothing of the hand: of the two mirror images
    the one whose consecutive residues turn more to the right is taken, which a wrong map can get wrong.
    """
    n = given.distances.shape[1]
    bonds = torch.ones(n - 1, dtype=torch.float64).diag(1)
    paths = torch.where(given.known, given.distances, torch.inf)
    paths = torch.where((bonds + bonds.T).bool(), BOND, paths)
    paths.diagonal(dim1=1, dim2=2).zero_()
    for k in range(n):
        paths = torch.minimum(paths, paths[:, :, k, None] + paths[:, k, None, :])
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    values, vectors = torch.linalg.eigh(-0.5 * centre @ paths.square() @ centre)
    x = vectors[..., -3:] * values[:, None, -3:].clamp(min=1e-6).sqrt()
    return x * torch.where(handedness(x) < 0, -1.0, 1.0)[:, None, None]


def handedness(x: Tensor) -> Tensor:  # (B,)
    """The mean over i of the triple product of the three unit steps from residue i on: > 0 turns to the right."""
    u = nn.functional.normalize(x[:, 1:] - x[:, :-1], dim=-1)
    return (torch.linalg.cross(u[:, :-2], u[:, 1:-1], dim=-1) * u[:, 2:]).sum(-1).mean(-1)
