"""FixedPointDenoiser: one iteration by hand, warm starts, settling, training on all iterates, refusals."""

from __future__ import annotations

import math

import pytest
import torch

import settlepoint as sp
from settlepoint.layers.time_embedding import TimeEmbedding
from settlepoint.models import FixedPointDenoiser
from settlepoint.training.settled import AllIterates


def build(**settle: object) -> FixedPointDenoiser:
    torch.manual_seed(0)
    return FixedPointDenoiser((2, 4), 10, width=8, heads=2, **settle)  # type: ignore[arg-type]


def given(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 4, 9])[:count]


def test_two_iterations_by_hand() -> None:
    model, (x, t) = build(solver=sp.Picard(0.25), stop=sp.FixedSteps(2)), given()
    f = model.encode((x, t))
    z = f
    for _ in range(2):
        z = 0.25 * z + 0.75 * model.operator(z, f)
    assert torch.allclose(model(x, t), model.decode(z), atol=1e-6)


def test_a_warm_start_goes_on_where_the_last_call_ended() -> None:
    model, (x, t) = build(stop=sp.FixedSteps(2)), given()
    model(x, t)
    assert model.settle.last is not None
    warm = model(x, t, model.settle.last.value)
    model.settle.stop = sp.FixedSteps(4)
    assert torch.allclose(warm, model(x, t), atol=1e-6)


def test_rows_do_not_talk_and_time_matters() -> None:
    model, (x, t) = build(), given()
    whole = model(x, t)
    assert torch.allclose(whole[1:2], model(x[1:2], t[1:2]), atol=1e-6)
    assert not torch.allclose(whole, model(x, t.flip(0)), atol=1e-3)


def test_it_is_trained_to_be_right_at_any_number_of_iterations() -> None:
    model, (x, t) = build(), given()
    objective = AllIterates(counts=(1, 3), generator=torch.Generator().manual_seed(0))
    value = objective(model, (x, t), torch.zeros_like(x))  # type: ignore[arg-type]
    value.backward()
    assert value.item() > 0
    assert all(p.grad is not None for p in model.parameters())


def test_time_by_hand() -> None:
    layer = TimeEmbedding(4, 10)
    layer.net = torch.nn.Identity()  # type: ignore[assignment]
    s = 300.0
    wanted = [math.cos(s), math.cos(s / 100), math.sin(s), math.sin(s / 100)]
    assert layer(torch.tensor([3]))[0].tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FixedPointDenoiser((1, 8), 10, depths=(1, 0, 0)), r"depths must be .* got \(1, 0, 0\)"),
        (lambda: FixedPointDenoiser((1, 8), 10, patch=3), r"patch must divide the grid \(8, 8\)"),
        (lambda: FixedPointDenoiser((1, 8), 10, width=10, heads=4), "heads must divide width, got 4 and 10"),
        (lambda: TimeEmbedding(5, 10), "width must be even, got 5"),
        (lambda: TimeEmbedding(4, 1), "steps must be at least 2, got 1"),
    ],
)
def test_what_is_refused(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
