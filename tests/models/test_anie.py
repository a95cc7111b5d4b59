"""ANIE: the equation by hand, attention as a mean over points, and every named fault."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import settlepoint as sp
from settlepoint.layers import GalerkinAttention
from settlepoint.layers.galerkin import coordinates
from settlepoint.models.anie import ANIE, Faults


def build(**settings: object) -> ANIE:
    torch.manual_seed(0)
    return ANIE(3, (8, 8), heads=2, features=6, width=8, hidden=8, **settings)  # type: ignore[arg-type]


def frame() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer, x = GalerkinAttention(6, 2).double(), torch.randn(2, 5, 6, dtype=torch.float64)
    q, k, v = (part.unflatten(-1, (2, 3)).transpose(1, 2) for part in layer.qkv(x).split(6, -1))
    wanted = torch.zeros(2, 2, 5, 3, dtype=torch.float64)
    for point in range(5):
        outer = layer.key_norm(k)[:, :, point, :, None] * layer.value_norm(v)[:, :, point, None, :]
        wanted += q @ outer / 5
    assert torch.allclose(layer(x), layer.out(wanted.transpose(1, 2).flatten(2)), atol=1e-12)


def test_the_equation_by_hand() -> None:
    model, u = build(solver=sp.Picard(0.25), stop=sp.FixedSteps(2)).eval(), frame()
    f = model.encode(u)
    y = f
    for _ in range(2):
        y = 0.25 * y + 0.75 * (f + model.operator(y))
    assert torch.allclose(model(u), model.decode(y), atol=1e-6)
    assert model(u).shape == (2, 3, 8, 8)


def test_f_is_the_same_at_all_times_and_frames_lie_in_their_place() -> None:
    model, u = build(), frame()
    f = model.encode(u).unflatten(1, (3, 4))
    assert torch.equal(f[:, 0], f[:, 2])
    y = torch.randn(2, 12, 6)
    frames = model.decode(y)
    assert torch.allclose(frames[:, 1, :4, 4:].flatten(1), model.decoder(y[:, 5]), atol=1e-6)


def test_coordinates_name_the_time_and_place_of_their_token() -> None:
    places = build().operator.places
    assert torch.equal(places, coordinates(3, 2, 2))
    assert places[5].tolist() == pytest.approx([1 / 3, 0.0, 0.5])
    wrong = build(faults=Faults(misaligned=True)).operator.places
    assert sorted(map(tuple, wrong.tolist())) == sorted(map(tuple, places.tolist()))
    assert not torch.equal(wrong, places)


def test_dropout_in_evaluation_is_a_fault() -> None:
    u = frame()
    sound, faulty = build(dropout=0.5).eval(), build(dropout=0.5, faults=Faults(dropout_in_evaluation=True)).eval()
    assert torch.equal(sound(u), sound(u))
    assert not torch.equal(faulty(u), faulty(u))


def test_no_f_and_adds_y_by_hand() -> None:
    model, u = build(faults=Faults(no_f=True, adds_y=True), stop=sp.FixedSteps(2)).eval(), frame()
    plain = build().eval().operator
    y = model.encode(u)
    for _ in range(2):
        y = 0.5 * y + 0.5 * (plain(y) + y)
    assert torch.allclose(model(u), model.decode(y), atol=1e-6)


def test_the_published_faults_are_all_of_them() -> None:
    assert all(vars(Faults.published()).values())
    assert not any(vars(Faults()).values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"times": 0}, "times must be at least 1, got 0"), ({"heads": 3}, "heads must divide width, got 3 and 64"),
     ({"grid": (9, 8)}, "patch must divide the grid")],
)  # fmt: skip
def test_what_is_refused(settings: dict[str, object], words: str) -> None:
    asked: dict[str, object] = {"times": 2, "grid": (8, 8)} | settings
    with pytest.raises(ValueError, match=words):
        ANIE(**asked)  # type: ignore[arg-type]


def test_one_more_evaluation_and_a_gradient_through_the_last_are_faults_of_the_recipe() -> None:
    model, u = build(faults=Faults(one_more=True, detached=True)).eval(), frame()
    y = model(u)
    assert model.settle.last is not None
    assert model.settle.last.evals.tolist() == [3, 3]
    y.sum().backward()
    whole = build(stop=sp.FixedSteps(3)).eval()
    assert torch.equal(whole(u), y)
    whole(u).sum().backward()
    names = [name for name, p in model.operator.named_parameters() if p.grad is not None]
    pairs = [(model.operator.get_parameter(n).grad, whole.operator.get_parameter(n).grad) for n in names]
    assert not all(torch.allclose(a, b) for a, b in pairs)  # type: ignore[arg-type]
    single = build(faults=Faults(one_more=True), adjoint=sp.Truncated(1)).eval()
    single(u).sum().backward()
    assert all(torch.equal(model.operator.get_parameter(n).grad, single.operator.get_parameter(n).grad) for n in names)


@pytest.mark.parametrize("u", [torch.zeros(2, 2, 8, 8), torch.zeros(2, 1, 8, 9), torch.zeros(2, 8, 8)])
def test_what_is_no_frame(u: Tensor) -> None:
    with pytest.raises(ValueError, match=r"u must be \(B, 1, 8, 8\), got"):
        build()(u)
