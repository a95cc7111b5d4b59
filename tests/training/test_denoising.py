"""Denoising: resumed equals uninterrupted bit for bit, rates and averages by hand or by diffusers, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.small_denoising import ABAR, RECIPE, Small, fitting, other, state
from torch import Tensor, nn

from settlepoint.training.denoising import Denoising, DenoisingRecipe, noise_error, smoothed


@pytest.mark.parametrize("stops", [(5,), (1, 2, 8)])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = fitting()
    whole.advance()
    part = fitting()
    for stop in stops:
        part.advance(stop - part.step)
        part.save(tmp_path / "fit.safetensors")
        part = fitting(seed=7)  # other weights, another generator: all must come from the file
        part.resume(tmp_path / "fit.safetensors")
        assert part.step == stop
    part.advance()
    assert part.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(state(part), state(whole), strict=True))
    assert torch.equal(part.generator.get_state(), whole.generator.get_state())
    assert [p.name for p in tmp_path.iterdir()] == ["fit.safetensors"]


def test_a_unet_resumes_bit_for_bit_too(tmp_path: Path) -> None:
    from settlepoint.chains import linear_schedule, unet

    def make(seed: int) -> Denoising:
        torch.manual_seed(seed)
        net = unet(8, 1, (8, 16), layers=1, down=(2,), up=(1,))
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        recipe = DenoisingRecipe(steps=4, batch=4, lr=1e-3, warm_up=1)
        levels = linear_schedule(10).alphas_cumprod
        return Denoising(net, images, levels, recipe, generator=torch.Generator().manual_seed(seed))

    whole, part, other = make(0), make(0), make(1)
    whole.advance()
    part.advance(2)
    part.save(tmp_path / "unet.safetensors")
    other.resume(tmp_path / "unet.safetensors")
    other.advance()
    assert other.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(state(other), state(whole), strict=True))


def test_the_rate_is_that_of_diffusers() -> None:
    from diffusers.optimization import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], RECIPE.lr)
    theirs = get_cosine_schedule_with_warmup(optimizer, RECIPE.warm_up, RECIPE.steps)
    for step in range(RECIPE.steps):
        assert RECIPE.rate(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_the_average_follows_by_hand() -> None:
    fit = fitting()
    wanted = [p.detach().clone() for p in fit.model.parameters()]
    for step in range(1, 4):
        fit.advance(1)
        kept = min(0.9, (1 + step) / (10 + step))
        wanted = [kept * a + (1 - kept) * p.detach() for a, p in zip(wanted, fit.model.parameters(), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(wanted, fit.average.parameters(), strict=True))
    assert fit.average.calls == fit.model.calls


def test_a_fit_learns_the_noise_of_one_image() -> None:
    """All images equal c: the noise is (x_t - sqrt(abar) c) / sqrt(1 - abar), a linear map of x_t for one t."""

    class Linear(nn.Linear):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x)

    recipe = DenoisingRecipe(steps=600, batch=64, lr=5e-2, warm_up=10)
    fit = Denoising(Linear(2, 2), torch.full((4, 2), 0.5), torch.tensor([0.6]), recipe, generator=torch.Generator())
    fit.advance()
    assert torch.allclose(fit.model.weight, torch.eye(2) / 0.4**0.5, atol=1e-2)
    assert torch.allclose(fit.model.bias, torch.full((2,), -(0.6**0.5) * 0.5 / 0.4**0.5), atol=1e-2)


def test_progress_and_more_steps_than_are_left() -> None:
    seen = []
    fit = fitting()
    fit.advance(5, lambda step, loss: seen.append(step))
    fit.advance(100, lambda step, loss: seen.append(step))
    assert seen == list(range(1, 13))
    assert not fit.model.training


def test_another_objective() -> None:
    seen = []

    def zero(model: nn.Module, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        seen.append((x.shape, t.max().item() < 3, noise.shape))
        return model(x, t).square().mean()

    fit = Denoising(Small(), torch.zeros(9, 1, 2, 2), ABAR, RECIPE, objective=zero)
    fit.advance(1)
    assert seen == [(torch.Size([8, 1, 2, 2]), True, torch.Size([8, 1, 2, 2]))]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"warm_up": 12}, r"warm_up must lie in \[0, steps = 12\), got 12"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_recipes(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(RECIPE, **change)


DROPPING = {
    "module": nn.Dropout2d(0.1),
    "attention": nn.MultiheadAttention(4, 2, dropout=0.5),
    "recurrent": nn.LSTM(4, 4, num_layers=2, dropout=0.5),
    "encoder": nn.TransformerEncoderLayer(4, 2, dropout=0.5),
}


@pytest.mark.parametrize("case", DROPPING)
def test_dropout_is_refused(case: str) -> None:
    """Also that which is not a module of its own but a number in another."""
    model = Small()
    model.more = DROPPING[case]
    with pytest.raises(ValueError, match=r"model must be without dropout, whose draws no checkpoint holds, got more"):
        Denoising(model, torch.zeros(4, 1, 2, 2), ABAR, RECIPE)


def test_modules_that_could_drop_and_do_not() -> None:
    model = Small()
    model.more = nn.ModuleList((nn.Dropout(0.0), nn.MultiheadAttention(4, 2), nn.GRU(4, 4)))
    assert Denoising(model, torch.zeros(4, 1, 2, 2), ABAR, RECIPE).step == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite(value: float) -> None:
    images = torch.zeros(4, 1, 2, 2)
    images[1, 0, 1, 0] = value
    with pytest.raises(ValueError, match="images must be finite, got NaN or Inf"):
        Denoising(Small(), images, ABAR, RECIPE)


def test_a_gradient_that_is_not_finite_does_so_too() -> None:
    """The root of 0: a finite loss whose gradient is not."""
    fit = other(objective=lambda model, x, t, noise: sum((0 * p).abs().sqrt().sum() for p in model.parameters()))
    with pytest.raises(FloatingPointError, match="gradient must stay finite, got nan in step 0; lower lr or clip"):
        fit.advance()
    assert all(bool(p.isfinite().all()) for p in fit.model.parameters())


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    """The weights, the average and the moments stay those of the last step that was."""
    fit = other(objective=lambda model, x, t, noise: noise_error(model, x, t, noise) / (2 - min(fit.step, 2)))
    fit.advance(2)
    before = [p.clone() for p in (*fit.model.parameters(), *fit.average.parameters())]
    with pytest.raises(FloatingPointError, match="loss must stay finite, got inf in step 2; lower lr or clip"):
        fit.advance()
    assert all(
        torch.equal(a, b) for a, b in zip(before, (*fit.model.parameters(), *fit.average.parameters()), strict=True)
    )
    assert fit.step == 2
    assert not fit.model.training


def test_smoothing_by_hand() -> None:
    assert smoothed([]) == []
    assert smoothed([2.0, 1.0, 1.0], 0.5) == [2.0, 1.5, 1.25]
