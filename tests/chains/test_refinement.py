"""The stand-in: chains, maps, classical scaling of exact maps, and the law of SMACOF."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import settlepoint as sp
from settlepoint.chains import gdt_ts, kabsch, recycled
from settlepoint.chains.refinement import BOND, Difficulty, Maps, Refinement, chains, classical, handedness, maps


@pytest.fixture
def truth(generator: torch.Generator) -> Tensor:
    """Eight chains of 32 residues."""
    return chains(8, 32, generator)


EXACT = Difficulty(noise=(0.0, 0.0), reach=1e9, known=(1.0, 1.0), wrong=(0.0, 0.0), step=(1.0, 1.0))


def stress(x: Tensor, goals: Tensor, weights: Tensor) -> Tensor:  # (B,)
    return (weights * (torch.cdist(x, x) - goals).square()).sum((1, 2))


def test_chains_have_steps_of_a_bond_keep_apart_and_turn_right(truth: Tensor) -> None:
    assert torch.allclose((truth[:, 1:] - truth[:, :-1]).norm(dim=-1), torch.full((8, 31), BOND, dtype=torch.float64))
    apart = torch.cdist(truth, truth) + 100 * torch.eye(32)
    assert apart.min() > 2.5
    assert (handedness(truth) > 0).all()
    assert torch.allclose(handedness(truth * torch.tensor([-1.0, 1, 1])), -handedness(truth))
    with pytest.raises(ValueError, match="residues must be at least 4, got 3"):
        chains(1, 3, torch.Generator())


def test_a_generator_gives_the_same_targets_again() -> None:
    first, again = (maps(chains(2, 12, g), g) for g in (torch.Generator().manual_seed(1) for _ in range(2)))
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))


def test_maps_are_symmetric_and_as_hard_as_asked(truth: Tensor, generator: torch.Generator) -> None:
    given = maps(truth, generator, Difficulty(known=(0.5, 0.5), wrong=(0.0, 0.0), noise=(0.0, 0.0), reach=12.0))
    exact = torch.cdist(truth, truth)
    assert torch.equal(given.distances, given.distances.mT)
    assert torch.allclose(given.distances[given.known], exact[given.known])
    assert (given.distances[~given.known] == 0).all()
    near = (exact < 12.0).triu(2)
    assert float(given.known[near].double().mean()) == pytest.approx(0.5, abs=0.05)
    false = maps(truth, generator, Difficulty(known=(1.0, 1.0), wrong=(1.0, 1.0), reach=12.0))
    assert false.distances.max() < 12.0


def test_exact_maps_are_solved_by_classical_scaling_and_stay_solved(truth: Tensor, generator: torch.Generator) -> None:
    given = maps(truth, generator, EXACT)
    x, operator = classical(given), Refinement()
    assert kabsch(x, truth).rmsd.max() < 1e-6
    assert (gdt_ts(x, truth) == 100).all()
    assert kabsch(operator(x, *operator.of(given)), truth).rmsd.max() < 1e-6


def test_the_guttman_transform_lowers_the_stress_of_a_whole_map(truth: Tensor, generator: torch.Generator) -> None:
    """SMACOF never raises the stress where nothing is filled in and a step is one (De Leeuw 1977)."""
    given = maps(truth, generator, replace(EXACT, noise=(0.3, 0.3)))
    operator = Refinement()
    asked = operator.of(given)
    x = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    for _ in range(10):
        moved = operator(x, *asked)
        assert (stress(moved, *asked[:2]) <= stress(x, *asked[:2]) * (1 + 1e-9)).all()
        x = moved


def test_a_recycle_turns_with_its_input_and_keeps_the_centre(truth: Tensor, generator: torch.Generator) -> None:
    given = maps(truth, generator)
    operator = Refinement()
    asked = operator.of(given)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    x = classical(given)
    assert torch.allclose(operator(x @ turn, *asked), operator(x, *asked) @ turn, atol=1e-8)
    assert operator(x, *asked).mean(1).abs().max() < 1e-9


def test_what_is_not_known_is_filled_in_from_the_present_structure(truth: Tensor, generator: torch.Generator) -> None:
    given = maps(truth, generator)
    operator = Refinement(apart=1.5)
    goals = operator.of(given)[0]
    pair, known = operator.pair(truth, goals), goals > 0
    assert torch.equal(pair[known], goals[known])
    assert torch.allclose(pair[~known], 1.5 * torch.cdist(truth, truth)[~known])
    cycle = operator.cycle(truth, goals)
    assert cycle.confidence is not None
    assert ((cycle.confidence > 0) & (cycle.confidence <= 100)).all()
    assert cycle.pair is not None
    assert cycle.pair.shape == (8, 32, 32, 1)


def test_long_steps_overshoot_and_smoothing_mends_them(truth: Tensor, generator: torch.Generator) -> None:
    given = maps(truth, generator, Difficulty(noise=(0.05, 0.05), known=(0.8, 0.8), wrong=(0.0, 0.0), step=(2.5, 2.5)))
    operator, stop = Refinement(), sp.Tolerance(atol=0.05, max_steps=60)
    plain, smooth = (
        recycled(operator, classical(given), solver, stop, context=operator.of(given)).solution
        for solver in (sp.Picard(), sp.Picard(0.5))
    )
    assert not plain.converged.any()
    assert smooth.converged.all()


def test_rows_do_not_talk(truth: Tensor, generator: torch.Generator) -> None:
    given, operator = maps(truth, generator), Refinement()
    alone = Maps(*(v[:1] for v in vars(given).values()))
    whole = operator(classical(given), *operator.of(given))
    assert torch.allclose(whole[:1], operator(classical(alone), *operator.of(alone)), atol=1e-9)
