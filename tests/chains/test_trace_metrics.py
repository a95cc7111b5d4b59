"""What a trace says: kinds on courses made by hand, residuals, normalised curves, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from settlepoint.chains.cycles import Cycle
from settlepoint.chains.refinement import chains
from settlepoint.chains.trace_metrics import average_curve, joined_metrics, min_max, trace_metrics


@pytest.fixture
def truth(generator: torch.Generator) -> Tensor:
    """One chain."""
    return chains(1, 30, generator)


@pytest.fixture
def other(generator: torch.Generator) -> Tensor:
    """A deformation without rigid part, of 1 A."""
    return torch.randn(1, 30, 3, generator=generator, dtype=torch.float64) / math.sqrt(3)


def course(truth: Tensor, other: Tensor, size: Callable[[int], float], cycles: int = 21) -> list[Cycle]:
    return [Cycle(truth + size(k) * other) for k in range(cycles)]


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (lambda k: 8 * 0.5**k, "settled"),
        (lambda k: 40 * 0.85**k, "settling"),
        (lambda k: 1.0 * k, "marginal"),
        (lambda k: 0.1 * 1.2**k, "drifting"),
        (lambda k: 1.0 * (-1) ** k, "cycling"),
        (lambda k: 1.0 * (k % 3), "cycling"),
        (lambda k: 0.0, "settled"),
    ],
)
def test_kinds_of_courses(truth: Tensor, other: Tensor, size: Callable[[int], float], kind: str) -> None:
    assert trace_metrics(course(truth, other, size)).kind == (kind,)


def test_rigid_motions_are_no_steps(truth: Tensor) -> None:
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -1.0, 0], [1, 0, 0.5], [0, -0.5, 0]], dtype=torch.float64))
    x, cycles = truth, []
    for k in range(8):
        cycles.append(Cycle(x + k))
        x = x @ turn.mT
    found = trace_metrics(cycles, truth[0])
    assert found.kind == ("settled",)
    assert found.step.max() <= 1e-12
    assert found.rmsd is not None
    assert found.gdt is not None
    assert found.rmsd.max() <= 1e-12
    assert (found.gdt == 100).all()


def test_errors_and_residuals_by_hand(truth: Tensor, other: Tensor) -> None:
    cycles = [
        Cycle(truth + x * other, single=torch.full((1, 30, 2), x), confidence=torch.full((1, 30), x))
        for x in (4.0, 2.0, 1.0)
    ]
    found = trace_metrics(cycles, truth)
    assert found.rmsd is not None
    assert found.single is not None
    assert found.confidence is not None
    assert found.rmsd[:, 0].tolist() == pytest.approx([4.0, 2.0, 1.0], rel=0.1)  # a superposition absorbs a little
    assert found.single[:, 0].tolist() == [1.0, 1.0]
    assert found.confidence[:, 0].tolist() == [4.0, 2.0, 1.0]
    assert found.pair is None
    assert found.inner is None
    zero = [Cycle(truth, single=torch.zeros(1, 30, 2)) for _ in range(2)]
    assert trace_metrics(zero).single.tolist() == [[0.0]]  # pyright: ignore[reportOptionalMemberAccess]


def test_a_damped_step_is_judged_by_the_whole_recycle(truth: Tensor, other: Tensor) -> None:
    """Recycles that overshoot, x <- -x + 2 truth around the truth, hardly move when they are damped."""
    x, cycles, images = truth + other, [], []
    for _ in range(10):
        cycles.append(Cycle(x))
        images.append(2 * truth - x)
        x = 0.99 * x + 0.01 * images[-1]
    assert trace_metrics(cycles).kind == ("settled",)
    assert trace_metrics(cycles, images=images[:-1]).kind == ("marginal",)


def test_residues_that_are_masked(truth: Tensor, other: Tensor) -> None:
    mask = torch.ones(30, dtype=torch.bool)
    mask[:3] = False
    blank = torch.where(mask[:, None], truth, torch.nan)
    cycles = [Cycle(blank + x * other, confidence=blank[..., 0]) for x in (2.0, 1.0)]
    found = trace_metrics(cycles, blank, mask=mask)
    assert found.step.isfinite().all()
    assert found.gdt is not None
    assert found.gdt.isfinite().all()
    assert found.confidence is not None
    assert found.confidence.isfinite().all()


def test_traces_of_different_length_side_by_side(truth: Tensor, other: Tensor) -> None:
    long = trace_metrics(course(truth, other, lambda k: 4 * 0.5**k, 9), truth)
    short = trace_metrics(course(truth[:, :20], other[:, :20], lambda k: 4.0 - k, 4), truth[:, :20])
    found = joined_metrics([long, short])
    assert found.rmsd is not None
    assert short.rmsd is not None
    assert found.step.shape == (8, 2)
    assert found.rmsd.shape == (9, 2)
    assert (found.rmsd[3:, 1] == short.rmsd[-1]).all()
    assert found.counts() == {"settled": 1, "marginal": 1}
    assert found.share("settled") == 50.0
    with pytest.raises(ValueError, match="at least one trace, got none"):
        joined_metrics([])


def test_normalised_curves_lie_between_0_and_1_and_constant_ones_are_left_out() -> None:
    values = torch.tensor([[3.0, 7.0, 1e12], [1.0, 7.0, 1e12], [2.0, 7.0, 1e12 * (1 + 1e-12)]], dtype=torch.float64)
    found = min_max(values)
    assert found[:, 0].tolist() == [1.0, 0.0, 0.5]
    assert found[:, 1:].isnan().all()
    curve, counted = average_curve(values)
    assert curve.tolist() == [1.0, 0.0, 0.5]
    assert counted == 1
    assert average_curve(values[:, 1:])[0].isnan().all()
    assert average_curve(values[:, 1:])[1] == 0


def test_predictions_of_a_target_are_averaged_before_they_are_normalised() -> None:
    values = torch.tensor([[0.0, 4.0, 0.0], [2.0, 0.0, 1.0], [4.0, 2.0, 5.0]])
    curve, counted = average_curve(values, ["a", "a", "b"])
    # a: (2, 1, 3) -> (.5, 0, 1); b: (0, 1, 5) -> (0, .2, 1)
    assert curve.tolist() == pytest.approx([0.25, 0.1, 1.0])
    assert counted == 2
    with pytest.raises(ValueError, match="targets must name each of the 3 predictions, got 2"):
        average_curve(values, ["a", "b"])


def test_refusals(truth: Tensor) -> None:
    good, broken = Cycle(truth), truth.clone()
    broken[0, 7, 1] = math.nan
    with pytest.raises(ValueError, match="cycles must be at least two, got 1"):
        trace_metrics([good])
    with pytest.raises(ValueError, match=r"of one shape, got \[\(1, 29, 3\), \(1, 30, 3\)\]"):
        trace_metrics([good, Cycle(truth[:, 1:])])
    with pytest.raises(ValueError, match="got 1 atoms that are not, the first in cycle 1, chain 0, residue 7"):
        trace_metrics([good, Cycle(broken)])
    with pytest.raises(ValueError, match="b must be finite, got 2 atoms"):  # one of each cycle
        trace_metrics([good, good], broken)
    with pytest.raises(ValueError, match=r"images must be 1 coordinates of the shape \(1, 30, 3\), got 2"):
        trace_metrics([good, good], images=[truth, truth])
    with pytest.raises(ValueError, match=r"reference must be of shape \(1, 30, 3\) or \(30, 3\), got \(4, 30, 3\)"):
        trace_metrics([good, good], truth.expand(4, -1, -1))
    with pytest.raises(ValueError, match=r"reference must be of shape .*, got \(29, 3\)"):
        trace_metrics([good, good], truth[0, 1:])
    with pytest.raises(ValueError, match=r"mask must be of shape \(1, 30\) or \(30,\), got \(4, 30\)"):
        trace_metrics([good, good], mask=torch.ones(4, 30))
    with pytest.raises(ValueError, match=r"reference must be real, got torch.complex128"):
        trace_metrics([good, good], truth + 0j)
    with pytest.raises(ValueError, match=r"cycles must hold real coordinates, got torch.complex128"):
        trace_metrics([Cycle(truth + 0j)] * 2)
    with pytest.raises(ValueError, match="tolerance must be > 0, got 0"):
        trace_metrics([good, good], tolerance=0)
