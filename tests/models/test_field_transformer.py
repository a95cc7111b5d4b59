"""FieldTransformer: its three forms by hand, its four kinds, all iterates of it, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import settlepoint as sp
from settlepoint import certify
from settlepoint.models import FieldTransformer
from settlepoint.training.settled import AllIterates, iterates

KINDS = ("vit", "small", "parallel", "space-time")


def build(kind: str = "vit", form: str = "picard", *, bounded: bool = False, **settle: object) -> FieldTransformer:
    torch.manual_seed(0)
    patch = (2, 4, 4) if kind == "space-time" else (4, 4)
    return FieldTransformer((4, 4), (8, 8), 8, 2, kind=kind, patch=patch, form=form, bounded=bounded, **settle)  # type: ignore[arg-type]


def fields(count: int = 3) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", ["km", "picard", "input"])
def test_forms_by_hand(form: str) -> None:
    model, u = build(form=form, solver=sp.Picard(0.25), stop=sp.FixedSteps(2)), fields()
    f = model.encode(u)
    x = f
    for _ in range(2):
        image = {
            "km": lambda x: model.operator(x),
            "picard": lambda x: model.operator(x) + f,
            "input": lambda x: model.operator(x, f),
        }[form](x)
        x = 0.25 * x + 0.75 * image
    assert torch.allclose(model(u), model.decode(x), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_maps_frames_to_frames_and_learns(kind: str) -> None:
    model, u = build(kind), fields()
    assert model(u).shape == (3, 4, 8, 8)
    model(u).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_rows_do_not_see_each_other_and_stop_on_their_own() -> None:
    model = build(form="input", bounded=True, solver=sp.Anderson(5), stop=sp.Tolerance(atol=1e-5, max_steps=200))
    with torch.no_grad():
        together, u = model.eval()(fields()), fields()
        assert model.settle.last is not None
        assert model.settle.last.counts() == {"CONVERGED": 3}
        alone = torch.cat([model(u[row : row + 1]) for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize("form", ["km", "picard", "input"])
def test_iterates_are_those_of_so_many_steps(form: str) -> None:
    model, u = build(form=form, solver=sp.Picard(0.5)), fields()
    found = [model.decode(x) for x in iterates(model, model.encode(u), 3)]
    for steps, y in enumerate(found, start=1):
        model.settle.stop = sp.FixedSteps(steps)
        assert torch.allclose(model(u), y, atol=1e-6)


def test_the_stop_is_given_back_when_the_loop_is_left() -> None:
    model = build(stop=sp.FixedSteps(7))
    for _ in iterates(model, model.encode(fields()), 3):
        break
    assert model.settle.stop == sp.FixedSteps(7)


def test_all_iterates_is_the_weighted_mean_of_their_losses() -> None:
    model, u, y = build(), fields(), fields() + 1
    objective = AllIterates(counts=(3, 3), growth=2.0)
    losses = [torch.nn.functional.mse_loss(model.decode(x), y) for x in iterates(model, model.encode(u), 3)]
    wanted = (losses[0] + 4 * losses[1] + 9 * losses[2]) / 14
    assert torch.allclose(objective(model, u, y), wanted, atol=1e-6)


def test_all_iterates_draws_its_number_and_goes_ahead_without_a_gradient() -> None:
    model, u, y = build(), fields(), fields()
    drawn, ahead = AllIterates(counts=(1, 3)), AllIterates(counts=(1, 1), ahead=4)
    assert len({round(drawn(model, u, y).item(), 4) for _ in range(30)}) == 3
    values = [ahead(model, u, y) for _ in range(80)]
    assert len({round(value.item(), 4) for value in values}) == 5
    values[0].backward()


def test_the_penalty_is_added_with_its_share() -> None:
    model, u, y = build(form="input"), fields(), fields()
    without = AllIterates(counts=(2, 2))(model, u, y)
    with_one = AllIterates(counts=(2, 2), share=0.5, penalty=lambda eq, x: eq.residual(x).square().mean())(model, u, y)
    f = model.encode(u)
    *_, x = iterates(model, f, 2)
    assert torch.allclose(with_one - without, 0.5 * (model.operator(x, f) - x).square().mean(), atol=1e-5)


def test_the_penalty_of_certify_has_a_gradient() -> None:
    model, u, y = build(form="input"), fields(), fields()
    plain = AllIterates(counts=(2, 2), share=0.0)(model, u, y)
    value = AllIterates(counts=(2, 2), share=1.0, penalty=certify.jacobian_penalty)(model, u, y)
    assert value > plain
    value.backward()
    assert all(p.grad is not None for p in model.operator.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "swin"}, "kind must be one of vit, small, parallel, space-time, got 'swin'"),
        ({"form": "euler"}, "form must be one of km, picard, input, got 'euler'"),
        ({"kind": "space-time", "frames": (4, 2)}, "as many in as out for 'space-time'"),
        ({"frames": (0, 2)}, "frames must be at least 1"),
        ({"patch": (3, 4)}, "patch must divide the grid"),
        ({"heads": 3}, "heads must divide width"),
    ],
)
def test_what_is_refused(change: dict[str, object], words: str) -> None:
    asked: dict[str, object] = {"frames": (4, 4), "grid": (8, 8), "width": 8, "heads": 2} | change
    with pytest.raises(ValueError, match=words):
        FieldTransformer(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counts": (0, 3)}, "counts must ascend from at least 1"),
        ({"counts": (3, 2)}, "counts must ascend"),
        ({"ahead": -1}, "ahead and share must be at least 0"),
        ({"share": 0.1}, "penalty must be given where it has a share"),
    ],
)
def test_objectives_that_are_none(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AllIterates(**change)  # type: ignore[arg-type]


def settling(solver: sp.Solver, adjoint: sp.Adjoint | None = None) -> FieldTransformer:
    torch.manual_seed(0)
    stop = sp.Tolerance(atol=1e-4)
    return FieldTransformer((1, 1), (4, 4), 8, 2, form="input", solver=solver, stop=stop, adjoint=adjoint).double()


def test_single_iterates_have_the_whole_gradient_whatever_the_model_has() -> None:
    u = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for adjoint in (None, sp.Implicit(), sp.Truncated(1)):
        model = settling(sp.Picard(0.5), adjoint)
        *_, last = iterates(model, model.encode(u), 4)
        model.decode(last).square().mean().backward()
        found.append(model.lift.weight.grad)
    model = settling(sp.Picard(0.5), sp.Unrolled())
    model.settle.stop = sp.FixedSteps(4)
    model(u).square().mean().backward()
    assert all(torch.allclose(g, model.lift.weight.grad, rtol=1e-10) for g in found)  # type: ignore[arg-type]


def test_iterates_leave_the_model_as_it_is() -> None:
    model = settling(sp.Picard(0.5))
    u = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    f, stop = model.encode(u), model.settle.stop
    pairs = list(zip(iterates(model, f, 3), iterates(model, f, 3), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert model.settle.stop is stop


def test_iterates_are_of_solvers_without_memory() -> None:
    model = settling(sp.Anderson(3))
    with pytest.raises(ValueError, match="must be Picard, whose steps have no memory, got Anderson"):
        next(iterates(model, model.encode(torch.zeros(1, 1, 4, 4, dtype=torch.float64)), 2))


@pytest.mark.parametrize("u", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 5), torch.zeros(1, 4, 4)])
def test_what_is_no_field(u: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"u must be \(B, 1, 4, 4\), got"):
        settling(sp.Picard(0.5))(u.double())


def test_no_rows_are_no_rows() -> None:
    model = FieldTransformer((2, 2), (4, 4), 8, 2, stop=sp.FixedSteps(2))
    assert model(torch.zeros(0, 2, 4, 4)).shape == (0, 2, 4, 4)
