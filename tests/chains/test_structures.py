"""Kabsch and GDT_TS: SciPy as an oracle, rigid copies, mirror images, masks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from settlepoint.chains import gdt_ts, kabsch
from settlepoint.chains.refinement import chains


def moved(x: Tensor, seed: int) -> Tensor:
    """A rigid copy."""
    turn = Rotation.random(len(x), random_state=seed).as_matrix()
    return x @ torch.from_numpy(turn).mT + torch.from_numpy(np.random.default_rng(seed).normal(size=(len(x), 1, 3)) * 9)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    """Six chains of 40 residues."""
    return chains(6, 40, generator)


@given(seed=st.integers(0, 10_000), n=st.integers(3, 30))
def test_superposition_is_that_of_scipy(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, n, 3)) * 10
    turn, distance = Rotation.align_vectors(b - b.mean(0), a - a.mean(0))
    found = kabsch(torch.from_numpy(a), torch.from_numpy(b))
    assert found.rmsd.item() == pytest.approx(distance / np.sqrt(n), rel=1e-9, abs=1e-9)
    assert torch.allclose(found.rotation, torch.from_numpy(turn.as_matrix()), atol=1e-6)  # nearly free turns at n = 3


def test_rigid_copies_and_mirror_images(x: Tensor) -> None:
    copy, mirror = moved(x, 1), moved(x * torch.tensor([1.0, 1.0, -1.0]), 2)
    found = kabsch(x, copy)
    assert found.rmsd.max() <= 1e-12
    assert torch.allclose(found(x), copy, atol=1e-11)
    assert torch.allclose(torch.linalg.det(found.rotation), torch.ones(6, dtype=torch.float64))
    assert kabsch(x, mirror).rmsd.min() > 1.0
    assert (gdt_ts(x, copy) == 100).all()
    assert (gdt_ts(x, mirror) < 100).all()


def test_flat_chains_have_a_rotation_and_no_reflection() -> None:
    flat = torch.tensor([[0.0, 0, 0], [3.8, 0, 0], [3.8, 3.8, 0], [9, 3.8, 0]])
    found = kabsch(flat, flat * torch.tensor([-1.0, 1.0, 1.0]))  # a turn by 180 degrees in space
    assert found.rmsd <= 1e-7  # float32 coordinates
    assert torch.linalg.det(found.rotation) == pytest.approx(1.0)


def test_half_of_a_chain_far_away_counts_for_half(x: Tensor) -> None:
    far = x.clone()
    far[:, 20:, 0] += 50
    assert (gdt_ts(far, moved(x, 3)) == 50).all()


def spoilt(x: Tensor, right: Tensor, draw: torch.Generator) -> Tensor:
    """x where right, (n,), and noise of 30 A on the other atoms."""
    return torch.where(right[:, None], x, x + 30 * torch.randn(x.shape, generator=draw))


def test_windows_overlap_half_of_one_another(x: Tensor, generator: torch.Generator) -> None:
    """Five right residues across the edge of two windows: the window of 4 that begins halfway holds none but these."""
    right = (torch.arange(40) >= 17) & (torch.arange(40) < 22)
    assert (gdt_ts(spoilt(x, right, generator), moved(x, 9)) >= 100 * 5 / 40).all()


@pytest.mark.parametrize("n", [12, 16, 40, 64, 101])
def test_right_residues_that_are_no_run_are_found(n: int, generator: torch.Generator) -> None:
    x = chains(6, n, generator)
    for right in (torch.arange(n) % 2 == 0, torch.rand(n, generator=generator) < 0.5):
        share = 100 * float(right.double().mean())
        assert (gdt_ts(spoilt(x, right, generator), moved(x, 10)) >= share - 1e-9).all()  # a rounding of the mean


def test_triplets_are_of_residues_that_are_there(x: Tensor, generator: torch.Generator) -> None:
    here, right = torch.rand(6, 40, generator=generator) < 0.5, torch.arange(40) % 2 == 0
    masked = torch.where(here[..., None], spoilt(x, right, generator), torch.nan)
    share = 100 * (here & right).sum(-1).double() / here.sum(-1)
    assert (gdt_ts(masked, moved(x, 11), here) >= share - 1e-9).all()


def test_triplets_are_the_same_in_every_call(x: Tensor, generator: torch.Generator) -> None:
    y = spoilt(x, torch.arange(40) % 3 == 0, generator)
    first = gdt_ts(y, x)
    torch.rand(3)
    assert torch.equal(gdt_ts(y, x), first)
    assert torch.equal(torch.cat([gdt_ts(y[k:], x[k:])[:1] for k in range(6)]), first)


def test_gdt_is_between_that_of_one_superposition_and_100(x: Tensor, generator: torch.Generator) -> None:
    y = moved(x + 2.0 * torch.randn(x.shape, generator=generator), 4)
    apart = (kabsch(x, y)(x) - y).norm(dim=-1)
    least = torch.stack([(apart <= cutoff).double().mean(-1) for cutoff in (1, 2, 4, 8)]).mean(0) * 100
    found = gdt_ts(x, y)
    assert (found >= least).all()
    assert (found <= 100).all()
    assert torch.allclose(found, gdt_ts(moved(x, 5), y), atol=100 / 40)  # a rounding may move an atom over a cutoff


def test_what_is_masked_is_not_read(x: Tensor) -> None:
    mask = torch.ones(6, 40, dtype=torch.bool)
    mask[:, ::5] = False
    y = moved(x, 6)
    broken = torch.where(mask[..., None], y, torch.nan)
    assert kabsch(x, broken, mask).rmsd.max() <= 1e-12
    assert (gdt_ts(x, broken, mask) == 100).all()
    cut = kabsch(x[:, mask[0]], 2 * y[:, mask[0]])
    assert torch.allclose(kabsch(x, 2 * broken, mask).rmsd, cut.rmsd)


def test_any_leading_shape(x: Tensor) -> None:
    stack = torch.stack([moved(x, 7), moved(x, 8)])
    assert kabsch(stack, x).rmsd.shape == gdt_ts(stack, x.expand(2, -1, -1, -1)).shape == (2, 6)
    assert kabsch(x[0], stack[0, 0]).rmsd.shape == ()
    assert gdt_ts(x[:0], x[:0]).shape == (0,)
    assert torch.allclose(gdt_ts(stack, x), gdt_ts(stack, x.expand(2, -1, -1, -1)))


@pytest.mark.parametrize(
    ("a", "b", "mask", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 2), None, r"a must be coordinates \(\.\.\., n, 3\), got \(5, 2\)"),
        (torch.zeros(5, 3), torch.zeros(6, 3), None, "a and b must be chains of one length, got 5 and 6 atoms"),
        (torch.zeros(2, 3), torch.zeros(2, 3), None, "a and b must share at least 3 atoms, got 2"),
        (torch.eye(3), torch.eye(3), torch.tensor([True, True, False]), "at least 3 atoms, got 2"),
        (torch.eye(3), torch.eye(3), torch.tensor([True]), r"mask must have an entry for each of the 3 atoms"),
        (torch.eye(3).log(), torch.eye(3), None, r"a must be finite, got 3 atoms that are not, the first at \(0,\)"),
        (torch.eye(3), torch.full((3, 3), torch.nan), None, "b must be finite, got 3 atoms"),
        (torch.eye(3) + 0j, torch.eye(3), None, "a must be real, got torch.complex64"),
        (torch.eye(3), torch.eye(3).double() + 0j, None, "b must be real, got torch.complex128"),
        (torch.zeros(2, 3, 3), torch.zeros(4, 3, 3), None, r"batches that broadcast, got \(2,\), \(4,\), \(\)"),
    ],
)
@pytest.mark.parametrize("measure", [kabsch, gdt_ts])
def test_refusals(measure, a: Tensor, b: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(a, b, mask)
