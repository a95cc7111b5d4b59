"""Budgets add up; a carried state is that of the same number of steps in one go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import settlepoint as sp
from settlepoint.chains import Carried, ancestral, linear_schedule, step_budget


class Halving(nn.Module):
    """z <- (z + x) / 2; the noise it finds is its state."""

    def __init__(self) -> None:
        super().__init__()
        self.settle = sp.FixedPoint(lambda z, x: (z + x) / 2, stop=sp.FixedSteps(7), inject="input")

    def forward(self, x: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        return self.settle(x, torch.zeros_like(x) if z is None else z)


@given(steps=st.integers(1, 30), extra=st.integers(0, 90), toward=st.sampled_from(["uniform", "first", "last"]))
def test_a_budget_adds_up_and_leans_where_it_should(steps: int, extra: int, toward: str) -> None:
    counts = step_budget(steps + extra, steps, toward)  # type: ignore[arg-type]
    assert sum(counts) == steps + extra
    assert len(counts) == steps
    assert min(counts) >= 1
    if toward == "uniform":
        assert max(counts) - min(counts) <= 1
    if toward == "first":
        assert counts == sorted(counts, reverse=True)
    if toward == "last":
        assert counts == sorted(counts)


def test_warm_calls_go_on_and_cold_ones_begin_anew() -> None:
    model, x, t = Halving(), torch.ones(2, 3), torch.zeros(2, dtype=torch.long)
    warm, cold = Carried(model, [1, 2, 1]), Carried(model, [1, 2, 1], warm=False)
    assert [warm(x, t)[0, 0].item() for _ in range(3)] == [1 - 2.0**-n for n in (1, 3, 4)]
    assert [cold(x, t)[0, 0].item() for _ in range(3)] == [1 - 2.0**-n for n in (1, 2, 1)]
    assert (warm.evals, cold.evals) == (4, 4)
    assert model.settle.stop == sp.FixedSteps(7)


def test_another_chain_begins_after_reset() -> None:
    model, x, t = Halving(), torch.ones(1, 1), torch.zeros(1, dtype=torch.long)
    carried = Carried(model, [1])
    first = carried(x, t)
    with pytest.raises(ValueError, match=r"counts must have an entry for each call, got 1; call reset\(\) between"):
        carried(x, t)
    carried.reset()
    assert torch.equal(carried(x, t), first)
    assert carried.evals == 1


def test_a_sampler_takes_it_as_its_epsilon() -> None:
    carried = Carried(Halving(), step_budget(9, 5, "first"))
    found = ancestral(carried, linear_schedule(20), torch.randn(2, 3), steps=5)
    assert found.isfinite().all()
    assert (carried.calls, carried.evals) == (5, 9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: step_budget(8, 4, "middle"), "toward must be one of uniform, first, last, got 'middle'"),
        (lambda: step_budget(3, 4), "total must be at least one evaluation for each of 4 steps, got 3"),
        (lambda: Carried(Halving(), []), r"counts must be at least one evaluation a step, got \[\]"),
        (lambda: Carried(Halving(), [1, 0]), r"counts must be at least one evaluation a step, got \[1, 0\]"),
    ],
)
def test_what_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
